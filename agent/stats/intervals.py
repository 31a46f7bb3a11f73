"""Confidence interval of a mean or a gain, and paired comparison of two prompts on the same rows. Pure.

Scores are vectors in [0, 1]; random draws come from `seed`. Empty, unequally long, non-finite or out-of-range input
raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.results.base import Interval
from agent.results.run_parts import NotWorse, PairedResult
from agent.stats.paired_tests import chunks, counts_test, graded_test
from agent.stats.power import CONFIDENCE

Vector = NDArray[Any]
PERMUTATIONS = 5_000
FEW = 3  # hits, or misses, for which Wilson's limit is too close


def mean_ci(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high) of independent scores, within [0, 1]. A single value m gives (m, 0, 1).

    0/1 scores, and equal ones: Wilson's score interval, with the Poisson limit for 1 to 3 hits or misses, where
    Wilson's covers as little as 85 %. Graded scores: Wilson's for the number of 0/1 rows that would leave the mean as
    uncertain; Student's t covers 87 to 91 % near 0 and 1 on 40 rows.

    Source: Brown, Cai & DasGupta 2001, Statistical Science 16:101; Korn & Graubard 1998, Survey Methodology 24:193.

    >>> [round(value, 3) for value in mean_ci([1.0] * 8 + [0.0] * 2)]
    [0.8, 0.49, 0.943]
    """
    scores = checked(values, "values")
    mean, n = float(scores.mean()), len(scores)
    if n == 1:
        return mean, 0.0, 1.0
    variance = float(scores.var(ddof=1))
    if _is_binary(scores):
        return mean, *_with_few(mean, n, confidence)
    if variance < 1e-24:
        return mean, *_wilson(mean, n, confidence)
    from scipy import stats

    level = (1 + confidence) / 2
    widened = variance * (float(stats.t.ppf(level, n - 1)) / NormalDist().inv_cdf(level)) ** 2
    return mean, *_wilson(mean, n * mean * (1 - mean) / widened, confidence)


def paired_difference(winner: Sequence[float], baseline: Sequence[float], seed: int) -> PairedResult:
    """Compare two prompts on the same n rows.

    The interval excludes 0 exactly when the p-value is below 0.05. 0/1 scores: the exact McNemar test. Graded scores:
    sign flips, Student's t and the BCa bootstrap together (`paired_tests.py`).

    >>> result = paired_difference([1.0] * 9 + [0.0], [0.0] * 7 + [1.0] * 3, seed=0)
    >>> result.wins, result.losses, round(result.p_value, 3)
    (7, 1, 0.07)
    """
    differences, is_binary = _paired(winner, baseline)
    wins, losses, n = int((differences > 1e-12).sum()), int((differences < -1e-12).sum()), len(differences)
    rng = np.random.default_rng(seed)
    test = counts_test(wins, losses, n) if is_binary else graded_test(differences, rng)
    return PairedResult(
        diff=float(differences.mean()),
        ci95=test.interval,
        p_value=test.p_value,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        n=n,
    )


def equally_many(one: int, other: int) -> float:
    """Return the p-value of "both counts are equally likely": the exact two-sided binomial test. 1 for no count.

    >>> round(equally_many(9, 1), 3)
    0.021
    """
    from scipy import stats

    return float(stats.binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0


def lowest_difference(first: Sequence[float], second: Sequence[float], seed: int, confidence: float = 0.95) -> float:
    """Return the lower one-sided confidence limit of the mean difference, first minus second.

    0/1 scores: that of Tango's score test, which needs fewer rows to rule a loss out than the exact test of a gain.

    Source: Tango 1998, Statistics in Medicine 17:891.

    >>> low = lowest_difference([1.0] * 90 + [0.0] * 10, [1.0] * 90 + [0.0] * 10, seed=0)
    >>> round(low, 3)
    -0.026
    """
    level = 2 * confidence - 1
    differences, is_binary = _paired(first, second)
    if is_binary:
        return _tango(int((differences > 0).sum()), int((differences < 0).sum()), len(differences), level)[0]
    return graded_test(differences, np.random.default_rng(seed), level).interval[0]


def both_scored(one: Sequence[float | None], two: Sequence[float | None]) -> list[tuple[float, float]]:
    """Return the rows that both have a score on; either may have seen fewer rows."""
    return [(a, b) for a, b in zip(one, two, strict=False) if a is not None and b is not None]


def scored_difference(
    winner: Sequence[float | None], baseline: Sequence[float | None], seed: int
) -> PairedResult | None:
    """Apply `paired_difference` to the rows with both scores; None without any.

    >>> scored_difference([1.0, None], [None, 1.0], seed=0) is None
    True
    """
    if len(winner) != len(baseline):
        raise ValueError(f"winner has {len(winner)} scores and baseline {len(baseline)}: pair them row by row")
    both = both_scored(winner, baseline)
    return paired_difference([a for a, _ in both], [b for _, b in both], seed) if both else None


def groups_differ(groups: Sequence[Sequence[float]], seed: int) -> float:
    """Return the p-value of "all groups have the same mean". 5,000 permutations of the squares between them.

    Source: Phipson & Smyth 2010, for the +1 correction.
    """
    scores = checked([value for group in groups for value in group], "groups")
    sizes = np.array([len(group) for group in groups])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rng = np.random.default_rng(seed)

    def spread(rows: Vector) -> Vector:
        squares: Vector = (np.add.reduceat(rows, starts, axis=1) ** 2 / sizes).sum(axis=1)
        return squares

    observed = float(spread(scores[None, :])[0]) - 1e-9
    sizes_drawn = chunks(PERMUTATIONS, len(scores))
    permuted = (rng.permuted(np.tile(scores, (size, 1)), axis=1) for size in sizes_drawn)
    extreme = sum(int(np.sum(spread(rows) >= observed)) for rows in permuted)
    return (extreme + 1) / (PERMUTATIONS + 1)


def checked(values: Sequence[float], name: str) -> Vector:
    """Return the scores as an array. Raises ValueError unless there is at least one and all are in [0, 1]."""
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"{name} must hold at least one score")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError(f"{name} must be in [0, 1]")
    return scores


# ---- the methods


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[Vector, bool]:
    """Return the differences row by row, and whether all scores are 0 or 1."""
    one, two = checked(first, "winner"), checked(second, "baseline")
    if len(one) != len(two):
        raise ValueError(f"winner has {len(one)} scores and baseline {len(two)}: pair them row by row")
    return one - two, _is_binary(one) and _is_binary(two)


def _is_binary(scores: Vector) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _wilson(rate: float, n: float, confidence: float) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def _with_few(rate: float, n: int, confidence: float) -> Interval:
    from scipy import special

    low, high = _wilson(rate, n, confidence)
    hits, few = round(rate * n), min(FEW, n // 10)
    if 1 <= hits <= few:
        low = min(low, float(special.gammaincinv(hits, 1 - confidence)) / n)
    if 1 <= n - hits <= few:
        high = max(high, 1 - float(special.gammaincinv(n - hits, 1 - confidence)) / n)
    return low, high


def _tango(wins: int, losses: int, n: int, confidence: float = 0.95) -> Interval:
    """Invert the score test by bisection: its statistic falls with the true difference."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def score(difference: float) -> float:
        b = (2 * n - wins + losses) * difference - wins - losses
        c = losses * difference * (1 - difference)
        loss_rate = (math.sqrt(max(0.0, b * b + 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * loss_rate + difference * (1 - difference))
        gap = wins - losses - n * difference
        return gap / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, gap) if gap else 0.0

    def crossing(level: float, low: float, high: float) -> float:
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > level else (low, middle)
        return (low + high) / 2

    diff = (wins - losses) / n
    return crossing(z, -1.0, diff), crossing(-z, diff, 1.0)


def loss_bound(
    scores: Sequence[float | None], reference: Sequence[float | None], margin: float, seed: int
) -> NotWorse | None:
    """Bound the loss of a prompt against a reference on the same rows. None without a reference.

    A row without a score (None) counts as 0: a lost answer is a loss.

    Source: Tango 1998, Statistics in Medicine 17:891; Piaggio et al. 2012 (CONSORT for non-inferiority), JAMA 308:2594.

    >>> loss_bound([1.0] * 80, [1.0] * 80, 0.05, seed=0).shown
    True
    >>> loss_bound([1.0] * 20, [1.0] * 20, 0.05, seed=0).shown
    False
    """
    pairs = [(own or 0.0, other) for own, other in zip(scores, reference, strict=True) if other is not None]
    if not pairs:
        return None
    first, second = [own for own, _ in pairs], [other for _, other in pairs]
    diff = sum(own - other for own, other in pairs) / len(pairs)
    low = lowest_difference(first, second, seed, CONFIDENCE)
    return NotWorse(diff=diff, low=low, margin=margin, n=len(pairs), shown=low > -margin)
