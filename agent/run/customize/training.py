"""Trains the adapter or soft prompt of an arm, shows how far it is, and says what the ledger keeps of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import Interrupted
from agent.ledger.provenance import tool_version
from agent.observer import Observer, TrainingProgress
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import training_answer
from agent.run.customize.on_ray import RayTrainings
from agent.run.customize.trainer import versions_of
from agent.tuning.settings import Step, TrainedAdapter, Trainer, TrainingPair, TrainingSettings
from agent.tuning.train import train_pairs
from agent.types import Example

SHOWN_SECONDS = 0.5
"""Of training between two looks at it."""
FEWEST_PAIRS = 120
"""Of an epoch: fewer rows are passed several times in it, as a dozen steps teach a model nothing."""


def pairs_of(program: PromptProgram, prompt: PromptCandidate, rows: Sequence[Example]) -> list[TrainingPair]:
    """The rows as the arm will be asked them, each with its right answer."""
    answer = training_answer
    return [TrainingPair(program.request(prompt, row).messages, answer(program.task, row.labels)) for row in rows]


def an_epoch(pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    """The pairs that an epoch passes: all, or several times all where they are few."""
    return [*pairs] * _passes(len(pairs))


def _passes(rows: int) -> int:
    return math.ceil(FEWEST_PAIRS / max(1, rows))


def rows_hash(rows: Sequence[Example]) -> str:
    """Of the ids and answers of rows, in their order."""
    listed = [[row.id, dict(row.labels)] for row in rows]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(slots=True)
class WatchedTraining:
    """A training in its thread or on a node, as the run's own thread looks at it.

    Args:
        name: what is trained.
        labels: rows to train on.
        pairs: of an epoch.
        settings: has the caps.
        observer: is shown how far it is, and gets the losses of each epoch that has ended.
        stopped: the error that ends the run, where there is one.
        steps: those since it began or went on, each once.
        written: the epochs that the ledger has.
        is_left: nobody waits for the training any more.
    """

    name: str
    labels: int
    pairs: int
    settings: TrainingSettings
    observer: Observer
    stopped: Callable[[], Exception | None]
    steps: list[Step] = field(default_factory=list)
    written: set[int] = field(default_factory=set)
    is_left: bool = False

    def on_step(self, step: Step) -> None:
        self.on_steps((step,))

    def on_steps(self, steps: Sequence[Step]) -> None:
        """Notes steps; none asks whether the training is to go on. Raises Interrupted where it is not."""
        if self.is_left or self.stopped() is not None:
            raise Interrupted
        for step in steps:
            while self.steps and self.steps[-1].step >= step.step:  # made again after a node died
                self.steps.pop()
            self.steps.append(step)

    def look(self) -> None:
        """Shows how far it is, and writes the epochs that have ended since the last look."""
        steps, settings = self.steps[:], self.settings
        each, epochs = math.ceil(self.pairs / settings.batch), settings.pause_after or settings.epochs
        last = steps[-1] if steps else Step(1, 0, epochs * each, 0.0, 0, 0.0)
        left = settings.max_seconds
        if steps:
            goes_on = max(0.0, (epochs * each - last.step) * last.seconds / last.step)
            left = goes_on if left is None else min(goes_on, max(0.0, left - last.seconds))
        losses = [step.loss for step in steps]
        self.observer.on_training_progress(
            TrainingProgress(self.name, last.epoch, epochs, last.step, epochs * each, losses, last.seconds, left)
        )
        for epoch in range(steps[0].epoch if steps else 1, last.epoch + 1):
            own = [step for step in steps if step.epoch == epoch]
            if epoch in self.written or len(own) < each:
                continue
            self.written.add(epoch)
            body = {"name": self.name, "labels": self.labels, "epoch": epoch, "first_step": own[0].step}
            self.observer.on_event("training_epoch", {**body, "losses": [round(step.loss, 5) for step in own]})

    def complete(self, losses: Sequence[float]) -> None:
        """Puts in the steps that a node made before it died and could not send any more.

        Args:
            losses: of all steps, from the first on.
        """
        if not self.steps:
            return
        each, steps = math.ceil(self.pairs / self.settings.batch), {step.step: step for step in self.steps}
        for at in range(self.steps[0].step, len(losses) + 1):
            steps.setdefault(at, replace(self.steps[-1], epoch=math.ceil(at / each), step=at, loss=losses[at - 1]))
        self.steps = [steps[at] for at in sorted(steps)]


async def trained(
    name: str,
    base: Path,
    pairs: tuple[Sequence[TrainingPair], Sequence[TrainingPair]],
    settings: TrainingSettings,
    folder: Path,
    observer: Observer,
    stopped: Callable[[], Exception | None],
    trainer: Trainer = "numpy",
    weights: Path | None = None,
    cluster: RayTrainings | None = None,
) -> TrainedAdapter:
    """Trains what an arm needs in a thread, or on a cluster; the same call goes on where a killed one stopped.

    Args:
        name: what is trained, in words: the arm, and which settings or seed.
        base: the model's file.
        pairs: to train on, and to stop early by.
        settings: how, and what: an adapter, a soft prompt or all weights.
        folder: for the adapter and its checkpoints.
        observer: is shown how far it is, gets a line at the end of what is not to go on, and the losses of each epoch.
        stopped: the error that ends the run, where there is one.
        trainer: what computes it.
        weights: a Hugging Face folder to train on; None: the weights of `base`.
        cluster: whose node trains. None: this process does.

    Raises:
        Interrupted: the run was stopped; the epochs that ended are kept.
        InputError: the model cannot be trained.
    """
    learnt = an_epoch(pairs[0])
    watched = WatchedTraining(name, len(pairs[0]), len(learnt), settings, observer, stopped)
    what = (base, learnt, settings)
    how: dict[str, Any] = {"folder": folder, "trainer": trainer, "weights": weights, "validation": pairs[1]}
    work = asyncio.ensure_future(
        cluster.train(*what, **how, on_steps=watched.on_steps)
        if cluster is not None
        else asyncio.to_thread(train_pairs, *what, **how, on_step=watched.on_step)
    )
    try:
        while not work.done():
            watched.look()
            await asyncio.wait({work}, timeout=SHOWN_SECONDS)
        made = work.result()
        watched.complete(made.losses)
        watched.look()
    finally:
        watched.is_left = True
        await asyncio.wait({work})  # ends after the step that it is in
        work.exception()  # where nobody asks for its result
    if made.ended != "paused":
        why = "" if made.ended == "epochs" else f" ({made.ended})"
        observer.on_message(f"{name}: trained in {made.steps} steps{why}, {made.seconds:.0f} s")
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
        "rows": [row_hash(row) for row in train],
        "pairs": len(train) * _passes(len(train)),
        "train": rows_hash(train),
        "dev": rows_hash(dev),
        "settings": asdict(settings),
        "seed": settings.seed,
        "trainer": trainer,
        "weights": None if weights is None else str(weights),
        "versions": {"promptassay": tool_version(), **versions_of(trainer)},
    }


def row_hash(row: Example) -> str:
    """Of a row's id, inputs and answers."""
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
        **versions_of(trainer),
    }
