"""Makes the arms trained here or on a cluster: chooses settings on dev, then trains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, Problem
from agent.extras import is_here, missing
from agent.jobs.customize.arms import SETTINGS, ArmSpec, MadeArm, bare_prompt, prompt_of
from agent.jobs.customize.on_ray import RayTrainings
from agent.jobs.customize.training import (
    Here,
    SettingsChoice,
    choose_by_asha,
    choose_settings,
    deciding_versions,
    each_of,
    row_hash,
    rows_hash,
    trained,
    training_record,
)
from agent.jobs.launch import Launch
from agent.jobs.models import fetch_weights
from agent.jobs.observers import Watcher
from agent.jobs.session import Session
from agent.models.adapters import free_tokens, split_adapter
from agent.models.gguf import read_gguf
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.observer import Observer
from agent.options.jobs import CustomizeOptions
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.prompt.template import label_text
from agent.training.base_model import read_architecture
from agent.training.hf_files import folder_fault
from agent.training.loop import TrainingOrder
from agent.training.rows import require_soft_tokens
from agent.training.settings import (
    SoftPromptSettings,
    TrainedAdapter,
    TrainingPair,
    TrainingSettings,
    described,
    drawn,
    variants,
)
from agent.types import LM, Example, Message, Task

if TYPE_CHECKING:
    from agent.jobs.customize.plan import CustomizePlan

ADAPTERS = "adapters"
"""Folder next to the ledger."""
MB = 1e6
Wanted = tuple[ArmSpec, Task, int]
"""An arm, the task with its train rows, and the number of its seed; 0: the first."""


def training_order(
    arm: str, task: Task, rows: Sequence[Example], lm: LM, best: PromptCandidate, **how: Any
) -> TrainingOrder:
    """Return the training of an arm, with rows in the layout `turns`.

    Only tasks with one output are tuned. `how`: the other fields of the order.
    """
    assert isinstance(lm, LocalModel)
    program, prompt = PromptProgram(task, lm), prompt_of(arm, task, best)
    output = task.signature.outputs[0].name

    def pairs(part: Sequence[Example]) -> list[TrainingPair]:
        return [TrainingPair(program.request(prompt, row).messages, label_text(row.labels[output])) for row in part]

    return TrainingOrder(base=lm.path, rows=pairs(rows), validation=pairs(task.dev), **how)


class TrainingMaker:
    """Trains the arms of a plan; the session shows progress and its ledger gets events."""

    def __init__(self, plan: CustomizePlan, session: Session[Any]) -> None:
        self._plan, self._session, self._observer = plan, session, session.observer
        self._most_seconds = None if plan.asked.train_time is None else float(plan.asked.train_time)
        self._models: list[LocalModel] = []
        self._executor: Here | RayTrainings = Here()
        self._running: list[asyncio.Task[TrainedAdapter]] = []

    async def make(self, wanted: Sequence[Wanted]) -> list[MadeArm]:
        """Choose the settings of each arm on dev, and train it.

        Arms train one after the other, or all at once on a cluster; the ledger has them in this order either way.
        """
        plan = self._plan
        if plan.ray is not None:
            self._executor = await asyncio.to_thread(RayTrainings, plan.ray)
        at_once = self._executor.at_once
        chosen = await each_of([partial(self._chosen, spec) for spec in plan.tuned], at_once)
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

    async def _trained(self, name: str, order: TrainingOrder) -> TrainedAdapter:
        gateway = self._session.gateway
        return await trained(name, order, self._observer, lambda: gateway.stopped, self._executor)

    async def _chosen(self, spec: ArmSpec) -> SettingsChoice:
        plan, asked, observer = self._plan, self._plan.asked, self._observer
        kind: Any = SETTINGS[spec.method]
        first = kind(seed=plan.launch.options.seed, max_seconds=self._most_seconds)
        order = self._order(spec, plan.task, first)

        async def train(settings: TrainingSettings, about: str) -> TrainedAdapter:
            return await self._trained(f"{spec.name}, {about}", replace(order, settings=settings))

        if asked.tune:
            choice = await choose_by_asha(drawn(first, asked.tried), train)
        else:
            choice = await choose_settings(variants(first, asked.tried), train, self._executor.at_once)
        if choice.tried:
            text = f"dev chose {described(choice.chosen)} of {len(choice.tried)} settings"
            observer.on_message(f"{spec.name}: {text}")
            observer.on_event("settings_chosen", choice.record(spec.name).to_json())
        return choice

    def _order(self, spec: ArmSpec, task: Task, settings: TrainingSettings) -> TrainingOrder:
        plan = self._plan
        return training_order(
            spec.name,
            plan.task,
            task.train,
            plan.launch.model,
            plan.best,
            settings=settings,
            folder=plan.folder / ADAPTERS,
            trainer="peft" if spec.method == "full" else plan.asked.trainer,
            weights=plan.asked.hf_folder,
        )

    def _begun(self, spec: ArmSpec, task: Task, again: int, choice: SettingsChoice) -> Callable[[], Awaitable[MadeArm]]:
        plan, settings = self._plan, choice.chosen
        if again or len(task.train) < len(plan.task.train):
            settings = replace(settings, seed=settings.seed + again, max_seconds=self._most_seconds)
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
        work = asyncio.ensure_future(self._trained(name, order))
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


# -- what speaks against it -------------------------------------------------------------------------------------------


def training_problems(
    launch: Launch, asked: CustomizeOptions, tuned: Sequence[ArmSpec], few: str, observer: Observer
) -> tuple[str, list[Problem]]:
    """Return why no arm can be trained ("" if one can), and all problems.

    `few`: the message for too few train rows. A soft prompt needs the model's tokenizer, so its weights are fetched.
    """
    problems, task = list[Problem](), launch.task
    local = launch.model if isinstance(launch.model, LocalModel) else None
    base = local.path if local else None
    why = (why_not_tuned(task, launch.model.name, base) or few) if tuned else ""
    if why and asked.arms:
        problems.append(Problem(f"--arms {tuned[0].name}", why))
    soft = [spec for spec in tuned if spec.method == "soft prompt"]
    if soft and not why and local:
        watcher = observer if isinstance(observer, Watcher) else Watcher()
        fetch_weights([local.name], watcher.download)
        asked_first = PromptProgram(task, local).request(bare_prompt(task), task.train[0]).messages
        if no := why_no_soft_prompt(local.path, asked_first):
            problems.append(Problem(f"--arms {soft[0].name}", no))
    return why, [*problems, *require_trainer(asked, tuned if asked.arms else [], base)]


def why_no_soft_prompt(base: Path, messages: Sequence[Message] = ()) -> str:
    """Return why no soft prompt can be trained before these messages. "" if one can, or without the file."""
    if not base.is_file():
        return ""
    tokens = free_tokens(read_gguf(base), SoftPromptSettings().vectors)
    if not tokens.ids:
        return f"{base}: no free control token for a soft prompt; leave the arm out"
    try:
        if messages:
            require_soft_tokens(base, messages, tokens)
    except InputError as error:
        return f"{error}; leave the arm out"
    return ""


def why_not_tuned(task: Task, model: str, base: Path | None) -> str:
    """Return why no adapter can be trained for this task and model; "" otherwise."""
    if not model.startswith("local/"):
        return f"{model} is not trained here; name an embedded model (local/NAME or local/PATH.gguf)"
    if split_adapter(model.removeprefix("local/"))[1]:
        return f"{model} has an adapter already; name the model without it"
    if len(task.signature.outputs) != 1:
        return "only tasks with one output are tuned; leave the tuned arms out with --arms"
    try:
        if base is not None and base.is_file():
            read_architecture(read_gguf(base))
    except InputError as error:
        return str(error)
    return ""


def require_trainer(asked: CustomizeOptions, specs: Sequence[ArmSpec], base: Path | None) -> list[Problem]:
    """Return all problems of the requested trainer; `specs`: the named arms to train."""
    problems, folder, is_peft = [], asked.hf_folder, asked.trainer == "peft"
    if folder is not None and (fault := folder_fault(folder, base)):
        problems.append(Problem("--hf-folder", fault))
    soft = [spec.name for spec in specs if spec.method == "soft prompt"]
    if soft and is_peft:
        problems.append(Problem(f"--arms {soft[0]}", "trained in numpy alone; leave it or --trainer peft out"))
    full = [f"--arms {spec.name}" for spec in specs if spec.method == "full"]
    needs = [*(["--trainer peft"] if is_peft else []), *full, *(["--hf-folder"] if folder is not None else [])]
    if needs and not is_here("tune"):
        problems.append(Problem(", ".join(needs), missing("tune")))
    return problems


def require_ray(asked: CustomizeOptions, tuned: Sequence[ArmSpec]) -> list[Problem]:
    """Return all problems of training on Ray; `tuned`: the arms to train."""
    given = {"--ray": asked.ray is not None, f"--tune {asked.tune}": bool(asked.tune)}
    needs = ", ".join(name for name, is_given in given.items() if is_given)
    problems = []
    if needs and not tuned:
        problems.append(Problem(needs, "no arm is trained here; name one with --arms, or leave it out"))
    if needs and not is_here("ray"):
        problems.append(Problem(needs, missing("ray")))
    return problems
