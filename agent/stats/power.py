"""What test rows can show: which differences are significant, which gains, losses and rows. Pure, without numpy."""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist

from agent.results.base import Interval

SIGNIFICANT = 0.05
"""Differences with a two-sided p-value below this are significant."""
CONFIDENCE = 0.95  # one-sided
MARGIN = 0.05
"""The default margin. On the 80 to 130 rows of a usual run, 3 points cannot be shown (`smallest_margin`)."""
DIFFER = 0.1
"""The assumed share of rows that two equally good prompts score differently."""
ASSUMED_RATES = (0.3, 0.5, 0.7, 0.9)
MOST_ROWS = 10_000_000


def shown(ci95: Interval, p_value: float) -> int:
    """Return 1 for a significant gain, -1 for a loss, else 0.

    The interval must agree: older ledgers hold intervals of another test, and a p-value may be corrected.
    """
    low, high = ci95
    if not p_value < SIGNIFICANT:
        return 0
    return int(low > 0) - int(high < 0)


def minimum_detectable_gain(n: int, baseline_rate: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true gain that `n` paired 0/1 rows show with this power.

    A two-sided McNemar test; inf if no gain is detectable. Cautious: assumes that the two prompts fail on rows
    independently, while real prompts share their hard rows and can show a smaller gain.

    Source: Connor 1987, Biometrics 43:207.

    >>> round(minimum_detectable_gain(200, baseline_rate=0.7), 3)
    0.12
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


def detectable_gains(rows: int) -> dict[float, float]:
    """Return the smallest gain that test rows can show, by assumed baseline score. inf: none."""
    return {rate: minimum_detectable_gain(rows, rate) for rate in ASSUMED_RATES}


def rows_for(gain: float, rate: float) -> int | None:
    """Return the fewest test rows that show this gain over this baseline score. None beyond ten million."""
    rows = 1 + bisect_left(range(1, MOST_ROWS + 1), True, key=lambda rows: minimum_detectable_gain(rows, rate) <= gain)
    return rows if rows <= MOST_ROWS else None


def rows_at_most(gain: float) -> int:
    """Return the test rows that show this gain, in (0, 1], whatever the baseline scores.

    >>> rows_at_most(0.1), rows_at_most(0.2)
    (395, 100)
    """
    return rows_for(gain, max(0.0, (1 - gain) / 2)) or MOST_ROWS


def smallest_margin(rows: int, differ: float = DIFFER) -> float:
    """Estimate the smallest margin that rows show for equal prompts. These score `differ` of the rows otherwise.

    >>> round(smallest_margin(120), 3)
    0.047
    """
    return min(1.0, NormalDist().inv_cdf(CONFIDENCE) * math.sqrt(differ / rows))
