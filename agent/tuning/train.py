"""Trains an adapter or a soft prompt: pairs in a seeded order, Adam, a validation after each epoch, the best epoch's.

The loss is that of the answers' tokens alone. On one machine the same training ends with the same bytes, also where it
was killed and goes on from its last checkpoint; another machine may round sums otherwise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.errors import InputError
from agent.models.gguf import read_gguf
from agent.models.soft_prompt import SoftTokens, free_tokens
from agent.tuning.base_model import BaseModel, load_base, read_architecture
from agent.tuning.decoder import answer_loss
from agent.tuning.engine_tokens import NO_TOKENS, engine_tokens
from agent.tuning.lora_method import LoraMethod
from agent.tuning.packing import AT_ONCE, TokenPair, packs
from agent.tuning.parameters import Method, P
from agent.tuning.settings import LoraSettings, SoftPromptSettings, TrainedAdapter, TrainingPair, TrainingSettings
from agent.tuning.soft_prompt import SoftMethod
from agent.tuning.training import OnStep, Training

Validate = Callable[[Path], float]
"""The score of an epoch's file; higher is better."""


def train_pairs(
    base: Path,
    pairs: Sequence[TrainingPair],
    settings: TrainingSettings,
    *,
    folder: Path,
    validate: Validate | None = None,
    validation: Sequence[TrainingPair] = (),
    on_step: OnStep | None = None,
) -> TrainedAdapter:
    """Trains an adapter or a soft prompt of a GGUF model, as the settings say, on pairs of prompt and answer.

    The checkpoint of the last epoch stays in `folder`, so that the same call goes on where it was stopped and gives at
    once what is done.

    Args:
        base: a GGUF file of the llama or qwen2 family.
        settings: LoraSettings or SoftPromptSettings.
        folder: for the result and the checkpoint; made if need be.
        validate: scores each epoch's file; training ends when no epoch has been better for `settings.patience`.
        validation: pairs whose mean loss is that score, negative; instead of `validate`.
        on_step: is called after each step.

    Returns:
        The result of the best epoch; without validation, of the last.

    Raises:
        InputError: the model cannot be trained, pairs are wrong or too long, the loss is no number any more, or the
            model has no free tokens for a soft prompt.
        OSError: the disk refuses.
    """
    if not pairs:
        raise InputError("there is no pair to train on")
    if validate and validation:
        raise InputError("validate and validation are two ways to score an epoch; give one")
    file = read_gguf(base)
    tokens = free_tokens(file, settings.vectors) if isinstance(settings, SoftPromptSettings) else NO_TOKENS
    if isinstance(settings, SoftPromptSettings) and not tokens.ids:
        raise InputError(f"{base}: its vocabulary has no free control token, whose place a soft prompt could take")
    made = engine_tokens(base, [*pairs, *validation], read_architecture(file), tokens)
    rows, held = made[: len(pairs)], made[len(pairs) :]
    return train_tokens(
        load_base(base), rows, settings, tokens, folder=folder, validate=validate, validation=held, on_step=on_step
    )


def train_tokens(
    base: BaseModel,
    rows: Sequence[TokenPair],
    settings: TrainingSettings,
    soft: SoftTokens = NO_TOKENS,
    *,
    folder: Path,
    validate: Validate | None = None,
    validation: Sequence[TokenPair] = (),
    on_step: OnStep | None = None,
) -> TrainedAdapter:
    """As `train_pairs`, of weights and token ids that are there already.

    Args:
        soft: the tokens that stand in each prompt for the vectors of a soft prompt.
    """
    if isinstance(settings, LoraSettings):
        lora = LoraMethod(base.architecture, settings.rank, settings.alpha)
        return _trained(base, lora, rows, settings, folder, validate, validation, on_step)
    return _trained(base, SoftMethod(base, soft), rows, settings, folder, validate, validation, on_step)


def _trained(
    base: BaseModel,
    method: Method[P],
    rows: Sequence[TokenPair],
    settings: TrainingSettings,
    folder: Path,
    validate: Validate | None,
    validation: Sequence[TokenPair],
    on_step: OnStep | None,
) -> TrainedAdapter:
    scored = "file" if validate else [[row.prompt, row.answer] for row in validation]
    with Training(base, method, settings, folder, rows, scored) as training:
        progress = training.begun()
        ended = training.run(progress, _score(base, method, validate, validation), on_step)
    if not progress.scores:
        progress.best, progress.best_epoch = progress.parameters, progress.epoch
    path, digest = method.write(folder, method.of(progress.best))
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


def _score(
    base: BaseModel, method: Method[P], validate: Validate | None, held: Sequence[TokenPair]
) -> Callable[[P], float] | None:
    """The score of parameters, by the caller's function or by the loss on held rows; None: there is none."""
    if validate is not None:

        def by_file(parameters: P) -> float:
            with tempfile.TemporaryDirectory(prefix="promptassay-") as name:
                return validate(method.write(Path(name), parameters)[0])

        return by_file
    if not held:
        return None
    batch = packs(held, AT_ONCE)
    answers = sum(len(one.targets) for one in batch)
    return lambda parameters: -sum(answer_loss(base, parameters, one) for one in batch) / answers
