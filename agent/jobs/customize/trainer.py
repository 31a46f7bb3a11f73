"""The maker of arms that are trained here, or on a cluster: the settings of each by dev, then each with those.

A training is made of the rows as the arm will be asked them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.jobs.customize.arms import ArmSpec, MadeArm, Wanted, prompt_of
from agent.jobs.customize.on_ray import RayTrainings
from agent.jobs.customize.settings_search import SettingsChoice, chosen_settings
from agent.jobs.customize.training import (
    Executor,
    Here,
    deciding_versions,
    each_of,
    row_hash,
    rows_hash,
    trained,
    training_record,
)
from agent.jobs.session import Session
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.prompt.template import label_text
from agent.training.loop import TrainingOrder
from agent.training.settings import TrainedAdapter, TrainingPair, TrainingSettings, described
from agent.types import LM, Example, Task

if TYPE_CHECKING:
    from agent.jobs.customize.plan import CustomizePlan

ADAPTERS = "adapters"
"""The folder next to the ledger that keeps them."""
MB = 1e6


def pairs_of(task: Task, lm: LM, prompt: PromptCandidate, rows: Sequence[Example]) -> list[TrainingPair]:
    """The rows as the arm will be asked them, each with its right answer as an example of the layout `turns` shows it.

    Only one output is tuned.
    """
    program, output = PromptProgram(task, lm), task.signature.outputs[0].name
    return [TrainingPair(program.request(prompt, row).messages, label_text(row.labels[output])) for row in rows]


class TrainingMaker:
    """Trains the arms of a plan; the session is shown the progress, and its ledger gets the events."""

    def __init__(self, plan: CustomizePlan, session: Session[Any]) -> None:
        self._plan, self._session, self._observer = plan, session, session.observer
        self._models: list[LocalModel] = []
        self._executor: Executor = Here()
        self._running: list[asyncio.Task[TrainedAdapter]] = []

    async def make(self, wanted: Sequence[Wanted]) -> list[MadeArm]:
        """Have dev choose the settings of each arm, and train it. One begins when those before it have ended, or on a
        cluster all at once: the ledger has them in this order either way."""
        plan = self._plan
        if plan.ray is not None:
            self._executor = await asyncio.to_thread(RayTrainings, plan.ray)
        at_once = self._executor.at_once
        chosen = await each_of([partial(self._chosen, spec) for spec in plan.tuned], at_once and not plan.asked.tune)
        choices = {spec.name: choice for spec, choice in zip(plan.tuned, chosen, strict=True)}
        begun = (self._begun(spec, task, again, choices[spec.name]) for spec, task, again in wanted)
        return [await made() for made in (list(begun) if at_once else begun)]

    async def close(self) -> None:
        for work in self._running:
            work.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await asyncio.to_thread(self._executor.close)
        for lm in self._models:
            await lm.close()

    def _stopped(self) -> Exception | None:
        return self._session.gateway.stopped

    async def _chosen(self, spec: ArmSpec) -> SettingsChoice:
        plan, observer = self._plan, self._observer
        order = self._order(spec, plan.task, spec.settings(plan.launch.options.seed, plan.train_seconds))
        choice = await chosen_settings(spec.name, order, plan.asked, observer, self._stopped, self._executor)
        if choice.tried:
            text = f"dev chose {described(choice.chosen)} of {len(choice.tried)} settings"
            observer.on_message(f"{spec.name}: {text}")
            observer.on_event("settings_chosen", choice.record(spec.name).to_json())
        return choice

    def _order(self, spec: ArmSpec, task: Task, settings: TrainingSettings) -> TrainingOrder:
        plan, target = self._plan, self._plan.launch.model
        assert isinstance(target, LocalModel)
        prompt = prompt_of(spec.name, plan.task, plan.best)
        return TrainingOrder(
            base=target.path,
            rows=pairs_of(task, target, prompt, task.train),
            validation=pairs_of(task, target, prompt, task.dev),
            settings=settings,
            folder=plan.folder / ADAPTERS,
            trainer=spec.trainer(plan.asked.trainer),
            weights=plan.asked.hf_folder,
        )

    def _begun(self, spec: ArmSpec, task: Task, again: int, choice: SettingsChoice) -> Callable[[], Awaitable[MadeArm]]:
        """Begin to train an arm with the chosen settings; further seeds have the cap of the command for themselves."""
        plan, settings = self._plan, choice.chosen
        if again or len(task.train) < len(plan.task.train):
            settings = replace(settings, seed=settings.seed + again, max_seconds=plan.train_seconds)
        name = f"{spec.name}, seed {settings.seed}" if again else spec.name
        order = self._order(spec, task, settings)
        self._observer.on_message(f"{name}: training on {len(task.train)} rows, {len(task.dev)} to stop early by")
        planned = {
            "rows": [row_hash(row) for row in task.train],
            "pairs": len(order.pairs),
            "train": rows_hash(task.train),
            "dev": rows_hash(task.dev),
            "settings": asdict(settings),
            "seed": settings.seed,
            "trainer": order.trainer,
            "weights": None if order.weights is None else str(order.weights),
            "versions": deciding_versions(order.trainer),
        }  # enough to make it again from the same rows
        self._observer.on_event("training", {"arm": spec.name, "labels": len(task.train), **planned})
        work = asyncio.ensure_future(trained(name, order, self._observer, self._stopped, self._executor))
        self._running.append(work)

        async def made() -> MadeArm:
            adapter, base = await work, plan.launch.model.name
            body = {"arm": spec.name, "labels": len(task.train), **training_record(adapter, order)}
            self._observer.on_event("trained", body)
            model = create_model(f"local/{adapter.path}" if spec.method == "full" else f"{base}+{adapter.path}")
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
