"""One sentence for a proposal: why this demo set, in numbers that stand in the ledger. Pure words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.search.analysis.effects import Effect


def recombined(ids: Sequence[str], effects: Mapping[str, Effect]) -> str:
    """As in: 8 rows, 5 of them tried before; most is expected of train-3 (+2.1) and train-9 (+1.4)."""
    tried = sorted((effects[i] for i in ids if i in effects), key=lambda effect: -effect.points)
    best = " and ".join(f"{effect.name} ({effect.points:+.1f})" for effect in tried[:2] if effect.points > 0)
    known = f"{len(tried)} of them tried before" if tried else "not tried before"
    rows = f"{len(ids)} row{'' if len(ids) == 1 else 's'}"
    return f"{rows}, {known}{f'; most is expected of {best}' if best else ''}"


def dropped(ids: Sequence[str], effects: Mapping[str, Effect]) -> str:
    """As in: without train-4 (-1.2) and train-7: they add least. Effects are given where there are some."""
    named = [f"{i} ({effects[i].points:+.1f})" if i in effects else i for i in ids]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"without {listed}: {'it adds' if len(named) == 1 else 'they add'} least"
