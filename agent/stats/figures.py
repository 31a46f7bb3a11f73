"""Scores, differences and their evidence as text, the same in every message, table and chart.

Scores are given in [0, 1], differences in [-1, 1], and both are written as points: 0 to 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.results.run_parts import PairedResult


def points(value: float | None) -> str:
    """Return a score in points with one decimal; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(low: float | None, high: float | None) -> str:
    """Return the ends of a score's interval in points."""
    return "-" if low is None or high is None else f"{points(low)} to {points(high)}"


def bracketed(ci95: Sequence[float] | None) -> str:
    """Return the 95 % interval to append to a score: " (61.0 to 72.5)". "" for None."""
    return f" ({points(ci95[0])} to {points(ci95[1])})" if ci95 else ""


def gain(value: float | None, ci95: Sequence[float] | None = None) -> str:
    """Return a signed difference in points with its 95 % interval in brackets. "-" for None."""
    if value is None:
        return "-"
    return f"{100 * value:+.1f}" + (f" ({gain_interval(ci95)})" if ci95 else "")


def gain_interval(ci95: Sequence[float]) -> str:
    """Return the ends of a difference's interval as signed points."""
    return f"{gain(ci95[0])} to {gain(ci95[1])}"


def evidence(ci95: Sequence[float], p_value: float) -> str:
    """Return the 95 % interval and the p-value of a paired difference."""
    return f"95 % CI {gain_interval(ci95)}, {chance(p_value)}"


def chance(p_value: float) -> str:
    """Return a p-value without powers of ten."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def tally(wins: int, losses: int, ties: int) -> str:
    """Return the counts of pairs won, lost and tied."""
    return f"{wins} won, {losses} lost, {ties} tied"


def paired_test(test: PairedResult, rows: str = "") -> str:
    """Return a paired test in one line. `rows` describes its rows, as " on 9 rows"."""
    counts = tally(test.wins, test.losses, test.ties)
    return f"{gain(test.diff)} points{rows} ({evidence(test.ci95, test.p_value)}); {counts}"


def detectable_line(gains: Mapping[float, float]) -> str:
    """Describe the smallest gain that the sealed test can show, by baseline score. Gains are in 0 to 1; inf: none."""
    words = [
        f"{f'{100 * gain:.0f} points' if math.isfinite(gain) else 'none'} if your prompt scores {100 * rate:.0f}"
        for rate, gain in gains.items()
    ]
    return f"the smallest gain that the sealed test can show (80 % power): {', '.join(words)}"
