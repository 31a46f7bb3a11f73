"""Drift: tests of one window of answers against a reference, by rates, categories, sizes and scores. Pure.

An alarm needs both significance and size: with many rows any difference is significant, with few any size occurs.
`limit` is the smallest effect that matters; `was` is the reference, `now` the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEW = 5
"""Expected counts below it make the chi-square too rough (Cochran 1954, Biometrics 10:417)."""
DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One test of a statistic of the reference (`was`) against one of the window (`now`).

    `effect`: the size of the change. `p_value`: None where there is nothing to test, for the reason `why`.
    """

    name: str
    was: Any
    now: Any
    effect: float | None
    limit: float
    p_value: float | None
    test: str = ""
    why: str = ""


def more_often(name: str, was: tuple[int, int], now: tuple[int, int], limit: float) -> DriftTest:
    """Whether an event is more frequent now, by (events, trials): Fisher's exact test, one-sided.

    The effect is the rise of the rate.

    >>> test = more_often("errors", was=(1, 100), now=(12, 100), limit=0.05)
    >>> round(test.effect, 2), round(test.p_value, 3)
    (0.11, 0.001)
    """
    if not was[1] or not now[1]:
        return DriftTest(name, _share(was), _share(now), None, limit, None, why="no rows to compare")
    from scipy import stats

    table = np.array([[now[0], now[1] - now[0]], [was[0], was[1] - was[0]]])
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    effect = now[0] / now[1] - was[0] / was[1]
    return DriftTest(name, _share(was), _share(now), effect, limit, p_value, "Fisher's exact test")


def categories_moved(name: str, was: Mapping[str, int], now: Mapping[str, int], limit: float, seed: int) -> DriftTest:
    """Whether the distribution over categories changed: chi-square test of homogeneity, with counts by category.

    The effect is the total variation distance, in [0, 1]. Where an expected count is below 5, the statistic is compared
    with 20,000 tables of the same margins instead, with the +1 correction.

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
    """Whether sizes are distributed otherwise: two-sample Kolmogorov-Smirnov test, conservative with ties.

    The effect is its D in [0, 1], the largest distance between the two distribution functions.
    """
    before, after = (float(np.median(side)) if len(side) else None for side in (was, now))
    if not len(was) or not len(now):
        return DriftTest(name, before, after, None, limit, None, why="no answers to compare")
    from scipy import stats

    result = stats.ks_2samp(now, was)
    return DriftTest(
        name, before, after, float(result.statistic), limit, float(result.pvalue), "Kolmogorov-Smirnov test"
    )


def scores_fell(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> DriftTest:
    """Whether scores in [0, 1] are lower now: Mann-Whitney test, one-sided; the effect is the fall of the mean."""
    before, after = (sum(side) / len(side) if len(side) else None for side in (was, now))
    if before is None or after is None:
        return DriftTest(name, before, after, None, limit, None, why="no scores to compare")
    from scipy import stats

    p_value = 1.0
    if len({*was, *now}) > 1:
        p_value = float(stats.mannwhitneyu(now, was, alternative="less").pvalue)
    return DriftTest(name, before, after, before - after, limit, p_value, "Mann-Whitney test")


def alarms(tests: Sequence[DriftTest], alpha: float) -> list[DriftTest]:
    """The tests that are significant at `alpha`, after correction for all with a p-value, and at least `limit` in size.

    Source: Holm 1979, Scand. J. Statist. 6:65: without any change, an alarm comes in at most `alpha` of all cases.
    """
    tested = sorted((each for each in tests if each.p_value is not None), key=lambda each: each.p_value or 0.0)
    significant = []
    for place, each in enumerate(tested):
        if each.p_value is None or each.p_value > alpha / (len(tested) - place):
            break
        significant.append(each)
    return [each for each in tests if each in significant and each.effect is not None and each.effect >= each.limit]


def _share(part: tuple[int, int]) -> float | None:
    return part[0] / part[1] if part[1] else None
