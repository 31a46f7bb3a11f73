"""One training of a comparison: where it runs, its progress, and its ledger records."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

from agent.errors import Interrupted
from agent.ledger.provenance import tool_version
from agent.observer import Observer, TrainingProgress
from agent.training.loop import TrainingOrder
from agent.training.settings import Step, TrainedAdapter, Trainer
from agent.types import Example

T = TypeVar("T")
Stopped = Callable[[], Exception | None]
"""Returns the error that stops the run, if any."""
SHOWN_SECONDS = 0.5
"""Interval between updates of the progress."""


class Executor(Protocol):
    """Runs trainings; `at_once`: several in parallel."""

    at_once: bool

    async def train(self, order: TrainingOrder, on_steps: Callable[..., None]) -> TrainedAdapter:
        """Train as `TrainingOrder.train`; an error from `on_steps` stops the training."""

    def close(self) -> None: ...


class Here:
    """Trains in a thread of this process, one at a time."""

    at_once = False

    async def train(self, order: TrainingOrder, on_steps: Callable[..., None]) -> TrainedAdapter:
        return await asyncio.to_thread(order.train, on_steps)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class WatchedTraining:
    """A training in a thread or on a node, as the main thread sees it."""

    name: str
    order: TrainingOrder
    observer: Observer
    stopped: Stopped
    steps: list[Step] = field(default_factory=list)
    written: set[int] = field(default_factory=set)
    is_left: bool = False

    def on_steps(self, *steps: Step) -> None:
        """Record steps, if any. Raises Interrupted to stop the training."""
        if self.is_left or self.stopped() is not None:
            raise Interrupted
        for step in steps:
            while self.steps and self.steps[-1].step >= step.step:  # repeated after a node died
                self.steps.pop()
            self.steps.append(step)

    def look(self) -> None:
        """Show the progress, and record the epochs that ended since the last call."""
        steps, settings, each = self.steps[:], self.order.settings, self.order.steps_an_epoch
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
        """Fill in steps that a dead node did not send; `losses`: of all steps."""
        if not self.steps:
            return
        each, steps = self.order.steps_an_epoch, {step.step: step for step in self.steps}
        for at in range(self.steps[0].step, len(losses) + 1):
            steps.setdefault(at, replace(self.steps[-1], epoch=math.ceil(at / each), step=at, loss=losses[at - 1]))
        self.steps = [steps[at] for at in sorted(steps)]


async def trained(
    name: str, order: TrainingOrder, observer: Observer, stopped: Stopped, executor: Executor
) -> TrainedAdapter:
    """Train, or continue after a kill. Raises Interrupted where the run was stopped."""
    watched = WatchedTraining(name, order, observer, stopped)
    work = asyncio.ensure_future(executor.train(order, watched.on_steps))
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
        work.exception()  # retrieved, so that asyncio does not warn
    if made.ended != "paused":
        why = "" if made.ended == "epochs" else f" ({made.ended})"
        observer.on_message(f"{name}: trained in {made.steps} steps{why}, {made.seconds:.0f} s")
    return made


async def each_of(works: Sequence[Callable[[], Awaitable[T]]], at_once: bool) -> list[T]:
    """Return all results, made in turn or in parallel; the first error cancels the rest."""
    if not at_once:
        return [await work() for work in works]
    running = [asyncio.ensure_future(work()) for work in works]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)


# -- in the ledger ----------------------------------------------------------------------------------------------------


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
    return _hash([row.id, dict(row.inputs), dict(row.labels)])[:16]


def rows_hash(rows: Sequence[Example]) -> str:
    """Hash the ids and answers of rows, in their order."""
    return _hash([[row.id, dict(row.labels)] for row in rows])


def _hash(listed: list[Any]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()
