"""Inputs and results of a training as frozen data, and the settings to try on dev."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agent.errors import InputError
from agent.types import Message

Ended = Literal["epochs", "early stop", "seconds", "tokens", "paused"]
"""Why a training ended: all epochs done, the validation score stopped rising, a cap, or a pause."""
Trainer = Literal["numpy", "peft"]
"""Implementation: numpy, or transformers with peft (extra `tune`)."""


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A prompt as it is sent to the engine, and the expected answer."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Settings of any training.

    Args:
        learning_rate: of Adam, above 0.
        batch: pairs per step, 1 or more.
        epochs: at most, 1 or more.
        seed: of the first parameters and the order of pairs, 0 or more.
        threads: parts of a batch computed in parallel, 1 or more; another number rounds sums differently.
        patience: epochs without a better validation score before training ends, 1 or more.
        max_seconds: of training, without validation; None: no cap.
        max_tokens: through the model; numpy counts a shared prefix once per step. None: no cap.
        pause_after: epochs after which it pauses, 1 or more; the same training without it continues there.
    """

    learning_rate: float
    batch: int = 8
    epochs: int
    seed: int = 0
    threads: int = 2
    patience: int = 1
    max_seconds: float | None = None
    max_tokens: int | None = None
    pause_after: int | None = None

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)}, not {least} or more"
            for name, least in _LEAST
            if hasattr(self, name) and getattr(self, name) < least
        ]
        given = {name: value for name in _ABOVE_0 if (value := getattr(self, name, None)) is not None}
        wrong += [f"{name} is {value}, not above 0" for name, value in given.items() if not 0 < value < math.inf]
        if wrong:
            raise InputError(f"settings of the training: {'; '.join(wrong)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings(TrainingSettings):
    """Settings of an adapter: `rank`, 1 or more; the factor of its product is `alpha` / rank."""

    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 1e-3
    epochs: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPromptSettings(TrainingSettings):
    """Settings of a soft prompt.

    `vectors`: at most, 1 or more; limited by the model's free tokens.
    """

    vectors: int = 20
    learning_rate: float = 1e-2
    epochs: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSettings(TrainingSettings):
    """Settings for training all weights of a copy of the model."""

    learning_rate: float = 5e-5
    epochs: int = 3


_LEAST = (("rank", 1), ("vectors", 1), ("batch", 1), ("epochs", 1), ("seed", 0), ("threads", 1), ("patience", 1))
_ABOVE_0 = ("alpha", "learning_rate", "max_seconds", "max_tokens", "pause_after")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a training; `loss`: mean negative log-likelihood of its answer tokens, in nats."""

    epoch: int
    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A trained adapter, soft prompt or whole model.

    Args:
        steps: all that were done, including those after the best epoch.
        seconds: of training, without validation.
        best_epoch: the epoch of the parameters; without validation, the last.
    """

    path: Path
    sha256: str
    steps: int
    seconds: float
    tokens: int
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best_epoch: int
    ended: Ended
    training: str = ""


# -- settings to try on dev -------------------------------------------------------------------------------------------

MOST_SETTINGS, MOST_DRAWN = 4, 64
RATES = (1.0, 3.0, 0.3, 10.0)
"""Factors of the learning rate, for trainings without another setting that matters."""
DRAWN_RATES = (0.2, 5.0)
"""Range of drawn factors of the learning rate, log-uniform."""
DRAWN_RANKS = (4, 8, 16, 32)
"""Ranks to draw from; alpha is twice the rank."""


def variants(settings: TrainingSettings, count: int) -> Sequence[TrainingSettings]:
    """Return the first `count` settings to try (1 to MOST_SETTINGS), the given ones first."""
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
    """Return the settings and others drawn from their seed, 1 to MOST_DRAWN in all.

    All keep the seed, so they start from the same parameters and order of rows.
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
    """Describe the tried settings: "rate 0.001, rank 8"."""
    rank = f", rank {settings.rank}" if isinstance(settings, LoraSettings) else ""
    return f"rate {settings.learning_rate:g}{rank}"
