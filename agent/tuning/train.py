"""Trains an adapter: pairs in a seeded order, Adam, a validation after each epoch, and the best epoch's adapter.

The loss is that of the answers' tokens alone. On one machine the same training ends with the same bytes, also where it
was killed and goes on from its last checkpoint; another machine, or another number of threads, rounds sums otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.models.gguf import read_gguf
from agent.tuning.adam import Adam
from agent.tuning.base_model import BaseModel, load_base, read_architecture
from agent.tuning.checkpoint import Progress, load_checkpoint, save_checkpoint
from agent.tuning.decoder import add_gradients, answer_loss
from agent.tuning.engine_tokens import engine_tokens
from agent.tuning.lora import Lora, initial_lora, lora_size
from agent.tuning.lora_file import write_lora
from agent.tuning.packing import Pack, TokenPair, packs
from agent.tuning.settings import Ended, LoraSettings, Step, TrainedAdapter, TrainingPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

AT_ONCE = 512
"""Tokens of a pack: more take memory and are hardly faster."""

Validate = Callable[[Path], float]
"""The score of an epoch's adapter, a GGUF file; higher is better."""
OnStep = Callable[[Step], None]


def train_lora(
    base: Path,
    pairs: Sequence[TrainingPair],
    settings: LoraSettings,
    *,
    folder: Path,
    validate: Validate | None = None,
    validation: Sequence[TrainingPair] = (),
    on_step: OnStep | None = None,
) -> TrainedAdapter:
    """Trains an adapter of a GGUF model on pairs of prompt and answer.

    The checkpoint of the last epoch stays in `folder`, so that the same call goes on where it was stopped and gives at
    once what is done.

    Args:
        base: a GGUF file of the llama or qwen2 family.
        folder: for the adapter and the checkpoint; made if need be.
        validate: scores each epoch's adapter; training ends when no epoch has been better for `settings.patience`.
        validation: pairs whose mean loss is that score, negative; instead of `validate`.
        on_step: is called after each step.

    Returns:
        The adapter of the best epoch; without validation, of the last.

    Raises:
        InputError: the model cannot be trained, pairs are wrong or too long, or the loss is no number any more.
        OSError: the disk refuses.
    """
    if not pairs:
        raise InputError("there is no pair to train on")
    if validate and validation:
        raise InputError("validate and validation are two ways to score an epoch; give one")
    tokens = engine_tokens(base, [*pairs, *validation], read_architecture(read_gguf(base)))
    rows, held = tokens[: len(pairs)], tokens[len(pairs) :]
    return train_tokens(
        load_base(base), rows, settings, folder=folder, validate=validate, validation=held, on_step=on_step
    )


def train_tokens(
    base: BaseModel,
    rows: Sequence[TokenPair],
    settings: LoraSettings,
    *,
    folder: Path,
    validate: Validate | None = None,
    validation: Sequence[TokenPair] = (),
    on_step: OnStep | None = None,
) -> TrainedAdapter:
    """As `train_lora`, of weights and token ids that are there already."""
    scored = "file" if validate else [[row.prompt, row.answer] for row in validation]
    training = _Training(base, settings, folder, rows, scored)
    progress = training.begun()
    score = _score(training, validate, validation)
    ended: Ended = "epochs"
    while progress.epoch < settings.epochs:
        if progress.scores and progress.epoch - progress.best_epoch >= settings.patience:
            ended = "early stop"
            break
        capped = training.epoch(progress, on_step)
        if capped is not None:
            ended = capped
            break
        progress.epoch += 1
        if score is not None:
            _judge(progress, score(training.lora(progress.parameters)))
        else:
            progress.best = progress.parameters
        save_checkpoint(folder, training.name, progress)
    if not progress.scores:
        progress.best, progress.best_epoch = progress.parameters, progress.epoch
    path, digest = write_lora(folder, base.architecture, training.lora(progress.best))
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
    )


class _Training:
    """One training: what stays the same over its epochs, and the gradients."""

    def __init__(
        self, base: BaseModel, settings: LoraSettings, folder: Path, rows: Sequence[TokenPair], scored: Any
    ) -> None:
        self.base, self.settings, self.folder, self.rows = base, settings, folder, rows
        self.name = _name(base, settings, rows, scored)
        self.gradients = Lora(base.architecture, settings.rank, settings.alpha / settings.rank)
        self.steps = math.ceil(len(rows) / settings.batch) * settings.epochs

    def lora(self, flat: Array) -> Lora:
        return Lora(self.base.architecture, self.settings.rank, self.settings.alpha / self.settings.rank, flat)

    def begun(self) -> Progress:
        """The state of the last checkpoint, or that before the first step."""
        size = lora_size(self.base.architecture, self.settings.rank)
        if (kept := load_checkpoint(self.folder, self.name, size)) and kept.epoch <= self.settings.epochs:
            return kept
        first = initial_lora(self.base.architecture, self.settings.rank, self.gradients.scale, self.settings.seed).flat
        return Progress(first, Adam(first * 0, first * 0), first)

    def epoch(self, progress: Progress, on_step: OnStep | None) -> Ended | None:
        """Every row once; the cap that would be passed, where one ended it."""
        import numpy as np

        order = np.random.default_rng([self.settings.seed, progress.epoch]).permutation(len(self.rows))
        lora, last = self.lora(progress.parameters), 0.0
        for start in range(0, len(order), self.settings.batch):
            began = time.monotonic()
            batch = packs([self.rows[at] for at in order[start : start + self.settings.batch]], AT_ONCE)
            tokens = sum(len(one.ids) for one in batch)
            if (cap := self._cap(progress, tokens, last)) is not None:
                return cap
            loss = self._step(progress, lora, batch)
            last = time.monotonic() - began
            progress.seconds += last
            progress.tokens += tokens
            progress.losses.append(loss)
            if on_step is not None:
                done = progress.adam.step
                on_step(Step(progress.epoch + 1, done, self.steps, loss, progress.tokens, progress.seconds))
        return None

    def _cap(self, progress: Progress, tokens: int, seconds: float) -> Ended | None:
        """The cap that a step of so many tokens, as long as the last one, would pass."""
        most = self.settings
        if most.max_tokens is not None and progress.tokens + tokens > most.max_tokens:
            if not progress.losses:
                raise InputError(f"max_tokens is {most.max_tokens}, and the first step alone has {tokens} tokens")
            return "tokens"
        if most.max_seconds is not None and progress.losses and progress.seconds + seconds > most.max_seconds:
            return "seconds"
        return None

    def _step(self, progress: Progress, lora: Lora, batch: Sequence[Pack]) -> float:
        """One step of Adam; the mean loss of the batch's answer tokens before it."""
        import numpy as np

        self.gradients.flat[:] = 0
        answers = sum(len(one.targets) for one in batch)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # refused below
            loss = sum(add_gradients(self.base, lora, one, 1 / answers, self.gradients) for one in batch) / answers
            length = progress.adam.update(lora.flat, self.gradients.flat, self.settings.learning_rate)
        if not math.isfinite(loss + length):
            raise InputError(
                f"the training diverged at step {progress.adam.step} (loss {loss}); take a learning rate below "
                f"{self.settings.learning_rate:g}"
            )
        return loss


def _score(training: _Training, validate: Validate | None, held: Sequence[TokenPair]) -> Callable[[Lora], float] | None:
    """The score of an adapter, by the caller's function or by the loss on held rows; None: there is none."""
    if validate is not None:

        def by_file(lora: Lora) -> float:
            with tempfile.TemporaryDirectory(prefix="promptassay-") as name:
                return validate(write_lora(Path(name), training.base.architecture, lora)[0])

        return by_file
    if not held:
        return None
    batch = packs(held, AT_ONCE)
    answers = sum(len(one.targets) for one in batch)
    return lambda lora: -sum(answer_loss(training.base, lora, one) for one in batch) / answers


def _judge(progress: Progress, score: float) -> None:
    """Notes an epoch's score; its parameters are kept where none before was as good."""
    if not math.isfinite(score):
        raise InputError(f"the validation of epoch {progress.epoch} gave {score}, which is no score")
    if not progress.scores or score > max(progress.scores):
        progress.best, progress.best_epoch = progress.parameters.copy(), progress.epoch
    progress.scores.append(score)


def _name(base: BaseModel, settings: LoraSettings, rows: Sequence[TokenPair], scored: Any) -> str:
    """A hash of all that decides the parameters and the score after an epoch (of the caller's function, that it is)."""
    how = [settings.rank, settings.alpha, settings.learning_rate, settings.batch, settings.seed]
    parts = [base.sha256, how, [[row.prompt, row.answer] for row in rows], scored]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
