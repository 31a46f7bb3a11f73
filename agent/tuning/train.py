"""Trains an adapter, a soft prompt or a whole model: pairs in a seeded order, Adam, after each epoch a validation.

The loss is that of the answers' tokens alone. On one machine the same training ends with the same bytes, also where it
was killed and continues from its last checkpoint; another machine may round sums otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.extras import require
from agent.models.adapter_file import SoftTokens, free_tokens
from agent.models.gguf import read_gguf
from agent.tuning.base_model import BaseModel, load_base, read_architecture
from agent.tuning.engine_tokens import NO_TOKENS, engine_tokens
from agent.tuning.learner import Learner
from agent.tuning.lora import LoraMethod
from agent.tuning.numpy_learner import NumpyLearner
from agent.tuning.packing import TokenPair
from agent.tuning.settings import (
    FullSettings,
    LoraSettings,
    SoftPromptSettings,
    TrainedAdapter,
    Trainer,
    TrainingPair,
    TrainingSettings,
)
from agent.tuning.soft_prompt import SoftMethod
from agent.tuning.training import OnEpoch, OnStep, Training

NEEDS_PEFT = "the trainer peft"


def train_pairs(
    base: Path,
    pairs: Sequence[TrainingPair],
    settings: TrainingSettings,
    *,
    folder: Path,
    trainer: Trainer = "numpy",
    weights: Path | None = None,
    validation: Sequence[TrainingPair] = (),
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedAdapter:
    """Trains an adapter, a soft prompt or all weights of a GGUF model, as the settings say, on pairs of prompt and
    answer.

    The checkpoint of the last epoch stays in `folder`, so that the same call continues where it was stopped and
    gives at once what is done.

    Args:
        base: a GGUF file of the llama or qwen2 family.
        settings: LoraSettings, SoftPromptSettings, or FullSettings for all weights, which only "peft" trains.
        folder: for the result and the checkpoint; made if need be.
        trainer: numpy, or transformers with peft (extra `tune`): "peft". Both take the same pairs in the same order,
            begin with the same parameters and give the same kind of file.
        weights: a Hugging Face folder of the model that `base` was made from, to train on in the place of the file's
            own, rounded weights; needs the extra `tune`. None: the file's own.
        validation: pairs whose mean loss, negative, is the score of an epoch; training ends when no epoch has been
            better for `settings.patience`.
        on_epoch: is called for each validated epoch, with its number, its score and the seconds of training so far;
            first for those of a checkpoint.

    Returns:
        The result of the best epoch; without validation, of the last.

    Raises:
        InputError: the model cannot be trained, pairs are wrong or too long, the loss is no number any more, the
            model has no free tokens for a soft prompt, the extra is not installed, or `weights` is no folder of it.
        OSError: the disk refuses.
    """
    if not pairs:
        raise InputError("there is no pair to train on")
    file = read_gguf(base)
    tokens = free_tokens(file, settings.vectors) if isinstance(settings, SoftPromptSettings) else NO_TOKENS
    if isinstance(settings, SoftPromptSettings) and not tokens.ids:
        raise InputError(f"{base}: its vocabulary has no free control token, whose place a soft prompt could take")
    made = engine_tokens(base, [*pairs, *validation], read_architecture(file), tokens)
    rows, held = made[: len(pairs)], made[len(pairs) :]
    model = load_base(base)
    if weights is not None:
        from agent.tuning.peft.folder import with_weights

        model = with_weights(model, weights)
    return train_tokens(
        model,
        rows,
        settings,
        tokens,
        folder=folder,
        trainer=trainer,
        validation=held,
        on_step=on_step,
        on_epoch=on_epoch,
    )


def train_tokens(
    base: BaseModel,
    rows: Sequence[TokenPair],
    settings: TrainingSettings,
    soft: SoftTokens = NO_TOKENS,
    *,
    folder: Path,
    trainer: Trainer = "numpy",
    validation: Sequence[TokenPair] = (),
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedAdapter:
    """As `train_pairs`, of weights and token ids that are there already."""
    learner = _learner(base, settings, soft, trainer)
    with learner:
        training = Training(learner, settings, folder, rows, validation)
        progress = training.begun()
        ended = training.run(progress, on_step, on_epoch)
    if not progress.scores:
        progress.best, progress.best_epoch = progress.parameters, progress.epoch
    path, digest = learner.write(folder, progress.best)
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
        training=training.name,
    )


def _learner(base: BaseModel, settings: TrainingSettings, soft: SoftTokens, trainer: Trainer) -> Learner[Any]:
    if isinstance(settings, LoraSettings):
        lora = LoraMethod(base.architecture, settings.rank, settings.alpha)
        if trainer == "numpy":
            return NumpyLearner(base, lora, settings.threads)
        require("tune", NEEDS_PEFT)
        from agent.tuning.peft.learners import lora_learner

        return lora_learner(base, lora, settings)
    if isinstance(settings, FullSettings):
        require("tune", "training all weights")
        from agent.tuning.peft.learners import full_learner

        return full_learner(base, settings)
    if trainer != "numpy":
        raise InputError("a soft prompt is trained in numpy alone")
    return NumpyLearner(base, SoftMethod(base, soft), settings.threads)
