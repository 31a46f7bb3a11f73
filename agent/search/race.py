"""Who goes on and who is out, after each rung of rows. Pure decisions over score vectors: knows no model, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.scoring.stats import PairedRace


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ids that go on, best first, and for each that is out the reason."""

    survivors: tuple[str, ...]
    pruned: Mapping[str, str]


def mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0


def ranked(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """Ids by mean, best first; ties keep the order in which they came."""
    return sorted(scores, key=lambda candidate: -mean(scores[candidate]))


def clearly_behind(scores: Mapping[str, Sequence[float]], race: PairedRace) -> Verdict:
    """Prunes what loses to the leader beyond doubt: paired, valid at every look and over all candidates."""
    order = ranked(scores)
    if not order:
        return Verdict((), {})
    leader = order[0]
    pruned = {}
    for candidate in order[1:]:
        n = min(len(scores[candidate]), len(scores[leader]))
        if race.prunes(scores[candidate][:n], scores[leader][:n]):
            pruned[candidate] = (
                f"clearly behind {leader} after {n} paired rows: "
                f"{mean(scores[candidate][:n]):.2f} against {mean(scores[leader][:n]):.2f}"
            )
    return Verdict(tuple(c for c in order if c not in pruned), pruned)


def best_of(scores: Mapping[str, Sequence[float]], keep: int, race: PairedRace) -> Verdict:
    """`clearly_behind`, and then only the best `keep`: successive halving (Jamieson & Talwalkar 2016).

    The halving is a choice of where to spend, not a claim that those who are out are worse; the reasons say which
    it was.
    """
    verdict = clearly_behind(scores, race)
    pruned = dict(verdict.pruned)
    for candidate in verdict.survivors[keep:]:
        last = verdict.survivors[keep - 1]
        pruned[candidate] = (
            f"not among the best {keep} after {len(scores[candidate])} rows: "
            f"{mean(scores[candidate]):.2f}, the last of them has {mean(scores[last]):.2f}"
        )
    return Verdict(verdict.survivors[:keep], pruned)
