"""A released prompt against what was recorded of it: asked again (check), recorded anew (bless), or by a log (monitor).

Check and bless ask the model afresh, since a reply out of the ledger would say nothing of the model as it is today; the
calls are budgeted and written down like all others. The sealed test is never touched. A log of production is compared
without a call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import InputError, RunRefused
from agent.evaluate.evaluator import Evaluator
from agent.gateway.embedding import Embedder
from agent.ledger.provenance import tool_version, user, utc_now
from agent.options.jobs import BlessOptions, CheckOptions
from agent.programs.released import ReleasedProgram
from agent.redact import mask, rare_secrets_in
from agent.release.adapted_model import brought, in_folder, without_folder
from agent.release.production_logs import compare_windows, window_of_log, window_of_suite
from agent.release.regression import mean_of, verdict
from agent.release.runtime import Prompt, load_prompt
from agent.release.suite import SUITE_FILE, Sample, Suite, is_answer, read_suite, require_fit, suite_of, write_suite
from agent.results.checks import BlessResult, CheckResult, SuiteReference
from agent.results.production import MonitorResult
from agent.run.embeddings import embedder_of, model_of_prompt
from agent.run.job import Job, R, Resources
from agent.run.launch import earlier_prices, whole_budget
from agent.run.locations import (
    metric_folder,
    models_of,
    prompt_path,
    require_named,
    rubrics_of,
    run_options,
    suite_in_run,
    task_folder,
    task_for,
)
from agent.run.session import PreparedJob
from agent.run.tasks import find_task, require_judging
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.task.load import load_task
from agent.types import LM, Drift, Outcome, Task

FLATTERED = (
    "the reference is what its run scored on dev, by which this prompt was chosen; the answers vary, so it may "
    "flatter: record a fair one with `optimize bless`"
)
UNANSWERED_AT_MOST = 0.5
"""Of the rows; with more there is nothing to record."""


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What to ask: the prompt on the dev rows of the task, `repeats` times each."""

    prompt: Prompt
    task: Task
    lm: LM
    judges: tuple[LM, ...]
    repeats: int
    embedder: LM | None = None

    @property
    def lms(self) -> tuple[LM, ...]:
        """Every model that is asked."""
        return (self.lm, *self.judges, *([self.embedder] if self.embedder else []))

    @property
    def calls(self) -> int:
        """How many calls it takes at most."""
        embedding = Embedder.calls(len(self.task.dev)) if self.embedder else 0
        return len(self.task.dev) * self.repeats * (1 + judge_calls(self.task)) + embedding


class _PromptJob(Job[R]):
    """A run that asks a released prompt."""

    after_interrupt = "interrupted; nothing was changed, the same command starts again"

    def __init__(self, plan: CheckPlan, resources: Resources) -> None:
        super().__init__(plan.task, (plan.lm.name,), resources)
        self._plan = plan

    @property
    def planned(self) -> int:
        return self._plan.calls

    async def _answers(self, recorded: Sequence[Sequence[Outcome]] = ()) -> list[list[Outcome]]:
        """The outcomes of each row, one for each time. A judge that compares sees what was `recorded`."""
        plan, rows = self._plan, self._plan.task.dev
        judges = judge_builder(plan.task, plan.judges or (plan.lm,), self._gateway)
        metrics = build_metrics(plan.task, {"judge": judges})
        embedder = await embedder_of(plan.prompt, self._gateway, plan.embedder, rows)
        program = ReleasedProgram(plan.prompt, self.task, plan.lm, embedder)
        base = program.candidate.id
        evaluator = Evaluator(self.task, self._gateway, plan.lm, metrics, [program], baseline_id=base)
        for judge in evaluator.judges():
            for row, seen in zip(rows, recorded, strict=False):
                if first := next((each for each in seen if is_answer(each)), None):
                    judge.anchor(row, first.prediction)
        asked = [partial(evaluator.outcomes, program.candidate, rows, "dev", each) for each in range(plan.repeats)]
        passes = await self._sets(asked, in_turn=plan.task.is_compared)
        return [list(each) for each in zip(*passes, strict=True)]

    def _head(self) -> dict[str, Any]:
        prompt = self._plan.prompt
        return {
            "run_id": self.id,
            "name": prompt.name,
            "version": prompt.version,
            "model": self._plan.lm.name,
        }


class PromptCheck(_PromptJob[CheckResult]):
    """One check against a suite."""

    command = kind = "check"
    done = "checked"
    chained = ("name", "version", "model", "reference", "gate", "why", "compared", "difference", "flip_test")

    def __init__(self, plan: CheckPlan, suite: Suite, resources: Resources) -> None:
        super().__init__(plan, resources)
        self._suite = suite

    async def work(self) -> CheckResult:
        suite, prompt = self._suite, self._plan.prompt
        recorded = suite.recorded(prompt)
        answers = await self._answers(recorded)
        found = verdict(suite.rows, recorded, answers, prompt.release.outputs, self._resources.seed)
        now = found.steadiness.now
        if "actor" not in suite.note and now and now.agreement < 1:
            found = found.model_copy(update={"notes": (*found.notes, FLATTERED)})
        reference = SuiteReference(suite=suite.id, model=suite.model, version=suite.version, **suite.note)
        return CheckResult(**self._head(), reference=reference, **dict(found), **self.spent())


class SuiteRecording(_PromptJob[BlessResult]):
    """Records what the prompt answers now as the reference of later checks."""

    command = kind = "bless"
    done = "blessed"
    chained = ("name", "version", "model", "suite", "before", "reason", "actor", "score")

    def __init__(self, plan: CheckPlan, path: Path, reason: str, actor: str, before: str, resources: Resources) -> None:
        super().__init__(plan, resources)
        self._path, self._reason, self._actor, self._before = path, reason, actor, before

    async def work(self) -> BlessResult:
        plan, answers = self._plan, await self._answers()
        unanswered = sum(not any(map(is_answer, row)) for row in answers)
        if unanswered > UNANSWERED_AT_MOST * len(answers):
            why = next(each.prediction.error for row in answers for each in row if not is_answer(each))
            raise RunRefused(f"{unanswered} of {len(answers)} rows got no answer, so nothing was recorded: {why}")
        secrets = rare_secrets_in(os.environ)
        samples = [[_masked(Sample.of(each), secrets) for each in row] for row in answers]
        note: dict[str, Any] = {"reason": self._reason, "actor": self._actor}
        note |= {"created_utc": utc_now(), "tool": tool_version()}
        model = without_folder(plan.prompt.release, plan.lm.name)
        suite = suite_of(plan.task, plan.prompt, model, samples, {**note, "run_id": self.id})
        write_suite(suite, self._path)
        values = [each.value for row in answers for each in row[:1] if each.value is not None]
        return BlessResult(
            **self._head(),
            path=str(self._path),
            suite=suite.id,
            before=self._before,
            rows=len(answers),
            repeats=plan.repeats,
            unanswered=unanswered,
            score=mean_of(values),
            **note,
            **self.spent(),
        )


def _masked(sample: Sample, secrets: tuple[str, ...]) -> Sample:
    return replace(sample, reply=mask(sample.reply, secrets), error=mask(sample.error, secrets))


# -- from the words of a command ---------------------------------------------------------------------------------------


def prepare_check(prompt: str, options: CheckOptions, db: Path) -> tuple[PreparedJob[CheckResult], Suite]:
    """Finds the prompt and what was recorded of it, and checks that it can be asked again; calls nothing.

    Args:
        prompt: the path of a prompt.md, NAME@ALIAS, NAME@VERSION, or the id of a run.
        options: of the check.
        db: the ledger.

    Returns:
        The check, and what was recorded.

    Raises:
        InputError: something of it is missing or does not fit.
        ReleaseError: the prompt or the suite is damaged.
    """
    model, judge, task, suite = options.model, options.judge, options.task, options.suite
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    own = brought(loaded.release)
    recorded = _read(path, loaded, suite)
    if recorded is not None:
        source, named = suite or path.with_name(SUITE_FILE), {*own, recorded.model, *recorded.judges}
    else:
        recorded = suite_in_run(loaded, task_for(loaded, task, db), db)
        source, named = path, own
    if other := [each for each in judge if each not in recorded.judges]:
        judges = ", ".join(recorded.judges) or "no judge"
        raise InputError(
            f"--judge {', '.join(other)}: recorded are scores of {judges}; another one "
            "needs a new record: optimize bless PROMPT --judge NAME --reason WHY"
        )
    name, typed = model or in_folder(loaded.release, recorded.model), {model, *judge}
    judging = [each for each in recorded.judges if each not in typed]
    require_named(source, named, {"--model": [] if model else [name], "--judge": judging}, db)
    asked = recorded.task(loaded, metric_folder(recorded, loaded, task, path, db), rubrics_of(recorded))
    embedder = model_of_prompt(loaded, path, db)
    plan = CheckPlan(loaded, asked, *models_of(name, recorded.judges, loaded), options.repeats, embedder)
    budget = whole_budget(options, plan.calls, "this check")
    job = PreparedJob(
        lambda resources: PromptCheck(plan, recorded, resources),
        plan.lms,
        budget,
        use_cache=False,
        prices=earlier_prices(run_options(loaded, db), recorded.model, *recorded.judges, *_names(embedder)),
        seed=options.seed,
    )
    return job, recorded


def prepare_bless(prompt: str, options: BlessOptions, db: Path) -> PreparedJob[BlessResult]:
    """Finds the prompt and the rows to record, and checks that they can be asked; calls nothing.

    The rows are those of the suite that is there, else the dev rows of the prompt's task, or of `task`.

    Args:
        prompt: the path of a prompt.md, NAME@ALIAS, NAME@VERSION, or the id of a run.
        options: of the recording.
        db: the ledger.

    Raises:
        InputError: something of it is missing or does not fit.
        ReleaseError: the prompt or the suite is damaged.
    """
    reason, model, judge, task = options.reason.strip(), options.model, options.judge, options.task
    if not reason:
        raise InputError("--reason: say why, in a few words; it is kept with the suite")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    file = options.suite or path.with_name(SUITE_FILE)
    before = read_suite(file) if file.exists() else None
    if before and not task:
        require_fit(before, loaded, str(file))
        asked = before.task(loaded, metric_folder(before, loaded, task, path, db), rubrics_of(before))
    else:
        asked = task_for(loaded, task, db)
    asked = replace(asked, dev=asked.dev[: options.limit])
    embedder = model_of_prompt(loaded, path, db)
    prices = earlier_prices(run_options(loaded, db), loaded.model, *asked.judges, *_names(embedder))
    if judge:
        require_judging(asked)
        asked = replace(asked, judges=tuple(judge))
    name = model or (in_folder(loaded.release, before.model) if before else loaded.model)
    typed = {model, *judge}
    named = {*brought(loaded.release), *((before.model, *([] if task else before.judges)) if before else ())}
    judging = [each for each in asked.judges if each not in typed]
    source = file if before else path
    require_named(source, named, {"--model": [] if model else [name], "--judge": judging}, db)
    plan = CheckPlan(loaded, asked, *models_of(name, asked.judges, loaded), options.repeats, embedder)
    budget = whole_budget(options, plan.calls, "to record this suite")
    replaced, actor = before.id if before else "", options.actor or user()

    def make(resources: Resources) -> SuiteRecording:
        return SuiteRecording(plan, file, reason, actor, replaced, resources)

    return PreparedJob(make, plan.lms, budget, use_cache=False, prices=prices)


def _names(lm: LM | None) -> list[str]:
    return [lm.name] if lm else []


def compare_log(
    prompt: str,
    log: Path,
    reference: Path | None,
    suite: Path | None,
    task: str | None,
    alpha: float | None,
    seed: int,
    columns: Mapping[str, str],
    db: Path,
) -> MonitorResult:
    """Compares answers of production with those of the reference.

    Args:
        prompt: the path of a prompt.md, NAME@ALIAS, NAME@VERSION, or the id of a run.
        log: answers of production, .jsonl or .csv.
        reference: a log of good answers. None: the suite.
        suite: recorded answers. None: suite.json beside the prompt.
        task: whose limits hold. None: the prompt's own task, if it is here.
        alpha: false alarms of one look, in (0, 0.5]. None: as the task says.
        seed: of the permutation tests.
        columns: the names of keys of both logs that have others, by ours.
        db: the ledger.

    Raises:
        InputError: there is nothing to compare with, or a file cannot be read.
    """
    if reference and suite:
        raise InputError("--reference and --suite: give one of the two")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    if reference:
        was = window_of_log(reference, loaded, columns)
    else:
        recorded = _read(path, loaded, suite)
        if recorded is None:
            raise InputError(
                f"{path.with_name(SUITE_FILE)}: no recorded answers; record some with `optimize bless`, or give "
                "--reference FILE, a log of answers that were good"
            )
        was = window_of_suite(recorded, loaded)
    limits = _limits(loaded, task, db)
    if alpha:
        limits = replace(limits, alpha=alpha)
    return compare_windows(was, window_of_log(log, loaded, columns), loaded, limits, seed, str(log))


def _read(path: Path, prompt: Prompt, suite: Path | None) -> Suite | None:
    """The suite that is named, else the one beside the prompt, if there is one."""
    file = suite or path.with_name(SUITE_FILE)
    if suite is None and not file.exists():
        return None
    recorded = read_suite(file)
    require_fit(recorded, prompt, str(file))
    return recorded


def _limits(prompt: Prompt, task: str | None, db: Path) -> Drift:
    """The limits of the task that is named, else of the prompt's own, else the defaults."""
    try:
        folder = find_task(task) if task else task_folder(prompt.name, prompt, db)
    except InputError:
        if task:
            raise
        return Drift()
    return load_task(folder).monitor
