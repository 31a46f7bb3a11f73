"""The settings that are tried on dev: those as given first, then others in the order in which they are worth trying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.tuning.settings import LoraSettings, TrainingSettings

MOST_SETTINGS = 4
RATES = (1.0, 3.0, 0.3, 10.0)
"""What the learning rate is multiplied by, where a training has no other setting that matters."""


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


def described(settings: TrainingSettings) -> str:
    """What of them is tried, in words: "rate 0.001, rank 8"."""
    rank = f", rank {settings.rank}" if isinstance(settings, LoraSettings) else ""
    return f"rate {settings.learning_rate:g}{rank}"
