"""The arms that are trained here, or on a cluster: the settings of each by dev, then each with those.

A training is made of the rows as the arm will be asked them. Its steps are shown as they are done, and the ledger keeps
enough to make it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Interrupted
from agent.jobs.customize.arms import ArmSpec, CustomizePlan, MadeArm, bare_prompt, instructed_prompt
from agent.ledger.provenance import tool_version
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.observer import Observer, TrainingProgress
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.prompt.template import label_text
from agent.training.loop import OnEpoch, OnStep, train_pairs
from agent.training.settings import Step, TrainedAdapter, Trainer, TrainingPair, TrainingSettings, described
from agent.types import LM, Example, Task

if TYPE_CHECKING:
    from agent.jobs.customize.on_ray import RayTrainings
    from agent.jobs.customize.settings_search import SettingsChoice

Stopped = Callable[[], Exception | None]
"""The error that ends the run, if it is to end."""
ADAPTERS = "adapters"
"""The folder next to the ledger that keeps them."""
SHOWN_SECONDS = 0.5
"""Of training between two looks at it."""
FEWEST_PAIRS = 120
"""Of an epoch: fewer rows are passed several times in it, as a dozen steps teach a model nothing."""
MB = 1e6


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

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.pairs) / self.settings.batch)

    def train(self, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> TrainedAdapter:
        """Train here, from the checkpoint in the folder if any. Raises what `train_pairs` does."""
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


def prompt_of(arm: str, task: Task, best: PromptCandidate) -> PromptCandidate:
    """What a tuned arm is asked with."""
    return instructed_prompt(best) if arm == "lora+prompt" else bare_prompt(task)


def pairs_of(task: Task, lm: LM, prompt: PromptCandidate, rows: Sequence[Example]) -> list[TrainingPair]:
    """The rows as the arm will be asked them, each with its right answer as an example of the layout `turns` shows it.

    Only one output is tuned.
    """
    program, output = PromptProgram(task, lm), task.signature.outputs[0].name
    return [TrainingPair(program.request(prompt, row).messages, label_text(row.labels[output])) for row in rows]


# -- one training -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class WatchedTraining:
    """A training in its thread or on a node, as the run's own thread sees it."""

    name: str
    order: TrainingOrder
    observer: Observer
    stopped: Stopped
    steps: list[Step] = field(default_factory=list)
    written: set[int] = field(default_factory=set)
    is_left: bool = False

    def on_steps(self, *steps: Step) -> None:
        """Note steps, if any. Raises Interrupted where the training is to end."""
        if self.is_left or self.stopped() is not None:
            raise Interrupted
        for step in steps:
            while self.steps and self.steps[-1].step >= step.step:  # made again after a node died
                self.steps.pop()
            self.steps.append(step)

    def look(self) -> None:
        """Show the progress, and write the epochs that have ended since the last look."""
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
        """Put in the steps that a node made before it died and could not send; `losses` are those of all steps."""
        if not self.steps:
            return
        each, steps = self.order.steps_an_epoch, {step.step: step for step in self.steps}
        for at in range(self.steps[0].step, len(losses) + 1):
            steps.setdefault(at, replace(self.steps[-1], epoch=math.ceil(at / each), step=at, loss=losses[at - 1]))
        self.steps = [steps[at] for at in sorted(steps)]


async def trained(
    name: str, order: TrainingOrder, observer: Observer, stopped: Stopped, cluster: RayTrainings | None = None
) -> TrainedAdapter:
    """Train in a thread, or on a cluster; the same call continues where a killed one stopped.

    Raises:
        Interrupted: the run was stopped; the epochs that ended are kept.
        InputError: the model cannot be trained.
    """
    watched = WatchedTraining(name, order, observer, stopped)
    work = asyncio.ensure_future(
        cluster.train(order, watched.on_steps) if cluster else asyncio.to_thread(order.train, watched.on_steps)
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


# -- all of a comparison ----------------------------------------------------------------------------------------------


class ArmTrainings:
    """Trains the arms of a plan; `observer` is shown the progress, and its events go into the ledger."""

    def __init__(self, plan: CustomizePlan, observer: Observer, stopped: Stopped) -> None:
        self._plan, self._observer, self._stopped = plan, observer, stopped
        self._models: list[LocalModel] = []
        self._cluster: RayTrainings | None = None
        self._choices: dict[str, SettingsChoice] = {}
        self._running: list[asyncio.Task[TrainedAdapter]] = []

    async def begin(self) -> None:
        """Join the cluster where one is named, and have dev choose the settings of each arm."""
        from agent.jobs.customize.on_ray import RayTrainings
        from agent.jobs.customize.settings_search import chosen_settings, each_of

        plan = self._plan
        if plan.ray is not None:
            self._cluster = await asyncio.to_thread(RayTrainings, plan.ray)

        async def choose(spec: ArmSpec) -> SettingsChoice:
            order = self._order(spec, plan.task, plan.settings_of(spec))
            choice = await chosen_settings(spec.name, order, plan.asked, self._observer, self._stopped, self._cluster)
            if choice.tried:
                text = f"dev chose {described(choice.chosen)} of {len(choice.tried)} settings"
                self._observer.on_message(f"{spec.name}: {text}")
                self._observer.on_event("settings_chosen", choice.record(spec.name).to_json())
            return choice

        at_once = self._cluster is not None and not plan.asked.tune
        found = await each_of([partial(choose, spec) for spec in plan.tuned], at_once)
        self._choices = {spec.name: choice for spec, choice in zip(plan.tuned, found, strict=True)}

    async def made(self, asked: Sequence[tuple[ArmSpec, Task, int]]) -> list[MadeArm]:
        """Arms, each trained on the train rows of a task; the number counts further seeds. One begins when those before
        it have ended, or on a cluster all at once: the ledger has them in this order either way."""
        begun = (self._begun(*one) for one in asked)
        return [await made() for made in (begun if self._cluster is None else list(begun))]

    async def close(self) -> None:
        """End what still runs, the cluster where it is ours, and the models."""
        for work in self._running:
            work.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)
        for lm in self._models:
            await lm.close()

    def _order(self, spec: ArmSpec, task: Task, settings: TrainingSettings) -> TrainingOrder:
        plan, prompt = self._plan, prompt_of(spec.name, self._plan.task, self._plan.best)
        return TrainingOrder(
            base=plan.base,
            rows=pairs_of(task, plan.lm, prompt, task.train),
            validation=pairs_of(task, plan.lm, prompt, task.dev),
            settings=settings,
            folder=plan.folder / ADAPTERS,
            trainer=plan.trainer_of(spec),
            weights=plan.asked.hf_folder,
        )

    def _begun(self, spec: ArmSpec, task: Task, again: int) -> Callable[[], Awaitable[MadeArm]]:
        """Begin to train an arm with the chosen settings; further seeds have the cap of the command for themselves."""
        plan, choice = self._plan, self._choices[spec.name]
        settings = choice.chosen
        if again or task is not plan.task:
            settings = replace(settings, seed=settings.seed + again, max_seconds=plan.train_seconds)
        name = f"{spec.name}, seed {settings.seed}" if again else spec.name
        order = self._order(spec, task, settings)
        self._observer.on_message(f"{name}: training on {len(task.train)} rows, {len(task.dev)} to stop early by")
        self._observer.on_event("training", planned_record(spec.name, task, order))
        work = asyncio.ensure_future(trained(name, order, self._observer, self._stopped, self._cluster))
        self._running.append(work)

        async def made() -> MadeArm:
            adapter = await work
            body = {"arm": spec.name, "labels": len(task.train), **training_record(adapter, order)}
            self._observer.on_event("trained", body)
            is_whole = spec.method == "full"
            model = create_model(f"local/{adapter.path}" if is_whole else f"{plan.lm.name}+{adapter.path}")
            assert isinstance(model, LocalModel)
            self._models.append(model)
            return MadeArm(
                spec,
                TunedCandidate.of(prompt_of(spec.name, plan.task, plan.best), adapter.sha256),
                model,
                len(task.train) + len(task.dev),
                train_s=adapter.seconds,
                seconds=adapter.seconds + choice.seconds,
                megabytes=adapter.path.stat().st_size / MB,
                seed=settings.seed,
                choice=choice,
            )

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
    return _hash([row.id, dict(row.inputs), dict(row.labels)])[:16]


def rows_hash(rows: Sequence[Example]) -> str:
    """Of the ids and answers of rows, in their order."""
    return _hash([[row.id, dict(row.labels)] for row in rows])


def _hash(listed: list[Any]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()
