"""A released prompt asked again: to compare it with what was recorded (check), or to record it anew (bless).

Both ask the model afresh, since a reply out of the ledger would say nothing of the model as it is today; the calls are
budgeted and written down like all others. The sealed test is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import RunRefused
from agent.ledger.provenance import tool_version, utc_now
from agent.programs.released import ReleasedProgram
from agent.redact import mask, rare_secrets_in
from agent.release.regression import verdict
from agent.release.runtime import Prompt
from agent.release.suite import Sample, Suite, is_answer, suite_of, write_suite
from agent.run.job import Job, Means
from agent.scoring.evaluate import Evaluator
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.stats.intervals import mean_ci
from agent.types import LM, Outcome, Task

FLATTERED = (
    "the reference is what its run scored on dev, by which this prompt was chosen; the answers vary, so it may "
    "flatter: record a fair one with `optimize bless`"
)
UNANSWERED_AT_MOST = 0.5
"""Of the rows; with more there is nothing to record."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What to ask: the prompt on the dev rows of the task, `repeats` times each."""

    prompt: Prompt
    task: Task
    lm: LM
    judges: tuple[LM, ...]
    repeats: int

    @property
    def lms(self) -> tuple[LM, ...]:
        """Every model that is asked."""
        return (self.lm, *self.judges)

    @property
    def planned(self) -> int:
        return len(self.task.dev) * self.repeats * (1 + judge_calls(self.task))


class _Asked(Job):
    """A run that asks a released prompt."""

    after_interrupt = "interrupted; nothing was changed, the same command starts again"

    def __init__(self, asking: Asking, means: Means) -> None:
        super().__init__(asking.task, (asking.lm.name,), means)
        self._asking = asking

    @property
    def planned(self) -> int:
        return self._asking.planned

    async def _answers(self, recorded: Sequence[Sequence[Outcome]] = ()) -> list[list[Outcome]]:
        """What was answered to each row, each time. A judge that compares is told what was `recorded`."""
        asking, rows = self._asking, self._asking.task.dev
        judges = judge_builder(asking.task, asking.judges or (asking.lm,), self._gateway)
        metrics = build_metrics(asking.task, {"judge": judges})
        program = ReleasedProgram(asking.prompt, self.task, asking.lm)
        evaluator = Evaluator(
            self.task,
            self._gateway,
            asking.lm,
            metrics,
            [program],
            baseline_id=program.candidate.id,
        )
        for judge in evaluator.judges():
            for row, seen in zip(rows, recorded, strict=False):
                if first := next((each for each in seen if is_answer(each)), None):
                    judge.anchor(row, first.prediction)
        found = [await evaluator.outcomes(program.candidate, rows, "dev", repeat) for repeat in range(asking.repeats)]
        return [list(each) for each in zip(*found, strict=True)]

    def _told(self) -> dict[str, Any]:
        prompt = self._asking.prompt
        return {
            "kind": self.kind,
            "run_id": self.id,
            "name": prompt.name,
            "version": prompt.version,
            "model": self._asking.lm.name,
        }


class Check(_Asked):
    """One check against a suite."""

    command = kind = "check"
    done = "checked"

    def __init__(self, asking: Asking, suite: Suite, means: Means) -> None:
        super().__init__(asking, means)
        self._suite = suite

    async def work(self) -> dict[str, Any]:
        suite, asking = self._suite, self._asking
        recorded = suite.recorded(asking.prompt)
        found = await self._answers(recorded)
        told = verdict(suite.rows, recorded, found, asking.prompt.release.outputs, self._means.seed)
        now = told["steadiness"]["now"]
        if "actor" not in suite.note and now and now["agreement"] < 1:
            told["notes"].append(FLATTERED)
        reference = {"suite": suite.id, "model": suite.model, "version": suite.version, **suite.note}
        return {**self._told(), "reference": reference, **told, **self.cost(), "ledger_head": self._ledger.head()}

    def noted(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        keys = ("name", "version", "model", "reference", "gate", "why", "compared", "difference", "flip_test")
        return {key: result[key] for key in keys}


class Bless(_Asked):
    """Records what the prompt answers now as the reference of later checks."""

    command = kind = "bless"
    done = "blessed"

    def __init__(self, asking: Asking, path: Path, reason: str, actor: str, before: str, means: Means) -> None:
        super().__init__(asking, means)
        self._path, self._reason, self._actor, self._before = path, reason, actor, before

    async def work(self) -> dict[str, Any]:
        asking = self._asking
        found = await self._answers()
        unanswered = sum(not any(map(is_answer, seen)) for seen in found)
        if unanswered > UNANSWERED_AT_MOST * len(found):
            why = next(each.prediction.error for seen in found for each in seen if not is_answer(each))
            raise RunRefused(f"{unanswered} of {len(found)} rows got no answer, so nothing was recorded: {why}")
        secrets = rare_secrets_in(os.environ)
        samples = [[_masked(Sample.of(each), secrets) for each in seen] for seen in found]
        note = {"reason": self._reason, "actor": self._actor, "created_utc": utc_now(), "tool": tool_version()}
        suite = suite_of(asking.task, asking.prompt, asking.lm.name, samples, {**note, "run_id": self.id})
        write_suite(suite, self._path)
        values = [each.value for seen in found for each in seen[:1] if each.value is not None]
        mean, low, high = mean_ci(values) if values else (None, None, None)
        return {
            **self._told(),
            "path": str(self._path),
            "suite": suite.id,
            "before": self._before,
            "rows": len(found),
            "repeats": asking.repeats,
            "unanswered": unanswered,
            "score": {"mean": mean, "ci95": None if mean is None else [low, high], "n": len(values)},
            **note,
            **self.cost(),
            "ledger_head": self._ledger.head(),
        }

    def noted(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: result[key] for key in ("name", "version", "model", "suite", "before", "reason", "actor", "score")}


def _masked(sample: Sample, secrets: tuple[str, ...]) -> Sample:
    return replace(sample, reply=mask(sample.reply, secrets), error=mask(sample.error, secrets))
