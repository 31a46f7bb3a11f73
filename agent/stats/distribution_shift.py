"""Whether a window of answers is like another one: shares, categories and sizes. Knows counts and numbers, no prompts.

Each test gives a p-value and the size of the change on a scale that people can set a limit on. An alarm needs both:
with many rows any difference is significant, with few any size occurs. `alarms` corrects for the number of tests (Holm
1979, Scand. J. Statist. 6:65), so that windows without a change raise one in at most `alpha` of all cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEW = 5
"""Expected counts below it make the chi-square too rough (Cochran 1954, Biometrics 10:417)."""
DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """One test: `effect` is the size of the change, `limit` the smallest that matters. `p_value` None: cannot be told,
    `why` says the reason."""

    name: str
    was: Any
    now: Any
    effect: float | None
    limit: float
    p_value: float | None
    test: str = ""
    why: str = ""


def more_often(name: str, was: tuple[int, int], now: tuple[int, int], limit: float) -> Found:
    """Whether something happens more often now; pairs are (times, of how many). Fisher's exact test, one-sided."""
    if not was[1] or not now[1]:
        return Found(name, _share(was), _share(now), None, limit, None, why="no rows to compare")
    import numpy as np
    from scipy import stats

    table = np.array([[now[0], now[1] - now[0]], [was[0], was[1] - was[0]]])
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    effect = now[0] / now[1] - was[0] / was[1]
    return Found(name, _share(was), _share(now), effect, limit, p_value, "Fisher's exact test")


def categories_moved(name: str, was: Mapping[str, int], now: Mapping[str, int], limit: float, seed: int) -> Found:
    """Whether the mix of categories changed. The effect is the part of all answers that moved (total variation).

    Chi-square test of homogeneity; where an expected count is below 5 its statistic is compared with 20,000 tables of
    the same margins instead (Patefield 1981), with the +1 correction.
    """
    import numpy as np
    from scipy import stats

    names = sorted(label for label in {*was, *now} if was.get(label, 0) + now.get(label, 0))
    table = np.array([[side.get(label, 0) for label in names] for side in (was, now)], dtype=np.int64)
    sums = table.sum(axis=1)
    if not sums.all():
        return Found(name, dict(was), dict(now), None, limit, None, why="no answers to compare")
    shares = table / sums[:, None]
    before, after = ({label: float(share) for label, share in zip(names, side, strict=True)} for side in shares)
    effect = float(abs(shares[0] - shares[1]).sum() / 2)
    if len(names) < 2:
        return Found(name, before, after, effect, limit, 1.0, "only one answer")
    expected = np.outer(sums, table.sum(axis=0)) / table.sum()
    seen = float(((table - expected) ** 2 / expected).sum())
    if expected.min() >= FEW:
        p_value = float(stats.chi2.sf(seen, len(names) - 1))
        return Found(name, before, after, effect, limit, p_value, "chi-square test")
    rng = np.random.default_rng(seed)
    # one side decides the other, so what of all answers falls into a sample of the smaller side is drawn
    small = int(np.argmin(sums))
    drawn = rng.multivariate_hypergeometric(table.sum(axis=0), int(sums[small]), size=DRAWS, method="marginals")
    other = table.sum(axis=0) - drawn
    by_chance = sum(
        ((side - expected[at]) ** 2 / expected[at]).sum(axis=1) for side, at in ((drawn, small), (other, 1 - small))
    )
    p_value = (int(np.sum(by_chance >= seen - 1e-9)) + 1) / (DRAWS + 1)
    return Found(name, before, after, effect, limit, p_value, "permutation test of the chi-square")


def sizes_moved(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> Found:
    """Whether sizes are distributed otherwise: two-sample Kolmogorov-Smirnov test. The effect is its D, the largest
    distance between the two distribution functions. With ties it errs on the side of no alarm."""
    import numpy as np

    before, after = (float(np.median(side)) if len(side) else None for side in (was, now))
    if not len(was) or not len(now):
        return Found(name, before, after, None, limit, None, why="no answers to compare")
    from scipy import stats

    found = stats.ks_2samp(now, was)
    return Found(name, before, after, float(found.statistic), limit, float(found.pvalue), "Kolmogorov-Smirnov test")


def scores_fell(name: str, was: Sequence[float], now: Sequence[float], limit: float) -> Found:
    """Whether scores are lower now: Mann-Whitney test, one-sided. The effect is how far the mean fell."""
    before, after = (sum(side) / len(side) if len(side) else None for side in (was, now))
    if before is None or after is None:
        return Found(name, before, after, None, limit, None, why="no scores to compare")
    from scipy import stats

    p_value = 1.0
    if len({*was, *now}) > 1:
        p_value = float(stats.mannwhitneyu(now, was, alternative="less").pvalue)
    return Found(name, before, after, before - after, limit, p_value, "Mann-Whitney test")


def alarms(found: Sequence[Found], alpha: float) -> list[Found]:
    """Those that are significant after Holm's correction over all that could be told, and large enough to matter."""
    tested = sorted((each for each in found if each.p_value is not None), key=lambda each: each.p_value or 0.0)
    significant = []
    for place, each in enumerate(tested):
        if each.p_value is None or each.p_value > alpha / (len(tested) - place):
            break
        significant.append(each)
    return [each for each in found if each in significant and each.effect is not None and each.effect >= each.limit]


def _share(part: tuple[int, int]) -> float | None:
    return part[0] / part[1] if part[1] else None
