"""Drift of a log from its reference, statistic by statistic. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from agent.stats.selection import holm

DRAWS = 20_000
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
    table = np.array([[now[0], now[1] - now[0]], [was[0], was[1] - was[0]]])
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return DriftTest(name, before, after, after - before, limit, p_value, "Fisher's exact test")


def categories_moved(name: str, was: Mapping[str, int], now: Mapping[str, int], limit: float, seed: int) -> DriftTest:
    """Test whether the distribution over categories changed: chi-square test of homogeneity on counts.

    The effect is the total variation distance. Where an expected count is below 5, the statistic is compared with
    20,000 tables of the same margins instead.

    Source: Patefield 1981, Appl. Statist. 30:91, for the tables.
    """
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
    result = stats.ks_2samp(now, was)
    return DriftTest(
        name, before, after, float(result.statistic), limit, float(result.pvalue), "Kolmogorov-Smirnov test"
    )


def scores_fell(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> DriftTest:
    """Test whether scores are lower now: Mann-Whitney, one-sided. The effect is the fall of the mean."""
    before, after = (sum(side) / len(side) if len(side) else None for side in (was, now))
    if before is None or after is None:
        return DriftTest(name, before, after, None, limit, None, why="no scores to compare")
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
