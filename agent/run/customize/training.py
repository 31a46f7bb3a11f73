"""Trains the adapter or soft prompt of an arm, says how far it is, and writes down what it took."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.errors import Interrupted
from agent.ledger.provenance import tool_version
from agent.observer import Observer
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import training_answer
from agent.tuning.settings import Step, TrainedAdapter, Trainer, TrainingPair, TrainingSettings
from agent.tuning.train import train_pairs
from agent.types import Example

LINE_SECONDS = 30.0
"""Of training between two lines about it."""
LOSSES_A_LINE = 25
"""The last steps, whose mean loss a line has."""


def pairs_of(program: PromptProgram, prompt: PromptCandidate, rows: Sequence[Example]) -> list[TrainingPair]:
    """The rows as the arm will be asked them, each with its right answer."""
    answer = training_answer
    return [TrainingPair(program.request(prompt, row).messages, answer(program.task, row.labels)) for row in rows]


def rows_hash(rows: Sequence[Example]) -> str:
    """Of the ids and answers of rows, in their order."""
    listed = [[row.id, dict(row.labels)] for row in rows]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()


async def trained(
    arm: str,
    base: Path,
    pairs: tuple[Sequence[TrainingPair], Sequence[TrainingPair]],
    settings: TrainingSettings,
    folder: Path,
    observer: Observer,
    stopped: Callable[[], Exception | None],
    trainer: Trainer = "numpy",
    weights: Path | None = None,
) -> TrainedAdapter:
    """Trains what an arm needs in a thread; the same call goes on where a killed one stopped.

    Args:
        arm: its name, for lines and events.
        base: the model's file.
        pairs: to train on, and to stop early by.
        settings: how, and what: an adapter, a soft prompt or all weights.
        folder: for the adapter and its checkpoints.
        observer: gets a line each LINE_SECONDS and at the end, and the event of the end with the loss of each step.
        stopped: the error that ends the run, where there is one.
        trainer: what computes it.
        weights: a Hugging Face folder to train on; None: the weights of `base`.

    Raises:
        Interrupted: the run was stopped; the epochs that ended are kept.
        InputError: the model cannot be trained.
    """
    losses: list[float] = []
    shown = time.monotonic()

    def on_step(step: Step) -> None:
        nonlocal shown
        if stopped() is not None:
            raise Interrupted
        losses.append(step.loss)
        if time.monotonic() - shown >= LINE_SECONDS:
            shown, last = time.monotonic(), losses[-LOSSES_A_LINE:]
            observer.on_message(
                f"{arm}: step {step.step} of {step.steps}, loss {sum(last) / len(last):.3f}, {step.seconds:.0f} s"
            )

    made = await asyncio.to_thread(
        train_pairs,
        base,
        pairs[0],
        settings,
        folder=folder,
        trainer=trainer,
        weights=weights,
        validation=pairs[1],
        on_step=on_step,
    )
    why = "" if made.ended == "epochs" else f" ({made.ended})"
    observer.on_message(f"{arm}: trained in {made.steps} steps{why}, {made.seconds:.0f} s")
    observer.on_event("trained", {"arm": arm, "labels": len(pairs[0]), **training_record(made, settings, trainer)})
    return made


def planned_record(
    arm: str,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: TrainingSettings,
    trainer: Trainer = "numpy",
    weights: Path | None = None,
) -> dict[str, Any]:
    """What the ledger keeps of a training before it begins, JSON-ready: enough to make it again from the same rows.

    Args:
        arm: its name.
        train: the rows to train on, in their order; each is kept as a hash of its id, inputs and answers.
        dev: the rows to stop early by.
        settings: how, with the seed.
        trainer: what computes it.
        weights: a Hugging Face folder to train on; None: the weights of the model's file.
    """
    return {
        "arm": arm,
        "labels": len(train),
        "rows": [_row_hash(row) for row in train],
        "train": rows_hash(train),
        "dev": rows_hash(dev),
        "settings": asdict(settings),
        "seed": settings.seed,
        "trainer": trainer,
        "weights": None if weights is None else str(weights),
        "versions": {"promptassay": tool_version(), **_versions(trainer)},
    }


def _row_hash(row: Example) -> str:
    listed = [row.id, dict(row.inputs), dict(row.labels)]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()[:16]


def training_record(made: TrainedAdapter, settings: TrainingSettings, trainer: Trainer = "numpy") -> dict[str, Any]:
    """What the ledger keeps of a training, JSON-ready."""
    return {
        "adapter": made.sha256,
        "settings": asdict(settings),
        "losses": [round(loss, 5) for loss in made.losses],
        "dev_losses": [round(-score, 5) for score in made.scores],
        "best_epoch": made.best_epoch,
        "ended": made.ended,
        "seconds": round(made.seconds, 2),
        "tokens": made.tokens,
        "trainer": trainer,
        **_versions(trainer),
    }


def _versions(trainer: Trainer) -> dict[str, str]:
    """Of the packages that compute a training."""
    names = {"numpy": ("numpy",), "peft": ("numpy", "torch", "transformers", "peft")}[trainer]
    return {name: version(name) for name in names}
