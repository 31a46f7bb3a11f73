"""Changes since a release: answers beyond repeat noise, and drift of a log from its reference. Pure.

Each row has samples of before and of now. If nothing changed, they come from one distribution, so the labels "before"
and "now" are exchangeable within a row; the tests shuffle them there (Good 2005, "Permutation, Parametric and Bootstrap
Tests of Hypotheses", section 6.2). Nothing is assumed of the noise, which may differ from row to row. With the +1
correction (Phipson & Smyth 2010) the false-alarm rate is at most the level. One sample before and one now say nothing
of the noise, so p is 1 whatever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.stats.selection import holm

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


def moved_p_value(rows: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int, draws: int = DRAWS) -> float:
    """Test whether scores in [0, 1] moved, two-sided, by the mean changes of rows.

    Unlike a test on the differences of means it holds its level where rows have more samples now than before, which
    skews these differences. Raises as `flip_p_value` does.
    """
    observed, totals = _summed(rows, _moves, seed, draws)
    fell, rose = int(np.sum(totals <= observed + 1e-9)), int(np.sum(totals >= observed - 1e-9))
    return min(1.0, 2 * (min(fell, rose) + 1) / (draws + 1))


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
        if (count := len(before) + len(now)) > MOST_SAMPLES:
            raise ValueError(f"{count} samples of one row; at most {MOST_SAMPLES} can be compared")
        values = shuffled(before, now)
        if float(np.ptp(values)) < 1e-12:
            continue  # the same however it is shuffled
        observed += float(values[0])
        totals += values[rng.integers(0, len(values), draws)]
    return observed, totals


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


FEW = 5
"""Expected counts below it make the chi-square too rough (Cochran 1954, Biometrics 10:417)."""


@dataclass(frozen=True, slots=True)
class DriftTest:
    """A statistic of the reference (`was`) against that of the window; without `p_value` not tested, for `why`."""

    name: str
    was: Any
    now: Any
    effect: float | None
    limit: float
    p_value: float | None
    test: str = ""
    why: str = ""


def more_often(name: str, was: tuple[int, int], now: tuple[int, int], limit: float) -> DriftTest:
    """Test whether an event is more frequent now, by (events, trials): Fisher's exact test, one-sided.

    The effect is the rise of the rate.

    >>> test = more_often("errors", was=(1, 100), now=(12, 100), limit=0.05)
    >>> round(test.effect, 2), round(test.p_value, 3)
    (0.11, 0.001)
    """
    before, after = (events / trials if trials else None for events, trials in (was, now))
    if before is None or after is None:
        return DriftTest(name, before, after, None, limit, None, why="no rows to compare")
    from scipy import stats

    table = np.array([[now[0], now[1] - now[0]], [was[0], was[1] - was[0]]])
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return DriftTest(name, before, after, after - before, limit, p_value, "Fisher's exact test")


def categories_moved(name: str, was: Mapping[str, int], now: Mapping[str, int], limit: float, seed: int) -> DriftTest:
    """Test whether the distribution over categories changed: chi-square test of homogeneity on counts.

    The effect is the total variation distance. Where an expected count is below 5, the statistic is compared with
    20,000 tables of the same margins instead.

    Source: Patefield 1981, Appl. Statist. 30:91, for the tables.
    """
    from scipy import stats

    names = sorted(label for label in {*was, *now} if was.get(label, 0) + now.get(label, 0))
    table = np.array([[side.get(label, 0) for label in names] for side in (was, now)], dtype=np.int64)
    sums = table.sum(axis=1)
    if not sums.all():
        return DriftTest(name, dict(was), dict(now), None, limit, None, why="no answers to compare")
    shares = table / sums[:, None]
    before, after = ({label: float(share) for label, share in zip(names, side, strict=True)} for side in shares)
    effect = float(abs(shares[0] - shares[1]).sum() / 2)
    if len(names) < 2:
        return DriftTest(name, before, after, effect, limit, 1.0, "only one answer")
    expected = np.outer(sums, table.sum(axis=0)) / table.sum()
    observed = float(((table - expected) ** 2 / expected).sum())
    if expected.min() >= FEW:
        p_value = float(stats.chi2.sf(observed, len(names) - 1))
        return DriftTest(name, before, after, effect, limit, p_value, "chi-square test")
    rng = np.random.default_rng(seed)
    # the margins are fixed, so the smaller side is drawn and determines the other
    small = int(np.argmin(sums))
    drawn = rng.multivariate_hypergeometric(table.sum(axis=0), int(sums[small]), size=DRAWS, method="marginals")
    other = table.sum(axis=0) - drawn
    by_chance = sum(
        ((side - expected[at]) ** 2 / expected[at]).sum(axis=1) for side, at in ((drawn, small), (other, 1 - small))
    )
    p_value = (int(np.sum(by_chance >= observed - 1e-9)) + 1) / (DRAWS + 1)
    return DriftTest(name, before, after, effect, limit, p_value, "permutation test of the chi-square")


def sizes_moved(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> DriftTest:
    """Test whether the distribution of sizes changed: two-sample Kolmogorov-Smirnov; the effect is its D."""
    before, after = (float(np.median(side)) if len(side) else None for side in (was, now))
    if not len(was) or not len(now):
        return DriftTest(name, before, after, None, limit, None, why="no answers to compare")
    from scipy import stats

    result = stats.ks_2samp(now, was)
    return DriftTest(
        name, before, after, float(result.statistic), limit, float(result.pvalue), "Kolmogorov-Smirnov test"
    )


def scores_fell(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> DriftTest:
    """Test whether scores are lower now: Mann-Whitney, one-sided. The effect is the fall of the mean."""
    before, after = (sum(side) / len(side) if len(side) else None for side in (was, now))
    if before is None or after is None:
        return DriftTest(name, before, after, None, limit, None, why="no scores to compare")
    from scipy import stats

    p_value = 1.0
    if len({*was, *now}) > 1:
        p_value = float(stats.mannwhitneyu(now, was, alternative="less").pvalue)
    return DriftTest(name, before, after, before - after, limit, p_value, "Mann-Whitney test")


def alarms(tests: Sequence[DriftTest], alpha: float) -> list[DriftTest]:
    """Return the tests that are significant after Holm's correction and at least `limit` large.

    Without any change, at most `alpha` of all cases raise an alarm.
    """
    tested = [each for each in tests if each.p_value is not None]
    corrected = holm([each.p_value for each in tested if each.p_value is not None])
    return [
        each
        for each, p_value in zip(tested, corrected, strict=True)
        if p_value <= alpha and each.effect is not None and each.effect >= each.limit
    ]
