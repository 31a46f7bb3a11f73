"""Which candidates are out beyond doubt. Pure decisions over score vectors: knows no model, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.stats.racing import behind

Scores = Sequence[float | None]


def clearly_behind(field: Mapping[str, Scores], rungs: Sequence[int]) -> dict[str, str]:
    """Those that are worse than the best of the field, with the reason: paired, valid at every look.

    `field` holds every candidate that was tried, also those that are out, each with its scores on the first rows of the
    common order (None: not scored). A candidate on a rung is compared on the rows up to it.
    """
    names, reasons = list(field), dict[str, str]()
    for rung in rungs:
        rows = [field[name][:rung] for name in names]
        if not any(len(row) == rung for row in rows):
            continue
        best = max((row for row in rows if len(row) == rung), key=mean)
        for place in behind(rows):
            means = f"{mean(rows[place]):.2f}, the best of them has {mean(best):.2f}"
            reasons.setdefault(names[place], f"clearly behind after {rung} paired rows: {means}")
    return reasons


def mean(scores: Scores) -> float:
    """The mean of those that are scored; 0 for none."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else 0.0
