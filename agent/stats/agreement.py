"""Agreement of a judge with people: kappa, alpha, rank correlation and length bias. Pure.

`judge` and `people` (their mean) are ratings of the same n items in [0, 1]; `levels` is the number of ratings on the
people's scale; intervals are 95 % percentile bootstraps over items, of 1,000 draws from `seed`. Below 3 items nothing
is estimated. Unpaired sequences raise ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.stats.intervals import mean_ci

Vector = NDArray[Any]
Ratings = Sequence[float]
DRAWS, FEWEST = 1000, 3
MOST_AT_ONCE = 1_000_000  # ranks


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A statistic with its 95 % interval; None where it is undefined, such as without variation.

    >>> IntervalEstimate(0.5, (0.25, 0.75)).times(4).named("kappa")
    {'kappa': 2.0, 'kappa_ci95': [1.0, 3.0]}
    """

    value: float | None
    ci95: tuple[float, float] | None

    def named(self, name: str) -> dict[str, Any]:
        """Return JSON-ready data: the value under `name`, its interval under `<name>_ci95`."""
        return {name: self.value, f"{name}_ci95": list(self.ci95) if self.ci95 else None}

    def times(self, factor: float) -> IntervalEstimate:
        """Convert to another unit; `factor` > 0."""
        if self.value is None or self.ci95 is None:
            return self
        return IntervalEstimate(self.value * factor, (self.ci95[0] * factor, self.ci95[1] * factor))


def categories(values: Sequence[float], levels: int) -> Vector:
    """Round values in [0, 1] to whole ratings 0 .. levels - 1, halves towards the middle of the scale.

    So reversing a scale or a pair reverses the categories; the middle between two middle ratings rounds up.

    >>> categories([0.0, 0.125, 0.5, 0.875, 1.0], levels=5).tolist()
    [0, 1, 2, 3, 4]
    """
    place = np.asarray(values, float) * (levels - 1)
    down = np.ceil(place - 0.5 - 1e-9)
    return np.where(place <= (levels - 1) / 2 + 1e-9, np.floor(place + 0.5 + 1e-9), down).astype(int)


def kappa(
    judge: Ratings, people: Ratings, levels: int, *, weighted: bool, seed: int, before: Ratings | None = None
) -> IntervalEstimate:
    """Compute Cohen's kappa, in [-1, 1]; 0 is chance agreement. `weighted`: quadratic weights, for ordinal ratings.

    With `before`, the ratings of another judge, compute the gain over its kappa.

    Source: Cohen 1960, Educ. Psychol. Meas. 20:37; the weights: Cohen 1968, Psychol. Bull. 70:213.

    >>> kappa([0, 0, 1, 1], [0, 0, 1, 0], levels=2, weighted=False, seed=0).value
    0.5
    """
    _require_pairs(judge, people)
    _require_pairs(people if before is None else before, people)
    ours, right, theirs = (categories(each, levels) for each in (judge, people, before or ()))
    apart = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))).astype(float)
    cost = apart**2 if weighted else (apart > 0).astype(float)

    def measure(at: Vector) -> float | None:
        value = _kappa(ours[at], right[at], cost)
        other = 0.0 if before is None else _kappa(theirs[at], right[at], cost)
        return None if value is None or other is None else value - other

    return _bootstrap(measure, len(right), seed)


def _counts(rows: Vector, columns: Vector, levels: int) -> Vector:
    counts = np.bincount(rows * levels + columns, minlength=levels * levels)
    return counts.reshape(levels, levels).astype(float)


def _kappa(one: Vector, two: Vector, cost: Vector) -> float | None:
    observed = _counts(one, two, len(cost))
    chance = np.outer(observed.sum(1), observed.sum(0)) / max(1.0, observed.sum())
    expected = float((cost * chance).sum())
    return 1 - float((cost * observed).sum()) / expected if expected > 0 else None


def alpha(raters: Sequence[Sequence[float | None]], levels: int, seed: int) -> IntervalEstimate:
    """Compute Krippendorff's alpha for ordinal data, at most 1; 0 is chance agreement.

    `raters`: raters x items, values in [0, 1], None for a missing rating; items with a single rating do not count.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", sections C and D.
    """
    table = np.array([[np.nan if v is None else float(categories([v], levels)[0]) for v in row] for row in raters])
    counts = np.stack([(table == level).sum(axis=0) for level in range(levels)], axis=1).astype(float)  # items x levels
    ratings = counts.sum(axis=1)
    same = counts[:, :, None] * np.eye(levels)
    pairs = (counts[:, :, None] * counts[:, None, :] - same) / np.maximum(ratings - 1, 1).reshape(-1, 1, 1)

    def measure(at: Vector) -> float | None:
        paired = at[ratings[at] >= 2]
        return _alpha(pairs[paired].sum(axis=0), counts[paired].sum(axis=0)) if len(paired) >= 2 else None

    return _bootstrap(measure, table.shape[1], seed)


def _alpha(observed: Vector, n: Vector) -> float | None:
    """Compute alpha from pairs of ratings (levels x levels) and ratings of each level."""
    below = np.cumsum(n)
    apart = np.abs(below[:, None] - below[None, :] + (n[None, :] - n[:, None]) / 2) ** 2
    expected = float((apart * np.outer(n, n)).sum()) / float(n.sum() - 1)
    return 1 - float((apart * observed).sum()) / expected if expected > 0 else None


def spearman(one: Sequence[float], two: Sequence[float], seed: int) -> IntervalEstimate:
    """Compute Spearman's rank correlation of paired numbers, in [-1, 1]; ties share their mean rank.

    >>> spearman([1, 2, 3, 4], [10, 30, 20, 40], seed=0).value
    0.8
    """
    _require_pairs(one, two)
    first, second = np.asarray(one, float), np.asarray(two, float)
    if len(first) < FEWEST:
        return IntervalEstimate(None, None)
    value, *draws = _spearman(first, second, np.vstack([np.arange(len(first)), _drawn(len(first), seed)]))
    return _estimate(value, draws)


def _spearman(one: Vector, two: Vector, draws: Vector) -> list[float | None]:
    """Correlate the items of each draw, many at a time."""
    from scipy import stats

    found: list[float | None] = []
    for at in np.array_split(draws, math.ceil(draws.size / MOST_AT_ONCE)):
        first, second = (stats.rankdata(side[at], axis=1) - (len(side) + 1) / 2 for side in (one, two))
        sizes = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
        shared = (first * second).sum(axis=1)
        found += [float(each / size) if size else None for each, size in zip(shared, sizes, strict=True)]
    return found


def mean_share(shares: Sequence[float]) -> IntervalEstimate:
    """Return the mean of independent shares in [0, 1] with the interval of `intervals.mean_ci`."""
    if not shares:
        return IntervalEstimate(None, None)
    mean, low, high = mean_ci(shares)
    return IntervalEstimate(mean, (low, high))


def length_bias(
    judge: Sequence[float], people: Sequence[float], lengths: Sequence[float], seed: int
) -> IntervalEstimate:
    """Measure how much the judge overrates longer answers, in [-2, 2].

    The mean overrating of the longer half minus that of the shorter half. Answers of the median length belong to
    neither half, unless one would be empty.
    """
    _require_pairs(judge, people)
    _require_pairs(judge, lengths)
    over = np.asarray(judge, float) - np.asarray(people, float)
    size = np.asarray(lengths, float)
    side = np.sign(size - np.median(size)) if len(size) else size
    if not (side < 0).any():
        side[side == 0] = -1
    elif not (side > 0).any():
        side[side == 0] = 1

    def measure(at: Vector) -> float | None:
        here, gap = side[at], over[at]
        if not (here > 0).any() or not (here < 0).any():
            return None
        return float(gap[here > 0].mean() - gap[here < 0].mean())

    return _bootstrap(measure, len(over), seed)


def confusion(judge: Sequence[float], people: Sequence[float], levels: int) -> list[list[int]]:
    """Count items by the people's rating (rows) and the judge's (columns): `levels` x `levels`.

    >>> confusion([0, 1, 1], [0, 0, 1], levels=2)
    [[1, 1], [0, 1]]
    """
    _require_pairs(judge, people)
    found: list[list[int]] = _counts(categories(people, levels), categories(judge, levels), levels).astype(int).tolist()
    return found


def _require_pairs(one: Sequence[float], two: Sequence[float]) -> None:
    if len(one) != len(two):
        raise ValueError(f"{len(one)} values and {len(two)}: pair them item by item")


def _bootstrap(measure: Callable[[Vector], float | None], n: int, seed: int) -> IntervalEstimate:
    value = measure(np.arange(n)) if n >= FEWEST else None
    return _estimate(value, map(measure, () if value is None else _drawn(n, seed)))


def _drawn(n: int, seed: int) -> Vector:
    return np.random.default_rng(seed).integers(0, n, (DRAWS, n))


def _estimate(value: float | None, draws: Iterable[float | None]) -> IntervalEstimate:
    if value is None:
        return IntervalEstimate(None, None)
    known = [each for each in draws if each is not None]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (value, value)
    return IntervalEstimate(value, (float(low), float(high)))
