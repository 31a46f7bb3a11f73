"""Makes the arms that are trained here: the settings of each by dev, then each with those, here or on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.jobs.customize.arms import ArmSpec, MadeArm, bare_prompt, instructed_prompt
from agent.jobs.customize.on_ray import RayTrainings
from agent.jobs.customize.plan import CustomizePlan
from agent.jobs.customize.settings_search import (
    SettingsChoice,
    choice_record,
    choose_by_asha,
    choose_settings,
    each_of,
)
from agent.jobs.customize.training import (
    Stopped,
    TrainingOrder,
    WatchedTraining,
    pairs_of,
    planned_record,
    trained,
    training_record,
)
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.observer import Observer
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.training.settings import Step, TrainedAdapter, TrainingSettings, described, drawn, variants
from agent.types import Task

ADAPTERS = "adapters"
"""The folder next to the ledger that keeps them."""
MB = 1e6


@dataclass(frozen=True, slots=True)
class BegunTraining:
    spec: ArmSpec
    task: Task
    order: TrainingOrder
    work: asyncio.Task[TrainedAdapter]


class ArmTrainings:
    """What trains the arms; `observer` is shown how far trainings are, and its events go into the ledger."""

    def __init__(self, plan: CustomizePlan, observer: Observer, stopped: Stopped) -> None:
        self._plan, self._observer, self._stopped = plan, observer, stopped
        self._models: list[LocalModel] = []
        self._cluster: RayTrainings | None = None
        self._choices: dict[str, SettingsChoice] = {}
        self._running: list[asyncio.Task[TrainedAdapter]] = []

    async def begin(self) -> None:
        """Joins the cluster where one is named, and has dev choose the settings of each arm."""
        plan = self._plan
        if plan.ray is not None:
            self._cluster = await asyncio.to_thread(RayTrainings, plan.ray)
        at_once = self._cluster is not None and not plan.asked.tune
        found = await each_of([partial(self._chosen, spec) for spec in plan.tuned], at_once)
        self._choices = {spec.name: choice for spec, choice in zip(plan.tuned, found, strict=True)}

    async def made(self, asked: Sequence[tuple[ArmSpec, Task, int]]) -> list[MadeArm]:
        """Arms, each trained on the train rows of a task; the number counts further seeds. One begins when those before
        it have ended, or on a cluster all at once: the ledger has them in this order either way."""
        begun = (self._begun(*one) for one in asked)
        return [await self._made(one) for one in (begun if self._cluster is None else list(begun))]

    async def close(self) -> None:
        """Ends what still runs, the cluster where it is ours, and the models."""
        for work in self._running:
            work.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)
        for lm in self._models:
            await lm.close()

    def _prompt(self, spec: ArmSpec) -> PromptCandidate:
        return instructed_prompt(self._plan.best) if spec.name == "lora+prompt" else bare_prompt(self._plan.task)

    def _order(self, spec: ArmSpec, task: Task, settings: TrainingSettings) -> TrainingOrder:
        plan, prompt = self._plan, self._prompt(spec)
        program = PromptProgram(task, plan.lm)
        return TrainingOrder(
            base=plan.base,
            rows=pairs_of(program, prompt, task.train),
            validation=pairs_of(program, prompt, task.dev),
            settings=settings,
            folder=plan.folder / ADAPTERS,
            trainer=plan.trainer_of(spec),
            weights=plan.asked.hf_folder,
        )

    async def _chosen(self, spec: ArmSpec) -> SettingsChoice:
        plan = self._plan
        order = self._order(spec, plan.task, plan.settings_of(spec))
        if plan.asked.tune:
            choice = await self._chosen_by_asha(spec, order)
        else:

            async def train(settings: TrainingSettings, about: str) -> TrainedAdapter:
                return await self._trained(f"{spec.name}, {about}", replace(order, settings=settings))

            choice = await choose_settings(variants(order.settings, plan.asked.tried), train, self._cluster is not None)
        if choice.tried:
            self._observer.on_message(
                f"{spec.name}: dev chose {described(choice.chosen)} of {len(choice.tried)} settings"
            )
            self._observer.on_event("settings_chosen", choice_record(spec.name, choice).to_json())
        return choice

    async def _chosen_by_asha(self, spec: ArmSpec, order: TrainingOrder) -> SettingsChoice:
        assert self._cluster is not None
        settings, most = drawn(order.settings, self._plan.asked.tried), order.settings.max_seconds
        share = None if most is None else most / len(settings)
        orders = [replace(order, settings=replace(each, max_seconds=share)) for each in settings]
        watched = [
            WatchedTraining(f"{spec.name}, setting {number} of {len(settings)}", each, self._observer, self._stopped)
            for number, each in enumerate(orders, 1)
        ]

        def heard(number: int, steps: Sequence[Step]) -> None:
            watched[number].on_steps(steps)
            if steps:
                watched[number].look()

        return await choose_by_asha(settings, orders, self._cluster, heard)

    async def _trained(self, name: str, order: TrainingOrder) -> TrainedAdapter:
        return await trained(name, order, self._observer, self._stopped, self._cluster)

    def _begun(self, spec: ArmSpec, task: Task, again: int) -> BegunTraining:
        """Begins to train an arm with the settings that were chosen; `again` counts further seeds, which have the cap
        of the command for themselves."""
        plan, settings = self._plan, self._choices[spec.name].chosen
        if again or task is not plan.task:
            settings = replace(settings, seed=settings.seed + again, max_seconds=plan.train_seconds)
        name = f"{spec.name}, seed {settings.seed}" if again else spec.name
        order = self._order(spec, task, settings)
        self._observer.on_message(f"{name}: training on {len(task.train)} rows, {len(task.dev)} to stop early by")
        self._observer.on_event("training", planned_record(spec.name, task, order))
        work = asyncio.ensure_future(self._trained(name, order))
        self._running.append(work)
        return BegunTraining(spec, task, order, work)

    async def _made(self, begun: BegunTraining) -> MadeArm:
        spec, order, rows, choice = begun.spec, begun.order, begun.task.train, self._choices[begun.spec.name]
        adapter = await begun.work
        record = training_record(adapter, order)
        self._observer.on_event("trained", {"arm": spec.name, "labels": len(rows), **record})
        is_whole = spec.method == "full"
        model = create_model(f"local/{adapter.path}" if is_whole else f"{self._plan.lm.name}+{adapter.path}")
        assert isinstance(model, LocalModel)
        self._models.append(model)
        return MadeArm(
            spec,
            TunedCandidate.of(self._prompt(spec), adapter.sha256),
            model,
            len(rows) + len(begun.task.dev),
            train_s=adapter.seconds,
            seconds=adapter.seconds + choice.seconds,
            megabytes=adapter.path.stat().st_size / MB,
            seed=order.settings.seed,
            choice=choice,
        )
