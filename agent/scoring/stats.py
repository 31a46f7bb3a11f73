"""How sure a number is: intervals, paired tests, a race that stays valid at every look, and the winner's curse.

Knows vectors of scores in [0, 1] and nothing of prompts, rows or models. Every random draw comes from a seed that is
passed in. Empty, ragged, non-finite or out-of-range input raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Vector = NDArray[Any]

Alternative = Literal["less", "greater"]
Interval = tuple[float, float]

EXACT_FLIPS = 16
FLIPS = 20_000
DRAWS = 10_000
SPLITS = 200
BETS = tuple((2 * step + 1) / 20 for step in range(10))  # 0.05, 0.15, ..., 0.95 of what may be staked


@dataclass(frozen=True, slots=True)
class PairedResult:
    """Winner minus baseline over the same `n` rows, in [-1, 1], with its 95 % interval and a two-sided p-value."""

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    n: int


def mean_ci(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of scores in [0, 1] with its interval, clipped to [0, 1]; one value alone gives (m, 0, 1).

    0/1 scores: Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001). Graded scores: Student's t; when all
    are equal t has no width, and Wilson's interval stands in, as a 0/1 variable has the largest variance for its mean.
    """
    scores = _scores(values, "values")
    mean, n = float(scores.mean()), len(scores)
    if n == 1:
        return mean, 0.0, 1.0
    if _is_binary(scores) or float(scores.std()) < 1e-12:
        return mean, *_wilson(mean, n, confidence)
    from scipy import stats

    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(scores.std(ddof=1)) / math.sqrt(n)
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def paired_difference(winner: Sequence[float], baseline: Sequence[float], seed: int) -> PairedResult:
    """Compare two prompts on the same rows; swapping them flips the difference and its interval.

    0/1 scores: exact McNemar test (two-sided binomial over the rows that differ) and Newcombe's square-and-add interval
    with the continuity-corrected phi (method 10 in Newcombe 1998, Statistics in Medicine 17:2635), which keeps its
    coverage near 0 and 1. Graded scores: sign-flip permutation test, exact up to 16 rows that differ, else 20,000 draws
    with the +1 correction (Phipson & Smyth 2010), and a BCa bootstrap interval of 10,000 draws (Efron 1987); when every
    difference is the same, an exact binomial bound on how often an unseen kind of row could occur.
    """
    first, second = _scores(winner, "winner"), _scores(baseline, "baseline")
    if len(first) != len(second):
        raise ValueError(f"winner has {len(first)} scores and baseline {len(second)}: pair them row by row")
    differences = first - second
    wins, losses = int((differences > 1e-12).sum()), int((differences < -1e-12).sum())
    n, diff = len(first), float(differences.mean())
    if _is_binary(first) and _is_binary(second):
        both = int(((first == 1) & (second == 1)).sum())
        ci95, p_value = _newcombe(both, wins, losses, n - both - wins - losses), _mcnemar(wins, losses)
    else:
        import numpy as np

        rng = np.random.default_rng(seed)
        p_value = _sign_flip(differences[abs(differences) > 1e-12], rng)
        ci95 = _bca(differences, rng)
    return PairedResult(diff, ci95, p_value, wins, losses, n - wins - losses, n)


def minimum_detectable_gain(n: int, baseline_rate: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true gain that `n` paired 0/1 rows show with this power (two-sided McNemar); inf when none does.

    Connor (1987, Biometrics 43:207). Assumes that the two prompts fail on rows independently of each other, so that
    p0 (1 - p1) + p1 (1 - p0) of the rows differ. Real prompts share their hard rows, differ on fewer, and can show a
    somewhat smaller gain: this is a cautious figure. Below log2(2 / alpha) rows even the exact test cannot reject.
    """
    if n < 1 or not 0 <= baseline_rate <= 1 or not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(f"n={n}, baseline_rate={baseline_rate}, alpha={alpha}, power={power}: out of range")
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)

    def shows(gain: float) -> bool:
        rate = baseline_rate + gain
        differ = baseline_rate * (1 - rate) + rate * (1 - baseline_rate)
        needed = z_alpha * math.sqrt(differ) + z_power * math.sqrt(max(0.0, differ - gain * gain))
        return gain * math.sqrt(n) >= needed

    low, high = 0.0, 1 - baseline_rate
    if high <= 0 or 2 * 0.5**n > alpha or not shows(high):
        return math.inf
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


# ---- racing


def betting_e_value(differences: Sequence[float], alternative: Alternative = "less", bound: float = 1.0) -> float:
    """The largest wealth so far (>= 1) of a bettor against H0 "the mean difference is >= 0" (for "greater": <= 0).

    `differences` are challenger minus leader, each within +-`bound`, in the one common (shuffled) row order. The wealth
    is the average over a fixed grid of bets b of prod(1 - b d_i / bound): non-negative, starting at 1, and under H0 a
    supermartingale, so that by Ville's inequality it ever reaches 1/alpha with probability <= alpha, however often one
    looks (Waudby-Smith & Ramdas 2024, JRSS-B 86:1, "Estimating means of bounded random variables by betting").
    """
    import numpy as np

    steps = np.asarray(differences, dtype=float)
    if steps.ndim != 1 or not bound > 0 or not np.all(np.isfinite(steps)) or np.any(abs(steps) > bound * (1 + 1e-9)):
        raise ValueError(f"differences must be a flat list of numbers within +-{bound}")
    if not len(steps):
        return 1.0
    stakes = np.clip(steps / bound, -1.0, 1.0) * (-1.0 if alternative == "less" else 1.0)
    logs = np.cumsum(np.log1p(np.outer(BETS, stakes)), axis=1)
    top = logs.max(axis=0)
    wealth = top + np.log(np.exp(logs - top).mean(axis=0))
    return float(np.exp(min(700.0, max(0.0, float(wealth.max())))))


@dataclass(frozen=True, slots=True)
class PairedRace:
    """Prunes candidates that are worse than a leader, over `candidates` in all, at overall error rate `alpha`.

    A candidate goes when its wealth against some leader reaches candidates / alpha. The best candidate falls to any of
    the others with probability <= alpha in all, by Bonferroni over its opponents and Ville over the looks; so
    the leader may be chosen from the same scores and may change.
    """

    candidates: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.candidates < 1 or not 0 < self.alpha < 1:
            raise ValueError(f"candidates={self.candidates}, alpha={self.alpha}: want >= 1 and a rate between 0 and 1")

    @property
    def threshold(self) -> float:
        return self.candidates / self.alpha

    def prunes(self, challenger: Sequence[float], leader: Sequence[float]) -> bool:
        """Whether the challenger is out, given both score vectors over the rows that both saw, in the common order."""
        if len(challenger) != len(leader):
            raise ValueError(f"challenger has {len(challenger)} scores and leader {len(leader)}: pair them row by row")
        differences = [mine - theirs for mine, theirs in zip(challenger, leader, strict=True)]
        return betting_e_value(differences) >= self.threshold


def selection_corrected(outcomes: Sequence[Sequence[float]], winner: int, seed: int) -> float:
    """The winner's dev mean, corrected for having been chosen on those very rows.

    `outcomes` holds one score vector per candidate over the same rows. In 200 seeded half-splits the best candidate of
    one half (ties shared) is scored on the other half, both ways round; the mean of these honest scores is returned, at
    most the winner's own mean. Choosing on half the rows chooses a little worse, so the figure errs low. Background:
    Cawley & Talbot 2010 (JMLR 11:2079), Tibshirani & Tibshirani 2009 (Ann. Appl. Stat. 3:822).
    """
    import numpy as np

    rows = [_scores(row, f"outcomes[{index}]") for index, row in enumerate(outcomes)]
    if not rows or len({len(row) for row in rows}) != 1 or not 0 <= winner < len(rows):
        raise ValueError(f"outcomes must be {len(rows)} rows of equal length that hold winner {winner}")
    table = np.stack(rows)
    own, n = float(table[winner].mean()), table.shape[1]
    if len(rows) == 1 or n < 2:
        return own
    rng = np.random.default_rng(seed)
    honest = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        halves = order[: n // 2], order[n // 2 :]
        means = [table[:, half].mean(axis=1) for half in halves]
        for chosen_on, scored_on in (means, means[::-1]):
            honest.append(float(scored_on[chosen_on >= chosen_on.max() - 1e-12].mean()))
    return min(own, math.fsum(honest) / len(honest))


# ---- the methods


def _scores(values: Sequence[float], name: str) -> Vector:
    import numpy as np

    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"{name} must hold at least one score")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError(f"{name} must lie in [0, 1]")
    return scores


def _is_binary(scores: Vector) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _wilson(rate: float, n: int, confidence: float = 0.95) -> Interval:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def _mcnemar(wins: int, losses: int) -> float:
    if wins + losses == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)


def _newcombe(both: int, wins: int, losses: int, neither: int) -> Interval:
    n = both + wins + losses + neither
    rate1, rate2 = (both + wins) / n, (both + losses) / n
    (low1, high1), (low2, high2) = _wilson(rate1, n), _wilson(rate2, n)
    margins = (both + wins) * (losses + neither) * (both + losses) * (wins + neither)
    cross = both * neither - wins * losses
    phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    diff = (wins - losses) / n
    return diff - reach(rate1 - low1, high2 - rate2), diff + reach(high1 - rate1, rate2 - low2)


def _sign_flip(differences: Vector, rng: Generator) -> float:
    import numpy as np

    n = len(differences)
    if n == 0:
        return 1.0
    seen = abs(float(differences.sum())) - 1e-9
    if n <= EXACT_FLIPS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(abs((1 - 2 * bits) @ differences) >= seen))
    extreme = 0
    for size in _chunks(FLIPS, n):
        signs = 1 - 2 * rng.integers(0, 2, size=(size, n), dtype=np.int8)
        extreme += int(np.sum(abs(signs @ differences) >= seen))
    return (extreme + 1) / (FLIPS + 1)


def _bca(differences: Vector, rng: Generator) -> Interval:
    """95 % bias-corrected and accelerated bootstrap interval of the mean of values in [-1, 1]."""
    import numpy as np

    n, mean = len(differences), float(differences.mean())
    if float(np.ptp(differences)) < 1e-12:
        unseen = 1 - 0.025 ** (1 / n)  # Clopper-Pearson's upper limit for a kind of row that n rows did not show
        return mean - unseen * (1 + mean), mean + unseen * (1 - mean)
    parts = [differences[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in _chunks(DRAWS, n)]
    means = np.sort(np.concatenate(parts))
    below = float(np.mean(means < mean - 1e-12) + np.mean(means <= mean + 1e-12)) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / DRAWS), 1 - 1 / DRAWS))
    centred = differences - mean
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))

    def level(z: float) -> float:
        return normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    z = normal.inv_cdf(0.975)
    low, high = np.quantile(means, [level(-z), level(z)])
    return float(low), float(high)


def _chunks(total: int, width: int) -> list[int]:
    """Sizes that add up to `total`, each small enough for about a million numbers at once."""
    size = max(1, min(total, 1_000_000 // width))
    return [size] * (total // size) + ([total % size] if total % size else [])
