"""Decisions of the default strategy: promote, draw an operator, prune, stop.

Pure functions of scores and row counts: no model, no SQL.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from agent.search.study import MeanScore
from agent.stats.intervals import scored_difference
from agent.stats.racing import behind

Scores = Sequence[float | None]
PRIOR_WINS, PRIOR_LOSSES = 1.0, 2.0
MOST_FINALISTS = 4
APART = 0.1
"""A candidate below this two-sided p-value differs from the best and is no finalist."""
LATEST = 24  # candidates that the next ones are expected to be like; with fewer nothing is said


def mean(scores: Scores) -> float:
    scored = [score for score in scores if score is not None]
    return sum(scored) / len(scored) if scored else 0.0


@dataclass(frozen=True, slots=True)
class PlannedRows:
    """Evaluate this candidate on its first `rows` rows."""

    candidate_id: str
    rows: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """The promotion of candidates along `rungs`: rising row counts, the last all of dev.

    One of `eta` candidates is promoted, to the last rung one of `last_eta`: most calls are for new candidates, and all
    of dev is for finalists. All candidates of a rung have the same rows, so their means are paired. A candidate that is
    not promoted now may be when more have come in below it. Promoted candidates that were overtaken keep their places,
    so that no more than that share is ever promoted.

    Source: asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
    algorithm 2), which promotes the newcomers as well.
    """

    rungs: tuple[int, ...]
    eta: float = 3.0
    last_eta: float = 9.0

    def level(self, rows: int) -> int:
        """Return the index of the highest rung that `rows` rows reach; -1 for none."""
        return sum(rows >= rung for rung in self.rungs) - 1

    def promotions(
        self, scores: Mapping[str, Sequence[float]], out: Collection[str] = (), rows: Mapping[str, int] | None = None
    ) -> list[PlannedRows]:
        """Choose the candidates to promote, highest rungs first; earlier candidates win ties.

        Pruned ones (`out`) count in their rung. `rows`: the rows of each candidate, if some have no score.
        """
        levels = {i: self.level(rows[i] if rows else len(vector)) for i, vector in scores.items()}
        planned = []
        for step in range(len(self.rungs) - 2, -1, -1):
            here = [i for i in scores if levels[i] >= step]
            allowed = int(len(here) / (self.last_eta if step == len(self.rungs) - 2 > 0 else self.eta))
            best = sorted(here, key=lambda i: -mean(scores[i][: self.rungs[step]]))[:allowed]
            climbing = [PlannedRows(i, self.rungs[step + 1]) for i in best if levels[i] == step and i not in out]
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


@dataclass(slots=True)
class Bandit:
    """The choice of operators by how often their candidates are promoted past the first rung.

    An operator without success, such as a weak proposer, soon costs nearly nothing.

    Source: Thompson sampling with Beta beliefs (Thompson 1933; Chapelle & Li 2011).
    """

    wins: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def update(self, operator: str, won: bool) -> None:
        counts = self.wins if won else self.losses
        counts[operator] = counts.get(operator, 0.0) + 1.0

    def draw(self, operators: Sequence[str], rng: random.Random) -> str:
        """Draw one of the operators that can be used now."""

        def sample(name: str) -> float:
            return rng.betavariate(self.wins.get(name, 0.0) + PRIOR_WINS, self.losses.get(name, 0.0) + PRIOR_LOSSES)

        return max(operators, key=sample)


def clearly_behind(scores: Mapping[str, Scores], rungs: Sequence[int]) -> dict[str, str]:
    """Return candidates significantly worse than the leader, with reasons; valid at every look.

    `scores` holds every candidate that was tried, pruned ones too; each is compared on the rows up to its rungs.
    """
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

    Future candidates are taken to be like the latest ones: normal around their mean, with the spread of their means.
    The noise of few rows stays in that spread, which errs on the side of searching. If even the best of `more` is
    expected at less than half a row of dev (`rows`) above the leader, the calls are better kept. `leader` is a mean
    over all of dev of scores like those of `others`, `score` the best mean of plain scores.
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
