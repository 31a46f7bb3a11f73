"""Trainings of a comparison: where one runs, its progress and ledger records, and the choice of its settings on dev.

Halving trains all settings a little, and the better half continues from its checkpoints until one is left, so the
search costs only the epochs of the settings it drops. ASHA trains all settings on a cluster, and stops those with a dev
loss above the median of those that got to the epochs 1, 2, 4 ... before.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016),
section 3, with dev losses as what is compared and epochs as the resource; Li et al., "A System for Massively Parallel
Hyperparameter Tuning" (2020), section 3, in the variant that stops trainings (of Ray Tune).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import Interrupted, TrainingDiverged
from agent.ledger.provenance import tool_version
from agent.observer import Observer, TrainingProgress
from agent.results.customize import ArmSettings, SettingsTried
from agent.training.loop import TrainingOrder
from agent.training.settings import Step, TrainedAdapter, Trainer, TrainingSettings
from agent.types import Example

if TYPE_CHECKING:
    from agent.jobs.customize.on_ray import RayTrainings

T = TypeVar("T")
OnSteps = Callable[..., None]
Stopped = Callable[[], Exception | None]
"""Returns the error that stops the run, if any."""
SHOWN_SECONDS = 0.5
"""Interval between updates of the progress."""
Train = Callable[[TrainingSettings, str], Awaitable[TrainedAdapter]]
"""Trains with settings; the text names them."""
HALVING, ASHA, DIVERGED, PAUSED = "halving", "ASHA", "diverged", "paused"
LEAST_SECONDS = 1e-3
"""Lowest cap, because 0 is refused."""


class Here:
    """Trains in a thread of this process, one at a time; an error from `on_steps` stops the training."""

    at_once = False

    async def train(self, order: TrainingOrder, on_steps: OnSteps) -> TrainedAdapter:
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
    name: str, order: TrainingOrder, observer: Observer, stopped: Stopped, executor: Here | RayTrainings
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
    if made.ended != PAUSED:
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


# -- the choice of settings -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TriedSettings:
    """Settings that were tried, without caps, and their progress.

    `dev_loss`: lowest of the epochs, in nats. `ended`: as of a trained adapter, or HALVING, ASHA or DIVERGED with the
    error in `why`; "": chosen.
    """

    settings: TrainingSettings
    epochs: int = 0
    dev_loss: float = math.inf
    seconds: float = 0.0
    ended: str = ""
    why: str = ""

    async def train(self, train: Train, name: str, until: int, most: float | None) -> str:
        """Train up to an epoch, at most `most` seconds in all; return why it ended."""
        try:
            made = await train(replace(self.settings, max_seconds=most, pause_after=until), name)
        except TrainingDiverged as error:
            self.ended, self.why = DIVERGED, str(error)
            return DIVERGED
        scores = made.scores[:until]  # an earlier training may have gone further
        self.seconds, self.epochs, self.dev_loss = made.seconds, len(scores), -max(scores, default=-math.inf)
        return PAUSED if len(made.scores) > until else made.ended

    @property
    def rank(self) -> tuple[bool, float]:
        """Sort key: the lowest is best, and of equals the first."""
        return self.ended == DIVERGED, self.dev_loss

    def record(self) -> SettingsTried:
        return SettingsTried(
            learning_rate=getattr(self.settings, "learning_rate", None),
            rank=getattr(self.settings, "rank", None),
            epochs=self.epochs,
            dev_loss=round(self.dev_loss, 5) if math.isfinite(self.dev_loss) else None,
            seconds=round(self.seconds, 1),
            diverged=self.ended == DIVERGED,
            ended=self.ended,
        )


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """The chosen settings, with what is left of the cap on seconds; `seconds`: of those that were dropped."""

    chosen: TrainingSettings
    tried: Sequence[TriedSettings]
    seconds: float

    @staticmethod
    def of(most: float | None, tried: Sequence[TriedSettings], best: TriedSettings) -> SettingsChoice:
        """Choose the best under a cap on seconds. Raises TrainingDiverged if all diverged."""
        if best.ended == DIVERGED:
            raise TrainingDiverged(best.why)
        others = sum(each.seconds for each in tried if each is not best)
        chosen = replace(best.settings, max_seconds=_left(most, tried, best))
        return SettingsChoice(chosen, tried if len(tried) > 1 else (), others)

    def record(self, arm: str) -> ArmSettings:
        return ArmSettings(arm=arm, chosen=asdict(self.chosen), tried=tuple(each.record() for each in self.tried))


def _left(most: float | None, tried: Sequence[TriedSettings], own: TriedSettings) -> float | None:
    if most is None:
        return None
    return max(most - sum(each.seconds for each in tried if each is not own), LEAST_SECONDS)


async def choose_settings(settings: Sequence[TrainingSettings], train: Train, at_once: bool = False) -> SettingsChoice:
    """Train settings by successive halving until one is left; of equals the first.

    The first cap on seconds holds for all together, and under a cap they train one at a time. `train` continues up to
    `pause_after`. Raises TrainingDiverged where all diverged.
    """
    tried = [TriedSettings(each) for each in settings]
    most, left, epochs = settings[0].max_seconds, list(tried), 1

    async def judge(each: TriedSettings, until: int) -> None:
        number = f"setting {tried.index(each) + 1} of {len(tried)}"
        await each.train(train, number, until, _left(most, tried, each))

    while len(left) > 1:
        await each_of([partial(judge, each, epochs) for each in left], at_once and most is None)
        ranked = sorted(left, key=lambda each: each.rank)
        is_last = epochs >= ranked[0].settings.epochs
        left, epochs = ranked[: 1 if is_last else math.ceil(len(ranked) / 2)], 2 * epochs
        for each in ranked[len(left) :]:
            each.ended = each.ended or HALVING
    return SettingsChoice.of(most, tried, left[0])


async def choose_by_asha(settings: Sequence[TrainingSettings], train: Train) -> SettingsChoice:
    """Train settings in parallel until ASHA or dev stops each; caps are divided equally.

    Ranks them as `choose_settings`. Raises TrainingDiverged where all diverged.
    """
    tried, most = [TriedSettings(each) for each in settings], settings[0].max_seconds
    rungs = defaultdict[int, list[float]](list)

    async def climb(number: int, each: TriedSettings) -> None:
        until, share = 1, None if most is None else most / len(tried)
        while not each.ended:
            ended = await each.train(train, f"setting {number} of {len(tried)}", until, share)
            if ended != PAUSED:  # it did not get to this epoch, so the others are not compared with it
                each.ended = ended
                return
            if rungs[until] and each.dev_loss > median(rungs[until]):
                each.ended = ASHA
            rungs[until].append(each.dev_loss)
            until *= 2

    await each_of([partial(climb, number, each) for number, each in enumerate(tried, 1)], at_once=True)
    return SettingsChoice.of(most, tried, min(tried, key=lambda each: each.rank))


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
