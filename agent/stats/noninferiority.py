"""Whether one prompt is not worse than another by more than a margin: a one-sided test of non-inferiority. Pure.

The test of a gain asks whether equal scores can be ruled out. This one asks whether a loss of the margin can be. Rows
that answer neither leave both questions open, so "not significantly worse" is never said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from agent.stats.intervals import lowest_difference

CONFIDENCE = 0.95
"""Of the one side."""
MARGIN = 0.05
"""The default margin: 5 points. On the 80 to 130 rows of a usual run, 3 points could not be shown even for prompts of
one quality (`smallest_margin`)."""
DIFFER = 0.1
"""The share of rows that two prompts of one quality are taken to score differently, where nothing is known yet."""


@dataclass(frozen=True, slots=True)
class LossBound:
    """How much one prompt may lose against another.

    `diff`: its mean minus the other's over `n` paired rows. `low`: the one-sided 95 % limit of the true difference: it
    loses at most -low. `margin`: the loss that is accepted, in (0, 1).
    """

    diff: float
    low: float
    margin: float
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether a loss of the margin or more is ruled out."""
        return self.low > -self.margin


def loss_bound(
    scores: Sequence[float | None], reference: Sequence[float | None], margin: float, seed: int
) -> LossBound | None:
    """How much a prompt may lose against a reference on the same rows; None where no row has a score of the reference.

    A row without a score (None) counts as 0: a lost answer is a loss; rows without a score of the reference are left
    out.

    Source: Tango 1998, Statistics in Medicine 17:891; Piaggio et al. 2012 (CONSORT for non-inferiority), JAMA 308:2594.

    >>> loss_bound([1.0] * 80, [1.0] * 80, 0.05, seed=0).is_shown
    True
    >>> loss_bound([1.0] * 20, [1.0] * 20, 0.05, seed=0).is_shown
    False
    """
    pairs = [(own or 0.0, other) for own, other in zip(scores, reference, strict=True) if other is not None]
    if not pairs:
        return None
    first, second = [own for own, _ in pairs], [other for _, other in pairs]
    diff = sum(own - other for own, other in pairs) / len(pairs)
    return LossBound(diff, lowest_difference(first, second, seed, CONFIDENCE), margin, len(pairs))


def smallest_margin(rows: int, differ: float = DIFFER) -> float:
    """About the smallest margin that `rows` paired rows can show for two prompts of one quality, in (0, 1].

    `differ`: the share of rows that they score differently, in (0, 1].

    >>> round(smallest_margin(120), 3)
    0.047
    """
    return min(1.0, NormalDist().inv_cdf(CONFIDENCE) * math.sqrt(differ / rows))
