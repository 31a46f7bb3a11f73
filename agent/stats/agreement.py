"""How well a judge agrees with people: kappa, alpha, rank correlation, and what length does to it. Pure.

Everything is measured on the same items, judge against the people's mean, with a 95 % percentile bootstrap over items
(1,000 draws from a seed). Values lie in [0, 1]; `levels` is how many ratings the people's scale has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[Any]

DRAWS = 1000
FEWEST = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % interval; None where it is not defined, as without any variation."""

    value: float | None
    ci95: tuple[float, float] | None

    def named(self, name: str) -> dict[str, Any]:
        """JSON-ready: the value under `name`, its interval under `<name>_ci95`."""
        return {name: self.value, f"{name}_ci95": list(self.ci95) if self.ci95 else None}

    def times(self, factor: float) -> Estimate:
        """The estimate in another unit; `factor` > 0."""
        if self.value is None or self.ci95 is None:
            return self
        return Estimate(self.value * factor, (self.ci95[0] * factor, self.ci95[1] * factor))


def categories(values: Sequence[float], levels: int) -> Vector:
    """Values in [0, 1] as whole ratings 0 .. levels - 1. Halves go towards the middle of the scale, so that turning a
    scale or a pair around turns the categories around; the middle between two middle ratings goes up."""
    import numpy as np

    place = np.asarray(values, float) * (levels - 1)
    down = np.ceil(place - 0.5 - 1e-9)
    return np.where(place <= (levels - 1) / 2 + 1e-9, np.floor(place + 0.5 + 1e-9), down).astype(int)


def kappa(judge: Sequence[float], people: Sequence[float], levels: int, *, weighted: bool, seed: int) -> Estimate:
    """Cohen's kappa (1960), for ratings with quadratic weights (Cohen 1968): 1 is agreement, 0 is chance."""
    _require_pairs(judge, people)
    one, two = categories(judge, levels), categories(people, levels)
    return _bootstrap(_each(lambda at: _kappa(one[at], two[at], levels, weighted)), len(one), seed)


def _kappa(one: Vector, two: Vector, levels: int, weighted: bool) -> float | None:
    import numpy as np

    seen = np.zeros((levels, levels))
    np.add.at(seen, (one, two), 1.0)
    apart = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))).astype(float)
    cost = apart**2 if weighted else (apart > 0).astype(float)
    chance = np.outer(seen.sum(1), seen.sum(0)) / max(1.0, seen.sum())
    expected = float((cost * chance).sum())
    return 1 - float((cost * seen).sum()) / expected if expected > 0 else None


def alpha(raters: Sequence[Sequence[float | None]], levels: int, seed: int) -> Estimate:
    """Krippendorff's alpha for ordinal data (2011, "Computing Krippendorff's alpha-reliability", sections C and D). A
    row a rater, None where one did not rate; what only one rated does not count."""
    import numpy as np

    table = np.array([[np.nan if v is None else float(categories([v], levels)[0]) for v in row] for row in raters])
    return _bootstrap(_each(lambda at: _alpha(table[:, at], levels)), table.shape[1], seed)


def _alpha(table: Vector, levels: int) -> float | None:
    import numpy as np

    counts = np.stack([(table == level).sum(axis=0) for level in range(levels)], axis=1).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]  # a row an item, a column a rating
    if len(counts) < 2:
        return None
    pairs = (counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(levels)) / (
        counts.sum(axis=1) - 1
    ).reshape(-1, 1, 1)
    seen, n = pairs.sum(axis=0), counts.sum(axis=0)
    below = np.cumsum(n)
    apart = np.abs(below[:, None] - below[None, :] + (n[None, :] - n[:, None]) / 2) ** 2
    expected = float((apart * np.outer(n, n)).sum()) / float(n.sum() - 1)
    return 1 - float((apart * seen).sum()) / expected if expected > 0 else None


def spearman(one: Sequence[float], two: Sequence[float], seed: int) -> Estimate:
    """Spearman's rank correlation: Pearson's of the ranks, where ties share their mean rank."""
    import numpy as np

    _require_pairs(one, two)
    first, second = np.asarray(one, float), np.asarray(two, float)
    return _bootstrap(lambda draws: _spearman(first[draws], second[draws]), len(first), seed)


def _spearman(one: Vector, two: Vector) -> list[float | None]:
    """A value a row; all rows at once, because ranking them one by one takes ten times as long."""
    import numpy as np
    from scipy import stats

    first, second = (stats.rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (one, two))
    sizes = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return [
        float(both / size) if size else None for both, size in zip((first * second).sum(axis=1), sizes, strict=True)
    ]


def share(hits: Sequence[bool]) -> Estimate:
    """A share of yes with Wilson's interval."""
    return mean_share([float(hit) for hit in hits])


def mean_share(shares: Sequence[float]) -> Estimate:
    """The mean of shares in [0, 1] that are independent of each other, with its interval."""
    from agent.stats.intervals import mean_ci

    if not shares:
        return Estimate(None, None)
    mean, low, high = mean_ci(shares)
    return Estimate(mean, (low, high))


def length_bias(judge: Sequence[float], people: Sequence[float], lengths: Sequence[float], seed: int) -> Estimate:
    """How much more than people the judge gives to the longer half of the answers than to the shorter half, in [-2, 2]
    where 1 is the whole scale. Answers of the middle length belong to neither half, unless one would be empty."""
    import numpy as np

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

    return _bootstrap(_each(measure), len(over), seed)


def confusion(judge: Sequence[float], people: Sequence[float], levels: int) -> list[list[int]]:
    """Counts by the people's rating (rows) and the judge's (columns)."""
    table = [[0] * levels for _ in range(levels)]
    for said, wanted in zip(categories(judge, levels), categories(people, levels), strict=True):
        table[int(wanted)][int(said)] += 1
    return table


def _require_pairs(one: Sequence[float], two: Sequence[float]) -> None:
    if len(one) != len(two):
        raise ValueError(f"{len(one)} values and {len(two)}: pair them item by item")


def _each(measure: Callable[[Vector], float | None]) -> Callable[[Vector], list[float | None]]:
    return lambda draws: [measure(at) for at in draws]


def _bootstrap(measure: Callable[[Vector], list[float | None]], n: int, seed: int) -> Estimate:
    """`measure` takes draws x items, as places among the `n`, and gives a value a draw."""
    import numpy as np

    if n < FEWEST:
        return Estimate(None, None)
    (value,) = measure(np.arange(n)[None])
    if value is None:
        return Estimate(None, None)
    drawn = [found for found in measure(np.random.default_rng(seed).integers(0, n, (DRAWS, n))) if found is not None]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (value, value)
    return Estimate(value, (float(low), float(high)))
