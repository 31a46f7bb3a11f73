"""Anytime-valid comparison of the two arms of an A/B test: look after every outcome.

Each outcome is paired with the latest unpaired outcome of the other arm (blocks of one from each, as in Turner, Ly &
Grünwald 2024, "Generic E-variables for exact sequential k-sample tests"); the pairing depends on the arms alone, never
on an outcome. On the differences of the pairs two bettors stake parts of their wealth on the mean being higher, or
lower, than a value (Waudby-Smith & Ramdas 2024, JRSS-B 86:1, "Estimating means of bounded random variables by
betting"). If the mean is that value, their bets are fair, and by Ville's inequality the wealth ever reaches 2 / alpha
with probability at most alpha / 2. The values that neither bettor refutes are the confidence sequence.

Assumed: units are independent, and both arms' means stay the same or move together, slowly relative to the few units
between the two of a pair. The surplus of the larger arm is not used: only its latest outcomes wait for a partner, so
that after a change of the traffic shares few pairs mix two periods.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]

STAKES = (0.9, 0.6, 0.35, 0.2, 0.1, 0.05, 0.025, 0.0125)
"""Stakes among which each bettor splits its wealth: large ones show large differences early."""
WAITING = 10
"""Unpaired outcomes kept per arm. With 1, a third of the units of equal arms stays unpaired; with 10, 5 %."""
STEPS = 40
"""Bisections for the ends of the confidence sequence."""


@dataclass(frozen=True, slots=True)
class AnytimeComparison:
    """Two arms so far: mean difference (arm 1 - arm 0) over the pairs, and its confidence sequence `ci`.

    `e_value`: current evidence against "no difference"; `p_value`: 1 / the largest so far, valid at any time.
    """

    pairs: int
    diff: float | None
    ci: tuple[float, float]
    e_value: float
    p_value: float


def paired(outcomes: Sequence[tuple[int, float]]) -> list[float]:
    """Return the difference arm 1 - arm 0 of each pair. Later outcomes change no earlier pair.

    `outcomes`: (arm 0 or 1, outcome in [0, 1]) in the order of arrival.

    >>> paired([(0, 0.5), (1, 1.0), (1, 0.25), (0, 0.0)])
    [0.5, 0.25]
    """
    waiting: tuple[deque[float], deque[float]] = (deque(maxlen=WAITING), deque(maxlen=WAITING))
    differences = []
    for arm, outcome in outcomes:
        if others := waiting[1 - arm]:
            partner = others.pop()
            differences.append(outcome - partner if arm else partner - outcome)
        else:
            waiting[arm].append(outcome)
    return differences


def compared(differences: Sequence[float], alpha: float = 0.05) -> AnytimeComparison:
    """Compare the arms by these differences, in order of arrival. Raises ValueError for values outside [-1, 1].

    >>> result = compared([1.0] * 12)
    >>> result.diff, result.p_value < 0.05 and result.ci[0] > 0
    (1.0, True)
    """
    steps = np.asarray(differences, dtype=float)
    if steps.ndim != 1 or not np.all(abs(steps) <= 1 + 1e-9):
        raise ValueError("differences must be a flat list of numbers in [-1, 1]")
    if not len(steps):
        return AnytimeComparison(0, None, (-1.0, 1.0), 1.0, 1.0)
    steps = np.clip(steps, -1.0, 1.0)
    limit = math.log(2 / alpha)
    low = -_beyond(-steps, limit)
    high = _beyond(steps, limit)
    wealth = np.exp(np.minimum(700.0, log_wealth(steps))) / 2  # half of the stake is with each bettor
    return AnytimeComparison(
        len(steps), float(steps.mean()), (low, high), float(wealth[-1]), min(1.0, 1 / float(wealth.max()))
    )


def log_wealth(differences: Sequence[float]) -> Vector:
    """Return, after each difference, the log wealth of the richer bettor against "no difference"."""
    steps = np.asarray(differences, dtype=float)
    return np.maximum(_log_wealth(steps, 0.0), _log_wealth(-steps, 0.0))


def _log_wealth(steps: Vector, mean: float) -> Vector:
    span = max(1e-9, 1 + mean)  # the lowest step is -1: with a stake below 1 nothing is ever lost whole
    logs = np.cumsum(np.log1p(((steps - mean) / span)[:, None] * np.array(STAKES)), axis=0)
    top = logs.max(axis=1)
    wealth: Vector = top + np.log(np.exp(logs - top[:, None]).mean(axis=1))
    return wealth


def _beyond(steps: Vector, limit: float) -> float:
    def refuted(mean: float) -> bool:
        return bool(_log_wealth(-steps, -mean).max() >= limit)

    low, high = -1.0, 1.0
    if not refuted(high - 1e-9):
        return 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high
