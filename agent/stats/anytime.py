"""Two arms whose outcomes come one by one, compared so that one may look after each of them. Draws nothing.

Outcomes are paired as they come, each with the latest of the other arm that has no partner yet, so that the two of a
pair are of about the same time (blocks of one from each, as in Turner, Ly & Grünwald 2024, "Generic E-variables for
exact sequential k-sample tests"). Who is paired with whom depends on the arms alone, never on an outcome. On the
differences of the pairs two bettors stake parts of their wealth on the mean being higher, or lower, than a value
(Waudby-Smith & Ramdas 2024, JRSS-B 86:1, "Estimating means of bounded random variables by betting"). Where the mean is
that value their bets are fair, and by Ville's inequality the wealth ever reaches 2 / alpha with probability at most
alpha / 2, however often one looks. The values that neither bettor got rich against are the confidence sequence.

What it takes as given: units come independently, and both arms' means stay what they are or move together, slowly
beside the few units that lie between the two of a pair. Where one arm gets more units, its surplus is not used: of
those that wait only the latest are kept, so that a later change of the shares pairs hardly any with one of another
time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[Any]

STAKES = (0.9, 0.6, 0.35, 0.2, 0.1, 0.05, 0.025, 0.0125)
"""Parts of the wealth; each bettor splits its wealth over all: bold ones see large differences early, careful ones
small differences at all."""
WAITING = 10
"""So many without a partner are kept. With one alone a third of the units of equal arms finds none, with ten 5 %."""
STEPS = 40
"""Halvings, to find where the confidence sequence ends."""


@dataclass(frozen=True, slots=True)
class Anytime:
    """What can be said now. `diff`: mean of the second arm less the first, over `pairs`; `ci`: the confidence sequence;
    `e_value`: evidence against "no difference" now, 1 on average at most where there is none; `p_value`: 1 over the
    most that it ever was, valid at any time."""

    pairs: int
    diff: float | None
    ci: tuple[float, float]
    e_value: float
    p_value: float


def paired(outcomes: Sequence[tuple[int, float]]) -> list[float]:
    """`(arm, outcome)` in the order in which they came, arm 0 or 1: arm 1 less arm 0 of each pair, in the order in
    which the pairs were made; what comes later changes none of them."""
    waiting: tuple[deque[float], deque[float]] = (deque(maxlen=WAITING), deque(maxlen=WAITING))
    found = []
    for arm, outcome in outcomes:
        if others := waiting[1 - arm]:
            partner = others.pop()
            found.append(outcome - partner if arm else partner - outcome)
        else:
            waiting[arm].append(outcome)
    return found


def compared(differences: Sequence[float], alpha: float = 0.05) -> Anytime:
    """The comparison after these differences in [-1, 1]. Raises ValueError for others."""
    import numpy as np

    steps = np.asarray(differences, dtype=float)
    if steps.ndim != 1 or not np.all(abs(steps) <= 1 + 1e-9):
        raise ValueError("differences must be a flat list of numbers within +-1")
    if not len(steps):
        return Anytime(0, None, (-1.0, 1.0), 1.0, 1.0)
    steps = np.clip(steps, -1.0, 1.0)
    limit = math.log(2 / alpha)
    low = -_beyond(-steps, limit)
    high = _beyond(steps, limit)
    wealth = np.exp(np.minimum(700.0, log_wealth(steps))) / 2  # half of the stake is with each bettor
    return Anytime(len(steps), float(steps.mean()), (low, high), float(wealth[-1]), min(1.0, 1 / float(wealth.max())))


def log_wealth(differences: Sequence[float]) -> Vector:
    """After each difference, the logarithm of what the richer of the two bettors against "no difference" has."""
    import numpy as np

    steps = np.asarray(differences, dtype=float)
    return np.maximum(_log_wealth(steps, 0.0), _log_wealth(-steps, 0.0))


def _log_wealth(steps: Vector, mean: float) -> Vector:
    """Of the bettor who holds that the true mean is above `mean` >= -1, after each step."""
    import numpy as np

    span = max(1e-9, 1 + mean)  # the lowest step is -1: with a stake below 1 nothing is ever lost whole
    logs = np.cumsum(np.log1p(((steps - mean) / span)[:, None] * np.array(STAKES)), axis=0)
    top = logs.max(axis=1)
    wealth: Vector = top + np.log(np.exp(logs - top[:, None]).mean(axis=1))
    return wealth


def _beyond(steps: Vector, limit: float) -> float:
    """The smallest mean that the bettor on a lower mean has got rich against, 1 where there is none.

    The richer the claimed mean is above the steps, the more that bettor has, so it can be found by halving."""

    def refuted(mean: float) -> bool:
        return bool(_log_wealth(-steps, -mean).max() >= limit)

    low, high = -1.0, 1.0
    if not refuted(high - 1e-9):
        return 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high
