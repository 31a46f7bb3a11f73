"""What a training is given and what it gives, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.errors import InputError
from agent.types import Message

Ended = Literal["epochs", "early stop", "seconds", "tokens", "paused"]
"""Why a training ended: all epochs done, the validation score stopped rising, a cap, or it is to go on later."""
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
        pause_after: epochs after which it pauses, 1 or more; the same training without it goes on from there. None: it
            does not pause.
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
        wrong += [f"{name} is {getattr(self, name)}, not above 0" for name in _ABOVE_0 if not self._above_0(name)]
        if wrong:
            raise InputError(f"settings of the training: {'; '.join(wrong)}")

    def _above_0(self, name: str) -> bool:
        value = getattr(self, name, None)
        return value is None or 0 < value < float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings(TrainingSettings):
    """How an adapter is trained.

    Args:
        rank: of the two matrices beside each weight, 1 or more.
        alpha: what their product is multiplied by, divided by the rank; above 0.
    """

    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 1e-3
    epochs: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPromptSettings(TrainingSettings):
    """How a soft prompt is trained.

    Args:
        vectors: at most so many, 1 or more; a model with fewer free tokens has as many as those.
    """

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
    """One step of a training, as an observer sees it.

    Args:
        epoch: 1 and up.
        step: 1 and up, over all epochs.
        steps: how many there are in all epochs.
        loss: mean negative log-likelihood of the batch's answer tokens, in nats.
        tokens: through the model so far.
        seconds: so far, those before a resume included.
    """

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
        path: of the GGUF file, named by its hash.
        sha256: of the file, in hex digits.
        steps: how many were done; those after the best epoch included.
        seconds: of training, without validation.
        tokens: through the model.
        losses: of each step.
        scores: of each epoch that was validated.
        best_epoch: the one that the parameters are of; where nothing was validated, the last.
        ended: why training ended.
        training: what the names of its checkpoints begin with, in hex digits.
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
