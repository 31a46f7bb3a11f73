"""Adam as the paper writes it, one number at a time, and the clip before it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agent.training.loop import CLIP, Adam


def by_hand(start: list[float], gradients: list[list[float]], rate: float) -> list[float]:
    first, second, at = [0.0] * len(start), [0.0] * len(start), list(start)
    for step, gradient in enumerate(gradients, 1):
        length = math.hypot(*gradient)
        for i, one in enumerate(gradient):
            g = one * min(1.0, 1.0 / length)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            at[i] -= rate * (first[i] / (1 - 0.9**step)) / (math.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
    return at


def test_it_steps_as_the_paper_writes_it() -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(0, 0.6, (20, 5))  # some longer than the clip, some not
    lengths = [float(np.linalg.norm(one)) for one in gradients]
    assert min(lengths) < CLIP < max(lengths)
    parameters, adam = start.copy(), Adam(np.zeros(5), np.zeros(5))
    for one, length in zip(gradients, lengths, strict=True):
        assert adam.update(parameters, one.copy(), 0.01) == pytest.approx(length)
    assert adam.step == 20
    assert parameters == pytest.approx(by_hand(list(start), gradients.tolist(), 0.01), rel=1e-9)


def test_a_gradient_of_zero_moves_nothing_at_first() -> None:
    parameters, adam = np.ones(3), Adam(np.zeros(3), np.zeros(3))
    adam.update(parameters, np.zeros(3), 0.1)
    assert parameters.tolist() == [1.0, 1.0, 1.0]
