"""The arms on the same train rows and the same sealed test, which is opened once, when all of them are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.programs.classic import ClassicProgram
from agent.programs.prompt import PromptProgram
from agent.programs.tuned import TunedProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.run.customize.arms import ArmSpec, PromptArm, bare_prompt, instructed_prompt, rows_a_label
from agent.run.customize.elsewhere import QUESTIONS, answers, elsewhere
from agent.run.customize.hosted import HostedArm, HostedPlan, HostedTrainer
from agent.run.customize.table import MeasuredArm, table
from agent.run.customize.training import pairs_of, rows_hash, trained
from agent.run.job import Job, Resources
from agent.run.observers import LedgerObserver
from agent.scoring.evaluate import Evaluator
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.tuning.settings import LoraSettings, SoftPromptSettings, TrainedAdapter, TrainingSettings
from agent.types import LM, Candidate, Proposal, Runner, Task

LATENCY_ROWS = 5
"""Dev rows that are asked one after the other, for the time of a call."""
LATENCY_REPEAT = 1
"""Which sample of them: none that the search has bought."""
MB = 1e6


@dataclass(frozen=True, slots=True)
class CustomizePlan:
    """What is compared.

    Args:
        task: with the train rows of the search, and the sealed rows that it opened.
        lm: the model of all arms.
        judges: those of the task.
        run: the search that the prompts come from.
        best: the best prompt that the search found.
        prompts: the prompts that take part, `yours` first.
        tuned: the arms to train.
        classic: whether methods without a language model take part.
        base: the file of the model, where adapters are trained.
        folder: where adapters and checkpoints are kept.
        settings: of the training of adapters.
        soft: of that of soft prompts.
        expected_calls: calls in the life of the prompt; None: as many as it takes.
        hosted: the arm that the model's provider trains. None: there is none.
    """

    task: Task
    lm: LM
    judges: tuple[LM, ...]
    run: str
    best: PromptCandidate
    prompts: tuple[PromptArm, ...]
    tuned: tuple[ArmSpec, ...]
    classic: bool
    base: Path
    folder: Path
    settings: LoraSettings
    soft: SoftPromptSettings
    expected_calls: int | None = None
    hosted: HostedPlan | None = None

    @property
    def is_local(self) -> bool:
        """Whether a call costs no dollars."""
        return self.lm.name.startswith("local/")

    @property
    def calls(self) -> int:
        """How many it takes at most."""
        rows = (len(self.task.test) + LATENCY_ROWS) * (1 + judge_calls(self.task))
        tuned = len(self.tuned) + (self.hosted is not None)
        general = len(QUESTIONS) * (1 + tuned) if tuned else 0
        return rows * (len(self.prompts) + tuned) + general


@dataclass(frozen=True, slots=True)
class TunedArm:
    """An arm that was trained: what it is asked, its adapter, and the model that has it."""

    spec: ArmSpec
    prompt: PromptCandidate
    adapter: TrainedAdapter
    model: LocalModel

    @property
    def seconds(self) -> float:
        """Of its training."""
        return self.adapter.seconds

    @property
    def usd(self) -> float | None:
        """Dollars of its training."""
        return 0.0

    @property
    def megabytes(self) -> float:
        """Of the adapter."""
        return self.adapter.path.stat().st_size / MB


class Customize(Job):
    """One comparison."""

    command = kind = "customize"
    done = "customized"
    after_interrupt = "interrupted; the same command goes on: replies are in the ledger, epochs in a checkpoint"

    def __init__(self, plan: CustomizePlan, resources: Resources) -> None:
        super().__init__(plan.task, [plan.lm.name], resources)
        self._plan = plan
        self._prompts = PromptProgram(plan.task, plan.lm)
        self._classic = ClassicProgram(plan.task) if plan.classic and ClassicProgram.suits(plan.task) else None
        self._adapters: list[LocalModel] = []
        hosted = plan.hosted
        self._trainer = HostedTrainer(hosted, plan.task, plan.best, resources, self.account) if hosted else None

    @property
    def planned(self) -> int:
        return self._plan.calls

    async def work(self) -> dict[str, Any]:
        try:
            return await self._compared()
        finally:
            for lm in self._adapters:
                await lm.close()
            if self._trainer is not None:
                await self._trainer.close()

    async def abandon(self) -> None:
        if self._trainer is not None:
            await self._trainer.abandon()

    def for_chain(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: result[key] for key in ("of_run", "model", "rows", "arms", "advice", "status")}

    async def _compared(self) -> dict[str, Any]:
        plan, task = self._plan, self.task
        made = [await self._tuned(spec) for spec in plan.tuned]
        hosted = await self._trainer.arm(lambda: self._gateway.stopped) if self._trainer else None
        tuned = TunedProgram(task, plan.lm, self._adapters)
        programs: list[PromptProgram | ClassicProgram] = [self._prompts, tuned]
        programs += [self._classic] if self._classic else []
        records = LedgerObserver(self.ledger, self.id, programs)
        judges = judge_builder(task, plan.judges or (plan.lm,), self._gateway)
        metrics = build_metrics(task, {"judge": judges})

        def evaluator_of(lm: LM, programs: Sequence[Runner]) -> Evaluator:
            base = plan.prompts[0].candidate.id
            return Evaluator(task, self._gateway, lm, metrics, programs, records, graded=True, baseline_id=base)

        evaluator = evaluator_of(plan.lm, programs)
        arms: list[tuple[ArmSpec, PromptCandidate, TunedArm | HostedArm | None]] = []
        arms += [(arm.spec, arm.candidate, None) for arm in plan.prompts]
        arms += [(each.spec, TunedCandidate.of(each.prompt, each.adapter.sha256), each) for each in made]
        arms += [(hosted.spec, hosted.candidate, hosted)] if hosted else []
        for spec, candidate, _ in arms:
            records.on_candidate_accepted(0, Proposal(candidate, {}, f"arm:{spec.name}", None, spec.about))
        opened = {"arms": {spec.name: candidate.id for spec, candidate, _ in arms}, "rows": len(task.test)}
        self._observer.on_event("test_opened", opened)
        measured = []
        for arm in arms:
            own = arm[2] if isinstance(arm[2], HostedArm) else None
            measured.append(await self._measured(evaluator_of(own.model, [own.program]) if own else evaluator, *arm))
        if self._classic is not None:
            measured += await self._unmodelled(evaluator, records, self._classic)
        return {
            "kind": self.kind,
            "run_id": self.id,
            "of_run": plan.run,
            "task": task.name,
            "model": plan.lm.name,
            "rows": {"train": len(task.train), "test": len(task.test)},
            **table(measured, rows_a_label(task), plan.expected_calls, self._resources.seed),
            **({"fine_tuning": hosted.as_dict()} if hosted else {}),
            **self.cost(),
            "status": "complete",
            "ledger_head": self.ledger.head(),
        }

    # -- the arms -----------------------------------------------------------------------------------------------------

    async def _tuned(self, spec: ArmSpec) -> TunedArm:
        """Trains an arm, or takes what the same command trained before, and starts its model."""
        plan, program = self._plan, self._prompts
        prompt = instructed_prompt(plan.best) if spec.name == "lora+prompt" else bare_prompt(self.task)
        settings: TrainingSettings = plan.soft if spec.method == "soft prompt" else plan.settings
        rows = (self.task.train, self.task.dev)
        self._observer.on_message(f"{spec.name}: training on {len(rows[0])} rows, {len(rows[1])} to stop early by")
        self._observer.on_event("training", {"arm": spec.name, "train": rows_hash(rows[0]), "dev": rows_hash(rows[1])})
        adapter = await trained(
            spec.name,
            plan.base,
            (pairs_of(program, prompt, rows[0]), pairs_of(program, prompt, rows[1])),
            settings,
            plan.folder,
            self._observer,
            lambda: self._gateway.stopped,
        )
        model = create_model(f"{plan.lm.name}+{adapter.path}")
        assert isinstance(model, LocalModel)
        self._adapters.append(model)
        return TunedArm(spec, prompt, adapter, model)

    async def _measured(
        self, evaluator: Evaluator, spec: ArmSpec, candidate: PromptCandidate, tuned: TunedArm | HostedArm | None
    ) -> MeasuredArm:
        """An arm on the sealed rows, the time of a call, and what its adapter costs elsewhere."""
        self._observer.on_message(f"{spec.name}: {len(self.task.test)} sealed rows")
        outcomes = await evaluator.outcomes(candidate, self.task.test, "test")
        latency = await self._latency(evaluator, candidate)
        usage = evaluator.usage_of(candidate.id)
        price = self._resources.prices.get((tuned.model if tuned else self._plan.lm).name)
        usd = 1000 * price(usage) if price else None
        general = None
        if tuned is not None:
            base = await answers(self._gateway, self._plan.lm)
            general = elsewhere(await answers(self._gateway, tuned.model), base)
        return MeasuredArm(
            spec.name,
            spec.about,
            spec.family,
            candidate.id,
            [outcome.value for outcome in outcomes],
            len(self.task.train) if tuned else self._labels(candidate),
            tuned.seconds if tuned else 0.0,
            usage.prompt_tokens + usage.completion_tokens,
            0.0 if self._plan.is_local else usd,
            latency,
            general,
            tuned.megabytes if tuned else 0.0,
            tuned.usd if tuned else 0.0,
        )

    async def _latency(self, evaluator: Evaluator, candidate: Candidate) -> float | None:
        """Seconds of one call, the median of a few dev rows that are asked one after the other."""
        seconds = []
        for row in self.task.dev[:LATENCY_ROWS]:
            outcome = await evaluator.outcome(candidate, row, repeat=LATENCY_REPEAT)
            if (took := self.ledger.seconds_of(outcome.call_key)) is not None:
                seconds.append(took)
        return median(seconds) if seconds else None

    def _labels(self, candidate: PromptCandidate) -> int:
        """Rows with a right answer that a prompt shows or picks from, and dev rows that its label weights are of."""
        shown = len(self.task.train) if candidate.picks else len(candidate.demos)
        fitted = len(self.task.dev) if candidate.weights and candidate.weights.method != "label-free" else 0
        return shown + fitted

    async def _unmodelled(
        self, evaluator: Evaluator, records: LedgerObserver, classic: ClassicProgram
    ) -> list[MeasuredArm]:
        """The methods without a language model."""
        await classic.fit(self.task.test)
        arms = []
        for candidate in classic.candidates():
            about = "answers without a language model"
            records.on_candidate_accepted(0, Proposal(candidate, {}, "yardstick", None, about))
            began = time.perf_counter()
            outcomes = await evaluator.outcomes(candidate, self.task.test, "test")
            seconds = (time.perf_counter() - began) / max(1, len(outcomes))
            values = [outcome.value for outcome in outcomes]
            arms.append(
                MeasuredArm(candidate.method, about, "no model", candidate.id, values, classic.rows, latency_s=seconds)
            )
        return arms
