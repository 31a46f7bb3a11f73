"""One training of an arm: what it is made of, how far it is, and what the ledger keeps of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Interrupted
from agent.jobs.customize.arms import training_answer
from agent.ledger.provenance import tool_version
from agent.observer import Observer, TrainingProgress
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.training.loop import OnEpoch, OnStep, train_pairs
from agent.training.settings import Step, TrainedAdapter, Trainer, TrainingPair, TrainingSettings
from agent.types import Example, Task

if TYPE_CHECKING:
    from agent.jobs.customize.on_ray import RayTrainings

Stopped = Callable[[], Exception | None]
"""The error that ends the run, if it is to end."""
SHOWN_SECONDS = 0.5
"""Of training between two looks at it."""
FEWEST_PAIRS = 120
"""Of an epoch: fewer rows are passed several times in it, as a dozen steps teach a model nothing."""


def pairs_of(program: PromptProgram, prompt: PromptCandidate, rows: Sequence[Example]) -> list[TrainingPair]:
    """The rows as the arm will be asked them, each with its right answer."""
    answer = training_answer
    return [TrainingPair(program.request(prompt, row).messages, answer(program.task, row.labels)) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """A training: what it is made of, and where its result goes.

    Args:
        weights: a Hugging Face folder to train on; None: the weights of `base`.
    """

    base: Path
    rows: Sequence[TrainingPair]
    validation: Sequence[TrainingPair]
    settings: TrainingSettings
    folder: Path
    trainer: Trainer = "numpy"
    weights: Path | None = None

    @property
    def pairs(self) -> list[TrainingPair]:
        """Those of an epoch: the rows, or several times the rows where they are few."""
        return [*self.rows] * math.ceil(FEWEST_PAIRS / max(1, len(self.rows)))

    def train(self, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> TrainedAdapter:
        """Trains here, from the checkpoint in the folder if there is one. Raises what `train_pairs` does."""
        return train_pairs(
            self.base,
            self.pairs,
            self.settings,
            folder=self.folder,
            trainer=self.trainer,
            weights=self.weights,
            validation=self.validation,
            on_step=on_step,
            on_epoch=on_epoch,
        )


@dataclass(slots=True)
class WatchedTraining:
    """A training in its thread or on a node, as the run's own thread looks at it."""

    name: str
    order: TrainingOrder
    observer: Observer
    stopped: Stopped
    steps: list[Step] = field(default_factory=list)
    written: set[int] = field(default_factory=set)
    is_left: bool = False

    def on_step(self, step: Step) -> None:
        self.on_steps((step,))

    def on_steps(self, steps: Sequence[Step]) -> None:
        """Notes steps, if any. Raises Interrupted where the training is to end."""
        if self.is_left or self.stopped() is not None:
            raise Interrupted
        for step in steps:
            while self.steps and self.steps[-1].step >= step.step:  # made again after a node died
                self.steps.pop()
            self.steps.append(step)

    @property
    def _steps_an_epoch(self) -> int:
        return math.ceil(len(self.order.pairs) / self.order.settings.batch)

    def look(self) -> None:
        """Shows how far it is, and writes the epochs that have ended since the last look."""
        steps, settings, each = self.steps[:], self.order.settings, self._steps_an_epoch
        epochs = settings.pause_after or settings.epochs
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
            body = {"name": self.name, "labels": len(self.order.rows), "epoch": epoch, "first_step": own[0].step}
            self.observer.on_event("training_epoch", {**body, "losses": [round(step.loss, 5) for step in own]})

    def complete(self, losses: Sequence[float]) -> None:
        """Puts in the steps that a node made before it died and could not send; `losses` are those of all steps."""
        if not self.steps:
            return
        each, steps = self._steps_an_epoch, {step.step: step for step in self.steps}
        for at in range(self.steps[0].step, len(losses) + 1):
            steps.setdefault(at, replace(self.steps[-1], epoch=math.ceil(at / each), step=at, loss=losses[at - 1]))
        self.steps = [steps[at] for at in sorted(steps)]


async def trained(
    name: str, order: TrainingOrder, observer: Observer, stopped: Stopped, cluster: RayTrainings | None = None
) -> TrainedAdapter:
    """Trains in a thread, or on a cluster; the same call continues where a killed one stopped.

    Raises:
        Interrupted: the run was stopped; the epochs that ended are kept.
        InputError: the model cannot be trained.
    """
    watched = WatchedTraining(name, order, observer, stopped)
    work = asyncio.ensure_future(
        cluster.train(order, watched.on_steps) if cluster else asyncio.to_thread(order.train, watched.on_step)
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


# -- in the ledger ----------------------------------------------------------------------------------------------------


def planned_record(arm: str, task: Task, order: TrainingOrder) -> dict[str, Any]:
    """What the ledger keeps of a training before it begins: enough to make it again from the same rows."""
    return {
        "arm": arm,
        "labels": len(task.train),
        "rows": [row_hash(row) for row in task.train],
        "pairs": len(order.pairs),
        "train": rows_hash(task.train),
        "dev": rows_hash(task.dev),
        "settings": asdict(order.settings),
        "seed": order.settings.seed,
        "trainer": order.trainer,
        "weights": None if order.weights is None else str(order.weights),
        "versions": deciding_versions(order.trainer),
    }


def training_record(made: TrainedAdapter, order: TrainingOrder) -> dict[str, Any]:
    return {
        "adapter": made.sha256,
        "settings": asdict(order.settings),
        "losses": [round(loss, 5) for loss in made.losses],
        "dev_losses": [round(-score, 5) for score in made.scores],
        "best_epoch": made.best_epoch,
        "ended": made.ended,
        "seconds": round(made.seconds, 2),
        "tokens": made.tokens,
        "trainer": order.trainer,
        **_versions(order.trainer),
    }


def deciding_versions(trainer: Trainer) -> dict[str, str]:
    return {"promptassay": tool_version(), **_versions(trainer)}


def _versions(trainer: Trainer) -> dict[str, str]:
    names = {"numpy": ("numpy",), "peft": ("numpy", "torch", "transformers", "peft")}[trainer]
    return {name: version(name) for name in names}


def row_hash(row: Example) -> str:
    """Of a row's id, inputs and answers."""
    return _hash([row.id, dict(row.inputs), dict(row.labels)])[:16]


def rows_hash(rows: Sequence[Example]) -> str:
    """Of the ids and answers of rows, in their order."""
    return _hash([[row.id, dict(row.labels)] for row in rows])


def _hash(listed: list[Any]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()
