"""Changes since a release: answers and scores beyond repeat noise. Pure.

Each row has samples of before and of now. If nothing changed, they come from one distribution, so the labels "before"
and "now" are exchangeable within a row; the tests shuffle them there (Good 2005, "Permutation, Parametric and Bootstrap
Tests of Hypotheses", section 6.2). Nothing is assumed of the noise, which may differ from row to row. With the +1
correction (Phipson & Smyth 2010) the false-alarm rate is at most the level. One sample before and one now say nothing
of the noise, so p is 1 whatever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.stats.paired_tests import PairedTest, threshold_test, unseen_test

Vector = NDArray[Any]
DRAWS = 20_000
MOST_SAMPLES = 12
"""Of one row: 924 ways to choose six of them are enumerated."""

T = TypeVar("T")


def flip_p_value(
    rows: Sequence[tuple[Sequence[T], Sequence[T]]], distance: Callable[[T, T], float], seed: int, draws: int = DRAWS
) -> float:
    """Test "each row's answers have the same distribution before and now". 1 if nothing can be tested.

    `rows`: for each row its samples of before and of now. The statistic is the energy distance; `distance`: of two
    samples, in [0, 1]. Raises ValueError for more than 12 samples of a row.

    Source: Szekely & Rizzo 2013, J. Stat. Plan. Inference 143:1249, for the energy distance.

    >>> rows = [(["yes"] * 3, ["no"] * 3)] * 4
    >>> flip_p_value(rows, lambda one, two: float(one != two), seed=0) < 0.001
    True
    """
    observed, totals = _summed(rows, lambda before, now: _distances(before, now, distance), seed, draws)
    extreme = int(np.sum(totals >= observed - 1e-9))
    return (extreme + 1) / (draws + 1)


def moved_test(rows: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int, draws: int = DRAWS) -> PairedTest:
    """Test whether scores in [0, 1] moved, by the mean changes of rows.

    Unlike a test on the differences of means it holds its level where rows have more samples now than before, which
    skews these differences. Raises as `flip_p_value` does.
    """
    rng = np.random.default_rng(seed)
    observed, count = 0.0, 0
    totals, slopes = np.zeros(draws), np.zeros(draws)
    for before, now in rows:
        if not before or not now:
            continue
        _check_samples(before, now)
        changes = _moves(before, now)
        chosen = rng.integers(0, len(changes), draws)
        observed, count = observed + float(changes[0]), count + 1
        totals += changes[chosen]
        slopes += _moves([0.0] * len(before), [-1.0] * len(now))[chosen]  # by how much a change of 1 less moves it
    if count and not np.any(totals):
        return unseen_test(np.zeros(count))
    # a change of d is refuted where the shuffled total + slope * d reaches observed - count * d
    reach = count + slopes
    is_unmoved = reach < 1e-9
    thresholds = (observed - totals) / np.where(is_unmoved, 1.0, reach)
    lows = np.append(np.where(is_unmoved, -np.inf, thresholds), -np.inf)
    highs = np.append(np.where(is_unmoved, np.inf, thresholds), np.inf)
    return threshold_test(lows, highs)


def _summed(
    rows: Sequence[tuple[Sequence[T], Sequence[T]]],
    shuffled: Callable[[Sequence[T], Sequence[T]], Vector],
    seed: int,
    draws: int,
) -> tuple[float, Vector]:
    """`shuffled`: a row's statistic for each choice of its samples of before. The true one is first."""
    rng = np.random.default_rng(seed)
    observed, totals = 0.0, np.zeros(draws)
    for before, now in rows:
        if not before or not now:
            continue
        _check_samples(before, now)
        values = shuffled(before, now)
        if float(np.ptp(values)) < 1e-12:
            continue  # the same however it is shuffled
        observed += float(values[0])
        totals += values[rng.integers(0, len(values), draws)]
    return observed, totals


def _check_samples(before: Sequence[Any], now: Sequence[Any]) -> None:
    if (count := len(before) + len(now)) > MOST_SAMPLES:
        raise ValueError(f"{count} samples of one row; at most {MOST_SAMPLES} can be compared")


def _moves(before: Sequence[float], now: Sequence[float]) -> Vector:
    samples, first = [*before, *now], len(before)
    total, rest = sum(samples), len(samples) - first
    old = np.array([sum(chosen) for chosen in combinations(samples, first)])
    return (total - old) / rest - old / first


def _distances(before: Sequence[T], now: Sequence[T], distance: Callable[[T, T], float]) -> Vector:
    samples, first = [*before, *now], len(before)
    count = len(samples)
    table = np.array([[distance(a, b) for b in samples] for a in samples], dtype=float)
    means = []
    for chosen in combinations(range(count), first):
        rest = [at for at in range(count) if at not in chosen]
        means.append(float(table[np.ix_(chosen, rest)].mean()))
    return np.array(means)
