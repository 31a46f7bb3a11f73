"""Intervals for the arena: rows are the clusters, seeds are runs of the same search. Pure numpy.

A system's marks on a task are a matrix (seeds x rows) of 0 and 1. Both rows and seeds are a sample of what could have
been drawn, so the bootstrap draws both: rows with replacement once for all systems and seeds (they are paired), seeds
with replacement for each system on its own. A system that ran once shows nothing of how its runs differ: its mean gets
normal noise instead, as large as the runs of the systems that ran more often differ (`seed_spread`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 4000
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean or a difference of means with its 95 % interval, all in [-1, 1]."""

    value: float
    low: float
    high: float


def matrix(marks: Sequence[str]) -> Matrix:
    """Strings of 0 and 1, one a seed, as seeds x rows. ValueError when their lengths differ or there is none."""
    if not marks or not marks[0] or len({len(one) for one in marks}) != 1:
        raise ValueError("every seed needs the same test rows")
    return np.array([[float(mark) for mark in one] for one in marks])


def seed_spread(cells: Sequence[Matrix]) -> float:
    """The standard deviation of a run's mean among runs of the same system on the same task, pooled over those that ran
    twice or more; 0 where none did."""
    repeated = [marks.mean(axis=1) for marks in cells if marks.shape[0] > 1]
    free = sum(len(means) - 1 for means in repeated)
    return float(np.sqrt(sum(((means - means.mean()) ** 2).sum() for means in repeated) / free)) if free else 0.0


def mean_interval(tasks: Sequence[Matrix], alone: float = 0.0, seed: int = 0) -> Interval:
    """Return the mean over tasks of the mean over seeds and rows; `alone` is the spread assumed for a single seed."""
    rng = np.random.default_rng(seed)
    drawn = np.mean([_means(marks, _rows(marks, rng), alone, rng) for marks in tasks], axis=0)
    return _interval(float(np.mean([marks.mean() for marks in tasks])), drawn)


def difference_interval(
    pairs: Sequence[tuple[Matrix, Matrix]], alone: tuple[float, float] = (0.0, 0.0), seed: int = 0
) -> Interval:
    """One system minus another, paired by row; `pairs` are their marks by task, over the same rows, and `alone` the
    spread assumed for a single seed of either."""
    rng = np.random.default_rng(seed)
    drawn = []
    for one, other in pairs:
        if one.shape[1] != other.shape[1]:
            raise ValueError("both need the same test rows")
        rows = _rows(one, rng)
        drawn.append(_means(one, rows, alone[0], rng) - _means(other, rows, alone[1], rng))
    value = float(np.mean([one.mean() - other.mean() for one, other in pairs]))
    return _interval(value, np.mean(drawn, axis=0))


def _rows(marks: Matrix, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """DRAWS x rows: how often each row was drawn."""
    count = marks.shape[1]
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)


def _means(marks: Matrix, rows: Matrix, alone: float, rng: np.random.Generator) -> Matrix:
    """Return the mean of each draw of rows and seeds."""
    by_seed = rows @ marks.T / marks.shape[1]  # DRAWS x seeds
    if marks.shape[0] == 1:
        return np.clip(by_seed[:, 0] + rng.normal(0.0, alone, DRAWS), 0.0, 1.0) if alone else by_seed[:, 0]
    seeds = rng.integers(0, marks.shape[0], size=by_seed.shape)
    found: Matrix = np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1)
    return found


def _interval(value: float, drawn: Matrix) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))
