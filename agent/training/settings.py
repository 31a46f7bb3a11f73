"""What a training is given and what it gives, as frozen data; and the settings that are worth trying on dev."""

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
"""What computes a training: numpy, or transformers with peft (extra `tune`)."""


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A prompt as the engine is sent it, and the answer that it should give."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How anything is trained.

    Args:
        learning_rate: of Adam, above 0.
        batch: pairs a step, 1 or more.
        epochs: at most so often is each pair seen, 1 or more.
        seed: of the first parameters and of the order of pairs, 0 or more.
        threads: parts of a batch that are worked on at once, 1 or more; another number rounds sums otherwise.
        patience: epochs without a better validation score after which training ends, 1 or more.
        max_seconds: of training, without validation; None: no cap.
        max_tokens: through the model; numpy counts those of a prefix that rows share once a step. None: no cap.
        pause_after: epochs after which it pauses, 1 or more; the same training without it continues there. None: no
            pause.
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
    """How an adapter is trained: the `rank` of the two matrices next to each weight, 1 or more, and what their product
    is multiplied by, `alpha` / rank; above 0."""

    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 1e-3
    epochs: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPromptSettings(TrainingSettings):
    """How a soft prompt is trained. `vectors`: at most, 1 or more; a model with fewer free tokens has one for each of
    those."""

    vectors: int = 20
    learning_rate: float = 1e-2
    epochs: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSettings(TrainingSettings):
    """How all weights of a model are trained; a copy of the model is what comes out."""

    learning_rate: float = 5e-5
    epochs: int = 3


_LEAST = (("rank", 1), ("vectors", 1), ("batch", 1), ("epochs", 1), ("seed", 0), ("threads", 1), ("patience", 1))
_ABOVE_0 = ("alpha", "learning_rate", "max_seconds", "max_tokens", "pause_after")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a training, as an observer sees it. `loss`: mean negative log-likelihood of the batch's answer
    tokens, in nats."""

    epoch: int
    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter, a soft prompt or a whole model that was trained.

    Args:
        steps: how many were done; those after the best epoch included.
        seconds: of training, without validation.
        best_epoch: the one that the parameters are of; where nothing was validated, the last.
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
"""What the learning rate is multiplied by, where a training has no other setting that matters."""
DRAWN_RATES = (0.2, 5.0)
"""Between these multiples of the learning rate one is drawn, uniformly in its logarithm."""
DRAWN_RANKS = (4, 8, 16, 32)
"""One of them is drawn for an adapter; alpha is twice the rank."""


def variants(settings: TrainingSettings, count: int) -> Sequence[TrainingSettings]:
    """The first `count` settings to try (1 to MOST_SETTINGS), those given first; dev rows end a training."""
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
    """The settings as they are, and others (1 to MOST_DRAWN in all) that are drawn by their seed and a number.

    All keep the seed, so that they begin with the same rows.
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
