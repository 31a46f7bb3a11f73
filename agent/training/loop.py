"""Trains an adapter, a soft prompt or a whole model: epochs of Adam, stopping, and checkpoints.

The loss counts answer tokens only. On one machine the same training gives the same bytes, even after a kill and a
resume from a checkpoint; another machine may round sums differently.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import InputError, TrainingDiverged
from agent.extras import require
from agent.models.adapters import SoftTokens, free_tokens
from agent.models.gguf import Array, read_gguf
from agent.safe_file import new_files, sha256_of
from agent.training.base_model import BaseModel, load_base, read_architecture
from agent.training.hf_files import with_weights
from agent.training.learner import LaidRows, NumpyLearner
from agent.training.parameters import Lora, SoftPrompt
from agent.training.rows import NO_TOKENS, TokenPair, engine_tokens
from agent.training.settings import (
    Ended,
    LoraSettings,
    SoftPromptSettings,
    Step,
    TrainedAdapter,
    Trainer,
    TrainingPair,
    TrainingSettings,
)

if TYPE_CHECKING:
    from agent.training.torch_learner import TorchLearner

OnStep = Callable[[Step], None]
FEWEST_PAIRS = 120
"""Minimum pairs of an epoch: a dozen steps teach a model nothing."""
CAPS: tuple[Ended, ...] = ("seconds", "tokens")
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
CLIP = 1.0
"""Maximum norm of a gradient; larger ones are scaled down."""


@dataclass(slots=True)
class Adam:
    """Adam on one flat vector, in place.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1. Gradients are clipped by
    their norm: Pascanu et al., "On the difficulty of training recurrent neural networks" (2013), algorithm 1.
    """

    mean: Array
    square: Array
    step: int = 0

    def update(self, parameters: Array, gradient: Array, rate: float) -> float:
        """Make one step; overwrite `gradient` and return its norm before clipping."""
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


@dataclass(slots=True)
class TrainingState:
    """Progress of a training; `best`: parameters of the epoch `best_epoch` (0: none has ended).

    `seconds`: of training, without validation.
    """

    parameters: Array
    adam: Adam
    best: Array
    best_epoch: int = 0
    epoch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A training: what stays the same over its epochs."""

    learner: NumpyLearner | TorchLearner
    settings: TrainingSettings
    folder: Path
    rows: Sequence[TokenPair]
    validation: Sequence[TokenPair]

    @cached_property
    def name(self) -> str:
        """Hash of all that decides the parameters and the score after an epoch."""
        how = [self.settings.learning_rate, self.settings.batch, self.settings.seed, self.settings.threads]
        rows, validation = ([[row.prompt, row.answer] for row in part] for part in (self.rows, self.validation))
        of = [self.learner.base, [*self.learner.decides, *how], rows, validation]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]

    def run(self, on_step: OnStep | None = None) -> TrainedAdapter:
        """Train from the last checkpoint to the best epoch; without validation, the last."""
        with self.learner:
            progress, ended = self.begun()
            ended = ended or self._epochs(progress, on_step)
        if not progress.scores:
            progress.best, progress.best_epoch = progress.parameters, progress.epoch
        path, digest = self.learner.write(self.folder, progress.best)
        return TrainedAdapter(
            path=path,
            sha256=digest,
            steps=len(progress.losses),
            seconds=progress.seconds,
            tokens=progress.tokens,
            losses=tuple(progress.losses),
            scores=tuple(progress.scores),
            best_epoch=progress.best_epoch,
            ended=ended,
            training=self.name,
        )

    def _epochs(self, progress: TrainingState, on_step: OnStep | None) -> Ended:
        while progress.epoch < self.settings.epochs:
            if progress.scores and progress.epoch - progress.best_epoch >= self.settings.patience:
                return "early stop"
            if self.settings.pause_after is not None and progress.epoch >= self.settings.pause_after:
                return "paused"
            if (cap := self.epoch(progress, on_step)) is not None:
                save_checkpoint(self.folder, self._at_cap(cap), progress)
                return cap
            progress.epoch += 1
            if self.validation:
                _judge(progress, self.learner.score(progress.parameters, self.validation))
            else:
                progress.best = progress.parameters
            save_checkpoint(self.folder, self.name, progress)
        return "epochs"

    def _at_cap(self, cap: Ended) -> str:
        most = self.settings.max_seconds if cap == "seconds" else self.settings.max_tokens
        return f"{self.name}-{cap}-{most or 0:.3f}"

    def begun(self) -> tuple[TrainingState, Ended | None]:
        """Return the state to continue from, and the cap that ended this very training before."""
        for cap in CAPS:
            if kept := load_checkpoint(self.folder, self._at_cap(cap), self.learner.size):
                return kept, cap
        if (kept := load_checkpoint(self.folder, self.name, self.learner.size)) and kept.epoch <= self.settings.epochs:
            return kept, None
        first = self.learner.initial(self.settings.seed)
        return TrainingState(first, Adam(first * 0, first * 0), first), None

    def epoch(self, progress: TrainingState, on_step: OnStep | None) -> Ended | None:
        """Train on every row once; return the cap that stopped it, if any."""
        order = np.random.default_rng([self.settings.seed, progress.epoch]).permutation(len(self.rows))
        last = 0.0
        for start in range(0, len(order), self.settings.batch):
            began = time.monotonic()
            batch = self.learner.batch([self.rows[at] for at in order[start : start + self.settings.batch]])
            if (cap := self._cap(progress, batch.tokens, last)) is not None:
                return cap
            loss = self._step(progress, batch)
            last = time.monotonic() - began
            progress.seconds += last
            progress.tokens += batch.tokens
            progress.losses.append(loss)
            if on_step is not None:
                done, steps = progress.adam.step, math.ceil(len(order) / self.settings.batch) * self.settings.epochs
                on_step(Step(progress.epoch + 1, done, steps, loss, progress.tokens, progress.seconds))
        return None

    def _cap(self, progress: TrainingState, tokens: int, seconds: float) -> Ended | None:
        most = self.settings
        if most.max_tokens is not None and progress.tokens + tokens > most.max_tokens:
            if not progress.losses:
                raise InputError(f"max_tokens is {most.max_tokens}, but the first step has {tokens} tokens")
            return "tokens"
        if most.max_seconds is not None and progress.losses and progress.seconds + seconds > most.max_seconds:
            return "seconds"
        return None

    def _step(self, progress: TrainingState, batch: LaidRows) -> float:
        loss, gradient = self.learner.gradient(progress.parameters, batch)
        with np.errstate(over="ignore", invalid="ignore"):
            length = progress.adam.update(progress.parameters, gradient, self.settings.learning_rate)
        if not math.isfinite(loss + length):
            raise TrainingDiverged(
                f"the training diverged at step {progress.adam.step} (loss {loss}); use a learning rate below "
                f"{self.settings.learning_rate:g}"
            )
        return loss


def _judge(progress: TrainingState, score: float) -> None:
    if not math.isfinite(score):
        raise InputError(f"the validation score of epoch {progress.epoch} is {score}")
    if not progress.scores or score > max(progress.scores):
        progress.best, progress.best_epoch = progress.parameters.copy(), progress.epoch
    progress.scores.append(score)


# -- checkpoints ------------------------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, training: str, progress: TrainingState) -> None:
    """Write `TRAINING-epochN-HASH.npz` and delete earlier epochs. Raises OSError."""
    adam = progress.adam
    counts = np.array([adam.step, progress.epoch, progress.best_epoch, progress.tokens])
    parameters = {"parameters": progress.parameters, "best": progress.best, "mean": adam.mean, "square": adam.square}
    lists = {name: np.array(getattr(progress, name)) for name in ("seconds", "losses", "scores")}
    with new_files(folder) as staging:
        with (staging / "state").open("wb") as file:
            np.savez(file, allow_pickle=False, counts=counts, **parameters, **lists)
        name = f"{training}-epoch{progress.epoch}-{_digest(staging / 'state')}.npz"
        (staging / "state").rename(staging / name)
    for _, earlier in _kept(folder, training):
        if earlier.name != name:
            earlier.unlink(missing_ok=True)  # another node may have deleted it


def load_checkpoint(folder: Path, training: str, size: int) -> TrainingState | None:
    """Return the latest intact state of a training, if any."""
    for _, path in sorted(_kept(folder, training), reverse=True):
        if not path.stem.endswith(_digest(path)):
            continue  # damaged: an earlier one leads to the same adapter
        with np.load(path, allow_pickle=False) as file:
            if file["parameters"].shape != (size,):
                continue
            step, epoch, best_epoch, tokens = (int(count) for count in file["counts"])
            return TrainingState(
                parameters=file["parameters"],
                adam=Adam(file["mean"], file["square"], step),
                best=file["best"],
                best_epoch=best_epoch,
                epoch=epoch,
                seconds=float(file["seconds"]),
                tokens=tokens,
                losses=file["losses"].tolist(),
                scores=file["scores"].tolist(),
            )
    return None


def _kept(folder: Path, training: str) -> list[tuple[int, Path]]:
    name = re.compile(rf"{training}-epoch(\d+)-[0-9a-f]{{16}}\.npz")
    found = ((name.fullmatch(path.name), path) for path in folder.glob(f"{training}-epoch*.npz"))
    return [(int(match[1]), path) for match, path in found if match]


def _digest(path: Path) -> str:
    return sha256_of(path)[:16]


# -- from pairs of a prompt and its answer ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """A training: its inputs and its output folder.

    Args:
        base: a GGUF file of the llama or qwen2 family.
        validation: pairs whose mean loss, negative, scores an epoch.
        folder: for the result and the checkpoints; created if missing.
        trainer: both take the same pairs in the same order, start from the same parameters and write the same files.
        weights: a Hugging Face folder of the model behind `base`, to train on instead of the file's rounded weights.
        fewest: minimum pairs of an epoch; fewer rows are repeated.
    """

    base: Path
    rows: Sequence[TrainingPair]
    validation: Sequence[TrainingPair] = ()
    settings: TrainingSettings
    folder: Path
    trainer: Trainer = "numpy"
    weights: Path | None = None
    fewest: int = FEWEST_PAIRS

    @property
    def pairs(self) -> list[TrainingPair]:
        """Pairs of an epoch."""
        return [*self.rows] * max(1, math.ceil(self.fewest / max(1, len(self.rows))))

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.pairs) / self.settings.batch)

    def train(self, on_step: OnStep | None = None) -> TrainedAdapter:
        """Train in this process, or continue from a checkpoint in the folder.

        Raises:
            InputError: the model, its pairs or `weights` cannot be trained on, the loss diverged, or the extra is
            missing. OSError: the disk refuses.
        """
        if not self.rows:
            raise InputError("no pairs to train on")
        file, settings, pairs, soft = read_gguf(self.base), self.settings, self.pairs, NO_TOKENS
        if isinstance(settings, SoftPromptSettings) and not (soft := free_tokens(file, settings.vectors)).ids:
            why = "no free control token for a soft prompt"
            raise InputError(f"{self.base}: {why}")
        tokens = engine_tokens(self.base, [*pairs, *self.validation], read_architecture(file), soft)
        model = load_base(self.base)
        if self.weights is not None:
            model = with_weights(model, self.weights)
        learner = learner_of(model, settings, soft, self.trainer)
        training = Training(learner, settings, self.folder, tokens[: len(pairs)], tokens[len(pairs) :])
        return training.run(on_step)


def learner_of(
    base: BaseModel, settings: TrainingSettings, soft: SoftTokens = NO_TOKENS, trainer: Trainer = "numpy"
) -> NumpyLearner | TorchLearner:
    """Return what computes a training. Raises InputError where the extra is missing or unfit."""
    if isinstance(settings, SoftPromptSettings) and trainer != "numpy":
        raise InputError("a soft prompt is trained in numpy alone")
    if isinstance(settings, SoftPromptSettings):
        return NumpyLearner(base, SoftPrompt(base, soft), settings.threads)
    lora = None
    if isinstance(settings, LoraSettings):
        lora = Lora(base.architecture, settings.rank, settings.alpha / settings.rank)
    if lora is not None and trainer == "numpy":
        return NumpyLearner(base, lora, settings.threads)
    require("tune", "training all weights" if lora is None else "the trainer peft")
    from agent.training.torch_learner import full_learner, lora_learner

    return full_learner(base, settings) if lora is None else lora_learner(base, lora, settings)
