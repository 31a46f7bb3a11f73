"""Adam on one flat vector, in place.

Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1. Gradients are clipped by
their norm: Pascanu et al., "On the difficulty of training recurrent neural networks" (2013), algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
CLIP = 1.0
"""The largest norm of a gradient; a larger one is scaled down to it."""


@dataclass(slots=True)
class Adam:
    """The averages of gradients and of their squares, each like the parameters, and the steps taken."""

    mean: Array
    square: Array
    step: int = 0

    def update(self, parameters: Array, gradient: Array, rate: float) -> float:
        """One step; overwrites `gradient`. Returns the gradient's norm before it was clipped."""
        import numpy as np

        length = math.sqrt(float(np.dot(gradient, gradient)))
        if length > CLIP:
            gradient *= CLIP / length
        self.step += 1
        self.mean *= FIRST
        self.mean += (1 - FIRST) * gradient
        np.square(gradient, out=gradient)
        self.square *= SECOND
        self.square += (1 - SECOND) * gradient
        spread = np.sqrt(self.square / (1 - SECOND**self.step))
        parameters -= rate / (1 - FIRST**self.step) * self.mean / (spread + EPSILON)
        return length
