"""Trains an adapter: pairs in a seeded order, Adam, a validation after each epoch, and the best epoch's adapter.

The loss is that of the answers' tokens alone. On one machine the same training ends with the same bytes, also where it
was killed and goes on from its last checkpoint; another machine may round sums otherwise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.errors import InputError
from agent.models.gguf import read_gguf
from agent.tuning.base_model import BaseModel, load_base, read_architecture
from agent.tuning.decoder import answer_loss
from agent.tuning.engine_tokens import engine_tokens
from agent.tuning.lora import Lora
from agent.tuning.lora_file import write_lora
from agent.tuning.packing import AT_ONCE, TokenPair, packs
from agent.tuning.settings import LoraSettings, TrainedAdapter, TrainingPair
from agent.tuning.training import OnStep, Score, Training

Validate = Callable[[Path], float]
"""The score of an epoch's adapter, a GGUF file; higher is better."""


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
    with Training(base, settings, folder, rows, scored) as training:
        progress = training.begun()
        ended = training.run(progress, _score(base, validate, validation), on_step)
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


def _score(base: BaseModel, validate: Validate | None, held: Sequence[TokenPair]) -> Score | None:
    """The score of an adapter, by the caller's function or by the loss on held rows; None: there is none."""
    if validate is not None:

        def by_file(lora: Lora) -> float:
            with tempfile.TemporaryDirectory(prefix="promptassay-") as name:
                return validate(write_lora(Path(name), base.architecture, lora)[0])

        return by_file
    if not held:
        return None
    batch = packs(held, AT_ONCE)
    answers = sum(len(one.targets) for one in batch)
    return lambda lora: -sum(answer_loss(base, lora, one) for one in batch) / answers
