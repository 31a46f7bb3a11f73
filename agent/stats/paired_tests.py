"""Tests of paired differences and the intervals that invert them. Pure.

An interval holds each difference that its test does not reject, so it excludes 0 exactly when the test is significant
at that level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]
EXACT_FLIPS = 16
FLIPS = 20_000
DRAWS = 10_000
CELL = 1_000_000  # numbers of a drawn matrix, at most
QUANTILES = (np.arange(2000) + 0.5) / 2000
SAME = 1e-10
STEPS = 40  # halvings


@dataclass(frozen=True, slots=True)
class PairedTest:
    """One-sided p-values of "the mean is at most 0" and "at least 0", and the interval that belongs to them."""

    at_most_0: float
    at_least_0: float
    low: float
    high: float

    @property
    def p_value(self) -> float:
        """The two-sided p-value."""
        return min(1.0, 2 * min(self.at_most_0, self.at_least_0))

    @property
    def interval(self) -> tuple[float, float]:
        return max(-1.0, self.low), min(1.0, self.high)


def counts_test(wins: int, losses: int, n: int, confidence: float = 0.95) -> PairedTest:
    """Apply the exact McNemar test to `n` paired 0/1 rows, with the melded interval.

    Source: Fay & Lumbard 2021, Statistics in Medicine 40:1147.

    >>> test = counts_test(4, 0, 10)
    >>> test.p_value, round(test.low, 3), round(test.high, 3)
    (0.125, -0.088, 0.738)
    """
    alpha = _one_side(confidence)
    ends = _melded(wins, losses, n, alpha), -_melded(losses, wins, n, alpha)
    return PairedTest(_as_many(wins, losses), _as_many(losses, wins), *ends)


def graded_test(differences: Vector, rng: np.random.Generator, confidence: float = 0.95) -> PairedTest:
    """Reject where sign flips, Student's t and the BCa bootstrap all reject.

    Each alone is too short somewhere. The interval is the union of theirs. Instead of the last two, equal differences
    have an exact binomial bound on the rate of an unseen kind of row.

    Source: Phipson & Smyth 2010; Efron 1987 (BCa).
    """
    alpha = _one_side(confidence)
    is_constant = float(np.ptp(differences)) < 1e-12
    tests = [_sign_flips(differences, rng, alpha)]
    tests += [unseen_test(differences, alpha)] if is_constant else [_student(differences, alpha)]
    if not is_constant:
        tests.append(_bca(differences, rng, alpha))
    return PairedTest(
        max(test.at_most_0 for test in tests),
        max(test.at_least_0 for test in tests),
        min(test.low for test in tests),
        max(test.high for test in tests),
    )


def threshold_test(lows: Vector, highs: Vector, confidence: float = 0.95) -> PairedTest:
    """Make a test from drawn thresholds.

    For the `lows` below it a difference is as extreme as the data. `lows` and `highs` hold one number a draw, that of
    the data included.
    """
    alpha = _one_side(confidence)
    size = len(lows)
    lows, highs = np.sort(lows), np.sort(highs)
    rank = int(np.argmax(np.arange(1, size + 1) / size >= alpha))
    at_most_0 = float(np.searchsorted(lows, SAME, "right")) / size
    at_least_0 = float(size - np.searchsorted(highs, -SAME, "left")) / size
    return PairedTest(at_most_0, at_least_0, _snapped(lows[rank]), _snapped(highs[size - 1 - rank]))


def chunks(total: int, width: int) -> list[int]:
    """Split draws so that a chunk of rows of this width stays small."""
    size = max(1, min(total, CELL // width))
    return [size] * (total // size) + ([total % size] if total % size else [])


# ---- 0/1 scores


def _as_many(one: int, other: int) -> float:
    from scipy import stats

    return float(stats.binom.sf(one - 1, one + other, 0.5))


def _melded(wins: int, losses: int, n: int, alpha: float) -> float:
    """Return a quantile of the share that differs times the lead of the wins."""
    from scipy import special

    differ = wins + losses
    shares = special.betaincinv(wins, losses + 1, QUANTILES) if wins else np.zeros(len(QUANTILES))
    tilts = 2 * shares - 1
    ups, downs = tilts[tilts > 0], tilts[tilts <= 0]

    def below(difference: float) -> float:
        if difference >= 0:
            few = special.betainc(differ, n - differ + 1, np.minimum(1.0, difference / ups)) if differ else 1.0
            return (len(downs) + float(np.sum(few * np.ones(len(ups))))) / len(tilts)
        ratios = np.minimum(1.0, difference / np.minimum(downs, -1e-300))
        many = special.betaincc(differ + 1, n - differ, ratios) if differ < n else ratios < 1
        return float(np.sum(many)) / len(tilts)

    is_shown = _as_many(wins, losses) < alpha
    end = _last(lambda difference: below(difference) < alpha, 0.0 if is_shown else -1.0, 1.0 if is_shown else 0.0)
    end = min(end, (wins - losses) / n)
    return max(end, math.ulp(0.0)) if is_shown else _snapped(end)


# ---- graded scores


def _sign_flips(differences: Vector, rng: np.random.Generator, alpha: float) -> PairedTest:
    """Invert the sign-flip test, whose thresholds are means of random halves of the rows.

    Up to 16 differences that are not 0 are flipped in every way, more of them 20,000 times, with the +1 correction.

    Source: Hartigan 1969, JASA 64:1303.
    """
    moved = abs(differences) > 1e-12
    rows = np.concatenate([differences[moved], differences[~moved]])
    n, free = len(rows), int(moved.sum())
    is_exact = free <= EXACT_FLIPS
    draws = max(2**free, FLIPS // 2**free * 2**free) if is_exact else FLIPS
    sums, sizes = [], []
    first = 0
    for size in chunks(draws, n):
        chosen = rng.integers(0, 2, size=(size, n), dtype=np.int8)
        if is_exact:
            chosen[:, :free] = (np.arange(first, first + size)[:, None] >> np.arange(free)) & 1
        sums.append(chosen @ rows)
        sizes.append(chosen.sum(axis=1, dtype=int))
        first += size
    total, taken = np.concatenate(sums), np.concatenate(sizes)
    if not is_exact:
        total = np.concatenate([total, rows.sum() - total, [0.0, rows.sum()]])
        taken = np.concatenate([taken, n - taken, [0, n]])
    means = total / np.maximum(taken, 1)
    is_empty = taken == 0
    lows, highs = np.where(is_empty, -np.inf, means), np.where(is_empty, np.inf, means)
    return threshold_test(lows, highs, 1 - 2 * alpha)


def unseen_test(differences: Vector, alpha: float = 0.025) -> PairedTest:
    """Bound what equal differences leave open: the rate of an unseen kind of row."""
    n, mean = len(differences), float(differences.mean())
    unseen = 1 - alpha ** (1 / n)  # Clopper-Pearson's upper limit for what n rows did not show
    ends = mean - unseen * (1 + mean), mean + unseen * (1 - mean)
    return PairedTest((1 + max(0.0, mean)) ** -n, (1 + max(0.0, -mean)) ** -n, *ends)


def _student(differences: Vector, alpha: float) -> PairedTest:
    from scipy import stats

    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = float(stats.t.isf(alpha, n - 1)) * error
    at_most_0 = float(stats.t.sf(mean / error, n - 1))
    return PairedTest(at_most_0, float(stats.t.cdf(mean / error, n - 1)), mean - half, mean + half)


def _bca(differences: Vector, rng: np.random.Generator, alpha: float) -> PairedTest:
    n, mean = len(differences), float(differences.mean())
    parts = [differences[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in chunks(DRAWS, n)]
    means = np.sort(np.concatenate(parts))
    below = float(np.mean(means < mean - 1e-12) + np.mean(means <= mean + 1e-12)) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / DRAWS), 1 - 1 / DRAWS))
    centred = differences - mean
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))

    def end(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        skew = 1 - acceleration * z
        level = normal.cdf(bias + z / skew) if skew > 0 else float(z > 0)
        return _snapped(float(np.quantile(means, level)))

    at_most_0 = _last(lambda tail: end(tail) <= 0, 0.0, 0.5)
    at_least_0 = _last(lambda tail: end(1 - tail) >= 0, 0.0, 0.5)
    low, high = end(alpha), end(1 - alpha)
    return PairedTest(at_most_0, at_least_0, low, high)


# ---- helpers


def _one_side(confidence: float) -> float:
    return round((1 - confidence) / 2, 12)


def _snapped(value: float) -> float:
    return 0.0 if abs(value) <= SAME else float(value)


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the last number from `low` to `high` of which a falling condition holds."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2
