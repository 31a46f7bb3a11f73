"""The arms on the same train rows and the same sealed test, which is opened once, when all of them are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.programs.classic import ClassicProgram
from agent.programs.kinds import Defaults
from agent.programs.prompt import PromptProgram
from agent.programs.tuned import TunedCandidate, TunedProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import ArmSpec, PromptArm, bare_prompt, instructed_prompt, rows_a_label
from agent.run.customize.elsewhere import QUESTIONS, answers, elsewhere
from agent.run.customize.table import MeasuredArm, table
from agent.run.customize.training import pairs_of, rows_hash, trained
from agent.run.job import Job, Resources
from agent.scoring.evaluate import Evaluator
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.tuning.settings import LoraSettings, TrainedAdapter
from agent.types import LM, Candidate, Example, Outcome, Proposal, Task

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
        prompts: the prompts that take part, `yours` first.
        tuned: the arms to train.
        classic: whether methods without a language model take part.
        folder: where adapters and checkpoints are kept.
        settings: of the training.
        curve: numbers of train rows to compare with as well.
        expected_calls: calls in the life of the prompt; None: as many as it takes.
    """

    task: Task
    lm: LM
    judges: tuple[LM, ...]
    run: str
    prompts: tuple[PromptArm, ...]
    tuned: tuple[ArmSpec, ...]
    classic: bool
    folder: Path
    settings: LoraSettings
    curve: tuple[int, ...] = ()
    expected_calls: int | None = None

    @property
    def calls(self) -> int:
        """How many it takes at most."""
        rows = (len(self.task.test) + LATENCY_ROWS) * (1 + judge_calls(self.task))
        points = len(self.curve) * len(self.tuned) * len(self.task.test)
        general = len(QUESTIONS) * (1 + len(self.tuned)) if self.tuned else 0
        return rows * (len(self.prompts) + len(self.tuned)) + points + general


class Customize(Job):
    """One comparison."""

    command = kind = "customize"
    done = "customized"
    after_interrupt = "interrupted; the same command goes on: replies are in the ledger, epochs in the checkpoint"

    def __init__(self, plan: CustomizePlan, resources: Resources) -> None:
        self._prompts = PromptProgram(plan.task, plan.lm)
        self._classic = ClassicProgram(plan.task) if plan.classic and ClassicProgram.suits(plan.task) else None
        self._tuned = TunedProgram(plan.task, plan.lm)
        programs = [self._prompts, self._tuned, *([self._classic] if self._classic else [])]
        super().__init__(plan.task, [plan.lm.name], resources, programs)
        self._plan = plan
        self._adapters: list[LM] = []

    @property
    def planned(self) -> int:
        return self._plan.calls

    async def work(self) -> dict[str, Any]:
        try:
            return await self._compare()
        finally:
            for lm in self._adapters:
                await lm.close()

    async def _compare(self) -> dict[str, Any]:
        plan = self._plan
        made = [await self._made(spec) for spec in plan.tuned]
        if self._classic is not None:
            await self._classic.fit(plan.task.test)
        arms = [await self._prompt_arm(arm) for arm in plan.prompts]  # the sealed test of these two is the search's own
        ids = [arm.candidate.id for arm in plan.prompts] + [each.candidate.id for each in made]
        self._observer.on_event("test_opened", {"arms": ids, "rows": len(plan.task.test)})
        base = await answers(self._gateway, plan.lm) if made else []
        arms += [await self._tuned_arm(each, base) for each in made]
        arms += await self._classic_arms()
        seed = self._resources.seed
        return {
            "kind": self.kind,
            "run_id": self.id,
            "of_run": plan.run,
            "task": plan.task.name,
            "model": plan.lm.name,
            "rows": {"train": len(plan.task.train), "test": len(plan.task.test)},
            **table(arms, rows_a_label(plan.task), plan.expected_calls, seed),
            "curve": [],
            **self.cost(),
            "status": "complete",
            "ledger_head": self.ledger.head(),
        }
