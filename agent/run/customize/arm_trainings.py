"""The trainings of a comparison: the settings of each arm by dev, then each arm with those, here or on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.observer import Observer
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import ArmSpec, bare_prompt, instructed_prompt
from agent.run.customize.measure import TunedArm
from agent.run.customize.on_ray import RayTrainings
from agent.run.customize.plan import CustomizePlan
from agent.run.customize.settings_search import SettingsChoice, choice_record, choose_settings, each_of
from agent.run.customize.training import (
    WatchedTraining,
    an_epoch,
    pairs_of,
    planned_record,
    trained,
    training_record,
)
from agent.tuning.settings import Step, TrainedAdapter, TrainingPair, TrainingSettings, described, drawn, variants
from agent.types import Task

ADAPTERS = "adapters"
"""The folder beside the ledger that keeps them."""


@dataclass(frozen=True, slots=True)
class BegunTraining:
    """A training of an arm, on the train rows of a task, that goes on."""

    spec: ArmSpec
    task: Task
    choice: SettingsChoice
    settings: TrainingSettings
    work: asyncio.Task[TrainedAdapter]


class ArmTrainings:
    """What trains the arms.

    Args:
        plan: of the comparison.
        observer: is shown how far trainings are; its events go into the ledger.
        stopped: the error that ends the run, where there is one.
    """

    def __init__(self, plan: CustomizePlan, observer: Observer, stopped: Callable[[], Exception | None]) -> None:
        self._plan, self._observer, self._stopped = plan, observer, stopped
        self._adapters: list[LocalModel] = []
        self._cluster: RayTrainings | None = None
        self._choices: dict[str, SettingsChoice] = {}
        self._running: list[asyncio.Task[TrainedAdapter]] = []

    async def begin(self) -> None:
        """Joins the cluster where there is one, and has dev choose the settings of each arm."""
        plan = self._plan
        if plan.ray is not None:
            self._cluster = await asyncio.to_thread(RayTrainings, plan.ray)
        at_once = self._cluster is not None and not plan.is_drawn
        found = await each_of([partial(self._chosen, spec) for spec in plan.tuned], at_once)
        self._choices = {spec.name: choice for spec, choice in zip(plan.tuned, found, strict=True)}

    async def tuned(self, asked: Sequence[tuple[ArmSpec, Task, int]]) -> list[TunedArm]:
        """Arms, each trained on the train rows of a task; the number counts further seeds. One begins when those before
        it have ended, or on a cluster all at once: the ledger has them in this order either way."""
        begun = (self._begun(*one) for one in asked)
        return [await self._tuned(one) for one in (begun if self._cluster is None else list(begun))]

    async def close(self) -> None:
        """Ends what still runs, the cluster where it is ours, and the models."""
        for work in self._running:
            work.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)
        for lm in self._adapters:
            await lm.close()

    def _prompt(self, spec: ArmSpec) -> PromptCandidate:
        """What a tuned arm is asked."""
        return instructed_prompt(self._plan.best) if spec.name == "lora+prompt" else bare_prompt(self._plan.task)

    async def _chosen(self, spec: ArmSpec) -> SettingsChoice:
        """The settings that dev chooses for an arm, by trainings on all train rows."""
        plan, base = self._plan, self._plan.settings_of(spec)
        if plan.is_drawn:
            choice = await self._chosen_by_asha(spec, drawn(base, plan.tried))
        else:

            async def train(tried: TrainingSettings, about: str) -> TrainedAdapter:
                return await self._trained(f"{spec.name}, {about}", spec, plan.task, tried)

            choice = await choose_settings(variants(base, plan.tried), train, self._cluster is not None)
        if choice.tried:
            self._observer.on_message(
                f"{spec.name}: dev chose {described(choice.chosen)} of {len(choice.tried)} settings"
            )
            self._observer.on_event("settings_chosen", {"arm": spec.name, **choice_record(choice)})
        return choice

    async def _chosen_by_asha(self, spec: ArmSpec, settings: Sequence[TrainingSettings]) -> SettingsChoice:
        from agent.run.customize.on_tune import choose_by_asha

        plan, cluster, most = self._plan, self._cluster, settings[0].max_seconds
        assert cluster is not None
        train, dev = self._pairs(spec, plan.task)
        learnt = an_epoch(train)
        share = None if most is None else most / len(settings)
        how: dict[str, Any] = {"folder": plan.folder / ADAPTERS, "trainer": plan.trainer_of(spec)}
        orders = [
            cluster.order(
                plan.base, learnt, replace(each, max_seconds=share), **how, weights=plan.weights, validation=dev
            )
            for each in settings
        ]
        watched = [
            WatchedTraining(
                f"{spec.name}, setting {number} of {len(settings)}",
                len(train),
                len(learnt),
                order.settings,
                self._observer,
                self._stopped,
            )
            for number, order in enumerate(orders, 1)
        ]

        def heard(number: int, steps: Sequence[Step]) -> None:
            watched[number].on_steps(steps)
            if steps:
                watched[number].look()

        return await choose_by_asha(settings, orders, cluster, heard)

    def _pairs(self, spec: ArmSpec, task: Task) -> tuple[list[TrainingPair], list[TrainingPair]]:
        """The train and dev rows of a task as an arm will be asked them."""
        prompt, program = self._prompt(spec), PromptProgram(task, self._plan.lm)
        return pairs_of(program, prompt, task.train), pairs_of(program, prompt, task.dev)

    async def _trained(self, name: str, spec: ArmSpec, task: Task, settings: TrainingSettings) -> TrainedAdapter:
        """Trains on the train rows of this task, from where the same training stopped before."""
        plan = self._plan
        return await trained(
            name,
            plan.base,
            self._pairs(spec, task),
            settings,
            plan.folder / ADAPTERS,
            self._observer,
            self._stopped,
            plan.trainer_of(spec),
            plan.weights,
            self._cluster,
        )

    def _begun(self, spec: ArmSpec, task: Task, again: int) -> BegunTraining:
        """Begins to train an arm with the settings that were chosen; `again` counts further seeds, which have the cap
        of the command for themselves."""
        plan, choice = self._plan, self._choices[spec.name]
        settings = choice.chosen
        trainer = plan.trainer_of(spec)
        if again or task is not plan.task:
            settings = replace(settings, seed=settings.seed + again, max_seconds=plan.settings.max_seconds)
        name = f"{spec.name}, seed {settings.seed}" if again else spec.name
        rows = (task.train, task.dev)
        self._observer.on_message(f"{name}: training on {len(rows[0])} rows, {len(rows[1])} to stop early by")
        self._observer.on_event("training", planned_record(spec.name, *rows, settings, trainer, plan.weights))
        work = asyncio.ensure_future(self._trained(name, spec, task, settings))
        self._running.append(work)
        return BegunTraining(spec, task, choice, settings, work)

    async def _tuned(self, begun: BegunTraining) -> TunedArm:
        """The arm whose training has begun, when it has ended."""
        plan, spec, settings = self._plan, begun.spec, begun.settings
        rows = (begun.task.train, begun.task.dev)
        adapter = await begun.work
        record = training_record(adapter, settings, plan.trainer_of(spec))
        self._observer.on_event("trained", {"arm": spec.name, "labels": len(rows[0]), **record})
        is_whole = spec.method == "full"
        model = create_model(f"local/{adapter.path}" if is_whole else f"{plan.lm.name}+{adapter.path}")
        assert isinstance(model, LocalModel)
        self._adapters.append(model)
        labels = len(rows[0]) + len(rows[1])
        return TunedArm(spec, self._prompt(spec), adapter, model, labels, begun.choice, settings.seed)
