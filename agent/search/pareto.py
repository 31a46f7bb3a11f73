"""Which candidate to ship by score, prompt tokens, dollars and latency; only those scored on the whole of dev."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import stdev
from typing import Literal

from agent.results.run_parts import ParetoRow

Prefer = Literal["best", "cheap", "short"]

MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate with its scores by dev row (None: no score) and its costs.

    `prompt_tokens` are without the row; `usd` and `latency_s` are means of a call, None: not known; `tokens_a_call` is
    measured and only shown, as a cap that cuts calls short changes it.
    """

    candidate_id: str
    scores: Sequence[float | None]
    prompt_tokens: int
    usd: float | None
    latency_s: float | None = None
    tokens_a_call: int = 0

    @property
    def mean(self) -> float:
        return self.over(len(self.scores))

    def over(self, rows: int) -> float:
        """The mean score of the first `rows` rows; 0 for none."""
        scored = [value for value in self.scores[:rows] if value is not None]
        return sum(scored) / len(scored) if scored else 0.0


def counted(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Count 0 for a row that only others have a score for, as the test of a gain does (`release/gate.py`)."""
    scored = [any(value is not None for value in row) for row in zip_longest(*(each.scores for each in finalists))]

    def filled(scores: Sequence[float | None]) -> list[float | None]:
        return [0.0 if has and value is None else value for has, value in zip(scored, scores, strict=False)]

    return [replace(each, scores=filled(each.scores)) for each in finalists]


def front(finalists: Sequence[Finalist]) -> list[Finalist]:
    """The Pareto front, the best score first. Latency counts only when all have one."""
    timed = all(finalist.latency_s is not None for finalist in finalists)
    costs = {id(finalist): _costs(finalist, timed) for finalist in finalists}
    kept = [o for o in finalists if not any(_beats(costs[id(other)], costs[id(o)]) for other in finalists)]
    return sorted(kept, key=lambda finalist: (-finalist.mean, finalist.prompt_tokens))


def _costs(finalist: Finalist, timed: bool) -> tuple[float, ...]:
    return (-finalist.mean, finalist.prompt_tokens, finalist.usd or 0.0, (finalist.latency_s or 0.0) if timed else 0.0)


def _beats(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one != two and all(a <= b for a, b in zip(one, two, strict=True))


def prefer(finalists: Sequence[Finalist], how: Prefer = "best") -> Finalist | None:
    """Choose the one to ship, the first of equals; None of none.

    `best`: the highest score, then the fewest tokens. Among those `within_noise` of the best, `cheap` takes the fewest
    dollars, then tokens, and `short` the fewest tokens, then dollars.
    """
    if not finalists:
        return None
    best = min(finalists, key=lambda finalist: (-finalist.mean, finalist.prompt_tokens))
    good = [finalist for finalist in finalists if within_noise(finalist, best)]
    if how == "cheap":
        return min(good, key=lambda finalist: (finalist.usd or 0.0, finalist.prompt_tokens, -finalist.mean))
    if how == "short":
        return min(good, key=lambda finalist: (finalist.prompt_tokens, finalist.usd or 0.0, -finalist.mean))
    return best


def within_noise(finalist: Finalist, best: Finalist) -> bool:
    """Whether it is worse than the best by at most max(MARGIN, one standard error of the paired mean difference).

    Loose by intent: with 10 of 100 rows differing, about 3 points.
    """
    if finalist is best:
        return True
    pairs = zip(finalist.scores, best.scores, strict=False)
    steps = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if not steps:
        return False
    error = stdev(steps) / math.sqrt(len(steps)) if len(steps) > 1 else 0.0
    return sum(steps) / len(steps) >= -max(MARGIN, error) - 1e-12


def front_table(finalists: Sequence[Finalist], chosen: str) -> list[ParetoRow]:
    """The front, the chosen one included even where another beats it."""
    kept = front(finalists)
    shown = kept + [finalist for finalist in finalists if finalist.candidate_id == chosen and finalist not in kept]
    return [
        ParetoRow(
            candidate_id=finalist.candidate_id,
            dev=finalist.mean,
            prompt_tokens=finalist.prompt_tokens,
            usd_per_1000=None if finalist.usd is None else 1000 * finalist.usd,
            latency_s=finalist.latency_s,
            chosen=finalist.candidate_id == chosen,
            tokens_a_call=finalist.tokens_a_call,
        )
        for finalist in shown
    ]
