"""Decisions of the default strategy: promote, draw an operator, prune, stop. Pure."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist

from agent.search.study import MeanScore
from agent.stats.intervals import scored_difference
from agent.stats.racing import behind

Scores = Sequence[float | None]
PlannedRows = tuple[str, int]  # a candidate, and its first rows to evaluate
ETA, LAST_ETA = 3.0, 9.0
PRIOR_WINS, PRIOR_LOSSES = 1.0, 2.0
MOST_FINALISTS = 4
APART = 0.1  # a candidate below this two-sided p-value differs from the best and is no finalist
LATEST = 24  # candidates that the next ones are expected to be like; with fewer nothing is said


def mean(scores: Scores) -> float:
    scored = [score for score in scores if score is not None]
    return sum(scored) / len(scored) if scored else 0.0


def promotions(
    rungs: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    out: Collection[str] = (),
    rows: Mapping[str, int] | None = None,
    eta: float = ETA,
) -> list[PlannedRows]:
    """Choose candidates to promote along `rungs`, highest rungs first. Pruned ones (`out`) count in their rung.

    One of `eta` candidates is promoted, to the last rung one of LAST_ETA: most calls are for new candidates. All of a
    rung have the same rows, so their means are paired. Promoted candidates that were overtaken keep their places.

    Source: asynchronous successive halving (Li et al. 2020), which promotes the newcomers as well.
    """
    seen = rows or {i: len(vector) for i, vector in scores.items()}
    levels = {i: sum(seen[i] >= rung for rung in rungs) - 1 for i in scores}
    planned = []
    for step in range(len(rungs) - 2, -1, -1):
        here = [i for i in scores if levels[i] >= step]
        allowed = int(len(here) / (LAST_ETA if step == len(rungs) - 2 > 0 else eta))
        best = sorted(here, key=lambda i: -mean(scores[i][: rungs[step]]))[:allowed]
        climbing = [(i, rungs[step + 1]) for i in best if levels[i] == step and i not in out]
        planned += climbing[: max(0, allowed - sum(levels[i] > step for i in here))]
    return planned


def rungs_for(rows: int, first: int = 8, factor: float = 2.8) -> tuple[int, ...]:
    """Return rungs up to `rows`, without one that almost reaches the next.

    >>> rungs_for(100)
    (8, 22, 62, 100)
    """
    rungs: list[int] = []
    step = float(min(first, rows))
    while step * 1.4 < rows:
        rungs.append(int(step))
        step *= factor
    return (*rungs, rows)


class Bandit:
    """The choice of operators by how often their candidates are promoted past the first rung.

    Source: Thompson sampling with Beta beliefs (Thompson 1933; Chapelle & Li 2011).
    """

    def __init__(self) -> None:
        self.wins, self.losses = Counter[str](), Counter[str]()

    def update(self, operator: str, won: bool) -> None:
        (self.wins if won else self.losses)[operator] += 1

    def draw(self, operators: Sequence[str], rng: random.Random) -> str:
        def sample(name: str) -> float:
            return rng.betavariate(self.wins[name] + PRIOR_WINS, self.losses[name] + PRIOR_LOSSES)

        return max(operators, key=sample)


def clearly_behind(scores: Mapping[str, Scores], rungs: Sequence[int]) -> dict[str, str]:
    """Return candidates significantly worse than the leader, with reasons; valid at every look."""
    names, reasons = list(scores), dict[str, str]()
    for rung in rungs:
        rows = [scores[name][:rung] for name in names]
        if not any(len(row) == rung for row in rows):
            continue
        best = max((row for row in rows if len(row) == rung), key=mean)
        for place in behind(rows):
            means = f"{mean(rows[place]):.2f}, the best of them has {mean(best):.2f}"
            reasons.setdefault(names[place], f"clearly behind after {rung} paired rows: {means}")
    return reasons


def stop_reason(others: Sequence[MeanScore], leader: float, more: int, rows: int, score: float = 0.0) -> str:
    """Return why no further candidate is expected to beat the leader, or "".

    Future candidates are taken to be like the latest: normal, with their mean and spread, which the noise of few rows
    only widens. `leader` is a mean over all of dev of scores like those of `others`, `score` the best mean of plain
    scores.
    """
    if rows and score >= 1.0 - 0.5 / rows:
        return f"the leader is right on all {rows} dev rows"
    if more < 1:
        return "no further candidate can be paid"
    latest = [each for each in others if each.n][-LATEST:]
    if len(latest) < LATEST or any(each.mean >= leader for each in latest):
        return ""  # one of them came as far, if only on a few rows: so may the next
    middle = sum(each.mean for each in latest) / len(latest)
    spread = sum((each.mean - middle) ** 2 for each in latest) / (len(latest) - 1)
    best = middle + math.sqrt(spread) * expected_maximum(more)
    if best < leader + 0.5 / rows:
        return f"the best of {more} more candidates is expected at {best:.2f}, the leader stands at {leader:.2f}"
    return ""


def expected_maximum(count: int) -> float:
    """Approximate the mean maximum of `count` standard normal draws (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def close_to_best(scores: Mapping[str, Scores], seed: int) -> list[str]:
    """Return the candidates not distinguishable from the first, at most `MOST_FINALISTS`.

    Compared on common rows. `scores`: by candidate, the best first, its scores on the first dev rows; at least one.

    >>> close_to_best({"a": [1.0] * 8, "b": [1.0] * 6 + [0.0] * 2, "c": [0.0] * 8}, seed=0)
    ['a', 'b']
    """
    best, *others = scores
    close = [best]
    for name in others:
        if len(close) == MOST_FINALISTS:
            break
        shared = min(len(scores[best]), len(scores[name]))
        apart = scored_difference(scores[best][:shared], scores[name][:shared], seed)
        if apart is None or apart.diff <= 0 or apart.p_value > APART:
            close.append(name)
    return close
