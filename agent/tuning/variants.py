"""The settings that are tried on dev: those as given first, then others in the order in which they are worth trying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from agent.tuning.settings import LoraSettings, TrainingSettings

MOST_SETTINGS, MOST_DRAWN = 4, 64
RATES = (1.0, 3.0, 0.3, 10.0)
"""What the learning rate is multiplied by, where a training has no other setting that matters."""
DRAWN_RATES = (0.2, 5.0)
"""Between these multiples of the learning rate one is drawn, uniformly in its logarithm."""
DRAWN_RANKS = (4, 8, 16, 32)
"""One of them is drawn for an adapter; alpha is twice the rank."""


def variants(settings: TrainingSettings, count: int) -> Sequence[TrainingSettings]:
    """The first so many settings to try. Epochs are none of them: dev rows end a training.

    Args:
        settings: as they are without a search; the first.
        count: 1 to MOST_SETTINGS.
    """
    if not isinstance(settings, LoraSettings):
        return [replace(settings, learning_rate=settings.learning_rate * rate) for rate in RATES[:count]]
    rate = settings.learning_rate
    return [
        settings,
        replace(settings, learning_rate=2 * rate),
        replace(settings, rank=2 * settings.rank, alpha=2 * settings.alpha),
        replace(settings, learning_rate=rate / 2),
    ][:count]


def drawn(settings: TrainingSettings, count: int) -> Sequence[TrainingSettings]:
    """The settings as they are, and others that are drawn: each by the seed of the training and its own number.

    Args:
        settings: the first; all keep its seed, so that they begin with the same rows.
        count: 1 to MOST_DRAWN.
    """
    return [settings, *(_one_drawn(settings, number) for number in range(1, count))]


def _one_drawn(settings: TrainingSettings, number: int) -> TrainingSettings:
    import numpy as np

    rng = np.random.default_rng([settings.seed, number])
    low, high = (math.log(settings.learning_rate * end) for end in DRAWN_RATES)
    rate = float(f"{math.exp(rng.uniform(low, high)):.2g}")  # two digits, as a person would write it
    rank = int(rng.choice(DRAWN_RANKS))
    if isinstance(settings, LoraSettings):
        return replace(settings, learning_rate=rate, rank=rank, alpha=2.0 * rank)
    return replace(settings, learning_rate=rate)


def described(settings: TrainingSettings) -> str:
    """What of them is tried, in words: "rate 0.001, rank 8"."""
    rank = f", rank {settings.rank}" if isinstance(settings, LoraSettings) else ""
    return f"rate {settings.learning_rate:g}{rank}"
