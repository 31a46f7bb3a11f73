"""Compare a released prompt with its recorded answers (check), or record new ones (bless).

Both ask the model again instead of reading the cache, since old replies say nothing about the model of today; the calls
are budgeted and recorded like all others. The sealed test is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.errors import InputError, RunRefused
from agent.evaluate.breakdown import is_answer, mean_of
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.evaluate.verdict import steady
from agent.gateway.embedding import Embedder
from agent.jobs.embeddings import model_of_prompt
from agent.jobs.locations import models_of, open_history, prompt_path, require_named, run_options, task_for
from agent.jobs.models import earlier_prices, whole_budget
from agent.jobs.registry import DB, Printed, job
from agent.jobs.released import head, released, task_of_suite
from agent.jobs.session import Session, Work
from agent.jobs.tasks import find_task, require_judging, task_named
from agent.ledger.connect import is_there
from agent.ledger.provenance import tool_version, user, utc_now
from agent.ledger.query import is_erased
from agent.options.jobs import BlessOptions, CheckOptions
from agent.options.kinds import File, Time
from agent.options.option import JobOptions, option
from agent.options.shared import OUTPUT
from agent.programs.recorded import Recorded
from agent.prompt.parts.adapter import in_folder, named_models, without_folder
from agent.redact import rare_secrets_in
from agent.release.check_report import as_junit, as_markdown, require_place, write_text
from agent.release.runtime import Prompt, load_prompt
from agent.release.suite import SUITE_FILE, Sample, Suite, read_suite, require_fit, suite_of, write_suite
from agent.report.checks import CheckNotDue, ChecksResult, checks_of, checks_page
from agent.report.html import write_page
from agent.results.checks import BlessResult, CheckResult, SuiteReference
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.task.judge_files import read_rubric
from agent.tracking.tracker import TRACKERS
from agent.types import LM, Task

NOW, RECORDED = "now", "recorded"
"""The arms of a check."""
FLATTERED = (
    "the reference is what its run scored on dev, by which this prompt was chosen; the answers vary, so it may "
    "flatter: record a fair one with `optimize bless`"
)
UNANSWERED_AT_MOST = 0.5
"""Share of the rows; with more unanswered, nothing is recorded."""
CONTINUES = "interrupted; nothing was changed, and the same command continues"


class CheckOutput(JobOptions):
    """What a check shows and writes."""

    every: Time = option(
        None,
        "For schedulers: do nothing and end with 0 where the last check of this version on this model began less than "
        "TIME ago (12h, 1d).",
        OUTPUT,
        metavar="TIME",
    )
    history: bool = option(False, "Show the checks of this prompt so far, and ask nothing.", OUTPUT)
    page: File = option(None, "With {history}: also write them as an HTML page with a chart.", OUTPUT, metavar="FILE")
    junit: File = option(None, "Write the result as JUnit XML.", OUTPUT, metavar="FILE")
    markdown: File = option(None, "Write the result as Markdown.", OUTPUT, metavar="FILE")


@job("check", asks="checking the prompt", tracks=True, registries={"track": TRACKERS})
def check(
    prompt: str, options: CheckOptions, output: CheckOutput, db: Path = DB
) -> Work[CheckResult] | Printed[ChecksResult] | CheckNotDue:
    """Run a released PROMPT on its regression suite; exit 100 on regression.

    PROMPT is the path of a prompt.md or the id of a run. Without suite.json next to it (`optimize bless` writes one)
    the suite is the dev rows, as scored by the prompt's run. The gate fails if the score fell significantly, or if more
    answers changed than repeat noise explains; repeat noise alone fails at most 5 % of all checks. The model is asked
    again; cached replies are not used.
    """
    if output.page is not None and not output.history:
        raise InputError("--page goes with --history")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    if output.history:
        return _history(loaded.name, options.model, output.page, db)
    for flag, place in (("--junit", output.junit), ("--markdown", output.markdown)):
        if place is not None:
            require_place(place, flag)
    source, named = path, named_models(loaded.release)
    if (found := suite_beside(path, loaded, options.suite)) is not None:
        source, named = options.suite or path.with_name(SUITE_FILE), {*named, found.model, *found.judges}
    suite = found or _suite_in_run(loaded, task_for(loaded, options.task, db), db)
    if other := [each for each in options.judge if each not in suite.judges]:
        judges = ", ".join(suite.judges) or "no judge"
        raise InputError(
            f"--judge {', '.join(other)}: recorded are scores of {judges}; another one "
            "needs a new record: optimize bless PROMPT --judge NAME --reason WHY"
        )
    name = options.model or in_folder(loaded.release, suite.model)
    _require_typed(source, named, name, suite.judges, options, db)
    asked = _Asked.of(loaded, path, _task_of(suite, loaded, options.task, path, db), name, options, db)
    if early := _not_due(loaded, asked.lm.name, output.every, db):
        return early

    async def perform(asking: Session[CheckResult]) -> CheckResult:
        table = await asked.score(asking, Recorded.of_suite(suite, loaded))
        found = steady(table, NOW, RECORDED, loaded.release.outputs, options.seed).figures
        now = found.steadiness.now
        if "actor" not in suite.note and now and now.agreement < 1:
            found = found.model_copy(update={"notes": (*found.notes, FLATTERED)})
        reference = SuiteReference(suite=suite.id, model=suite.model, version=suite.version, **suite.note)
        return CheckResult(**head(asking, loaded), reference=reference, **dict(found), **asking.spent())

    def ended(result: CheckResult) -> int:
        if output.junit:
            write_text(output.junit, as_junit(result, [row.id for row in suite.rows]))
        if output.markdown:
            write_text(output.markdown, as_markdown(result))
        return 0 if result.passed else 100

    chained = ("name", "version", "model", "reference", "gate", "why", "compared", "difference", "flip_test")
    prices = asked.prices(suite.model, suite.judges, db)
    work = asked.work("check", "checked", perform, "this check", chained=chained, prices=prices)
    return replace(work, seed=options.seed, ended=ended)


@job("bless", asks="recording the reference", required=("reason",))
def bless(prompt: str, options: BlessOptions, db: Path = DB) -> Work[BlessResult]:
    """Record what a released PROMPT answers now as the regression suite of `optimize check`.

    The suite is suite.json next to the prompt; the reason is written to the audit chain. The rows are those of the
    existing suite, else the dev rows of the prompt's task; never those of the sealed test. With --repeats above 1,
    repeat noise is measured, too.
    """
    if not (reason := options.reason.strip()):
        raise InputError("--reason: say why, in a few words; it is kept with the suite")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    file = options.suite or path.with_name(SUITE_FILE)
    before = read_suite(file) if file.exists() else None
    if before and not options.task:
        require_fit(before, loaded, str(file))
        task = _task_of(before, loaded, options.task, path, db)
    else:
        task = task_for(loaded, options.task, db)
    task, recorded_by = replace(task, dev=task.dev[: options.limit]), task.judges
    if options.judge:
        require_judging(task)
        task = replace(task, judges=tuple(options.judge))
    name = options.model or (in_folder(loaded.release, before.model) if before else loaded.model)
    own = () if before is None else (before.model, *(() if options.task else before.judges))
    _require_typed(file if before else path, {*named_models(loaded.release), *own}, name, task.judges, options, db)
    actor = options.actor or user()
    asked = _Asked.of(loaded, path, task, name, options, db)

    async def perform(asking: Session[BlessResult]) -> BlessResult:
        table = await asked.score(asking)
        answers = list(table.answers(NOW).values())
        unanswered = sum(not any(map(is_answer, row)) for row in answers)
        if unanswered > UNANSWERED_AT_MOST * len(answers):
            why = next(each.prediction.error for row in answers for each in row if not is_answer(each))
            raise RunRefused(f"{unanswered} of {len(answers)} rows got no answer, so nothing was recorded: {why}")
        secrets = rare_secrets_in(os.environ)
        samples = [[Sample.of(each).without(secrets) for each in row] for row in answers]
        note: dict[str, Any] = {"reason": reason, "actor": actor, "created_utc": utc_now(), "tool": tool_version()}
        model = without_folder(loaded.release, asked.lm.name)
        suite = suite_of(task, loaded, model, samples, {**note, "run_id": asking.id})
        write_suite(suite, file)
        return BlessResult(
            **head(asking, loaded),
            path=str(file),
            suite=suite.id,
            before=before.id if before else "",
            rows=len(answers),
            repeats=options.repeats,
            unanswered=unanswered,
            score=mean_of([each.value for each in table.first(NOW) if each.value is not None]),
            **note,
            **asking.spent(),
        )

    chained = ("name", "version", "model", "suite", "before", "reason", "actor", "score")
    prices = asked.prices(loaded.model, recorded_by, db)
    return asked.work("bless", "blessed", perform, "to record this suite", chained=chained, prices=prices)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A released prompt and the rows that it is asked: those of dev of a task."""

    prompt: Prompt
    task: Task
    options: CheckOptions | BlessOptions
    lm: LM
    judges: tuple[LM, ...]
    embedding: LM | None

    @staticmethod
    def of(prompt: Prompt, path: Path, task: Task, name: str, options: CheckOptions | BlessOptions, db: Path) -> _Asked:
        lm, judges = models_of(name, task.judges, prompt)
        return _Asked(prompt, task, options, lm, judges, model_of_prompt(prompt, path, db))

    def prices(self, model: str, judges: Sequence[str], db: Path) -> dict[str, Any]:
        embedding = [self.embedding.name] if self.embedding else []
        return earlier_prices(run_options(self.prompt, db), model, *judges, *embedding)

    def work(
        self, kind: str, done: str, perform: Callable[[Session[Any]], Awaitable[Any]], what: str, **more: Any
    ) -> Work[Any]:
        rows = len(self.task.dev)
        planned = rows * self.options.repeats * (1 + judge_calls(self.task))
        planned += Embedder.calls(rows) if self.embedding else 0
        lms = [self.lm, *self.judges, *([self.embedding] if self.embedding else [])]
        budget = whole_budget(self.options, planned, what)
        more |= {"use_cache": False, "after_interrupt": CONTINUES}
        return Work(kind, done, perform, self.task, lms, self.options, planned, budget, **more)

    async def score(self, asking: Session[Any], recorded: Recorded | None = None) -> ScoreTable:
        rows, judges = self.task.dev, judge_builder(self.task, self.judges or (self.lm,), asking.gateway)
        metrics = build_metrics(self.task, {"judge": judges})
        evaluator, candidate, _ = await released(asking, self.prompt, self.lm, self.embedding, rows, metrics)
        arms = [Arm(NOW, candidate, evaluator)]
        if recorded is not None:
            arms.append(recorded.arm(RECORDED))
            for judge in evaluator.judges():
                for row in rows:
                    if first := next(filter(is_answer, recorded.answers.get(row.id, ())), None):
                        judge.anchor(row, first.prediction)
        return await score(asking, arms, rows, repeats=self.options.repeats)


def _require_typed(
    source: Path, named: set[str], model: str, judges: Sequence[str], options: CheckOptions | BlessOptions, db: Path
) -> None:
    typed = {options.model, *options.judge}
    judging = [each for each in judges if each not in typed]
    require_named(source, named, {"--model": [] if options.model else [model], "--judge": judging}, db)


def suite_beside(path: Path, prompt: Prompt, named: Path | None) -> Suite | None:
    """Return the named suite, else the one next to the prompt, if any."""
    file = named or path.with_name(SUITE_FILE)
    if named is None and not file.exists():
        return None
    recorded = read_suite(file)
    require_fit(recorded, prompt, str(file))
    return recorded


def _suite_in_run(prompt: Prompt, task: Task, db: Path) -> Suite:
    provenance = prompt.provenance
    run_id, candidate_id = str(provenance.get("run_id", "")), str(provenance.get("candidate_id", ""))
    hint = "record its answers first: optimize bless PROMPT --reason WHY"
    if not run_id or not db.is_file():
        raise InputError(f"{prompt.name}: no suite.json next to it, and no run of it in {db}; {hint}")
    if task.is_compared:
        raise InputError(f"{prompt.name}: its judge compares with another prompt's answers; {hint}")
    if task.hashes.get("dev") != provenance.get("hashes", {}).get("dev"):
        raise InputError(f"{task.folder}: the dev rows are not those that the prompt was scored on; {hint}")
    with closing(open_history(db)) as history:
        found = [row for row in history.outcomes(run_id, candidate_id, "dev") if not is_erased(row)]
    answers = Recorded.of_ledger(candidate_id, found).answers
    rows = tuple(row for row in task.dev if row.id in answers)
    if not rows:
        raise InputError(f"{db}: holds no answers of {prompt.name} ({candidate_id}) to dev rows; {hint}")
    is_calibrated = prompt.release.reads_tokens
    samples = [[Sample.of(each, is_calibrated) for each in answers[row.id]] for row in rows]
    note = {"run_id": run_id, "reason": "the dev rows as its own run scored them"}
    return suite_of(replace(task, dev=rows), prompt, prompt.model, samples, note)


def _task_of(suite: Suite, prompt: Prompt, task: str | None, path: Path, db: Path) -> Task:
    rubrics = {name: read_rubric(text, name) for name, text in suite.rubrics.items()}
    folder = path.parent
    if any(spec.name == "python" for spec in suite.metrics):
        folder = task_folder(suite.name, prompt, task, db)
    return task_of_suite(suite, prompt, folder, rubrics)


def task_folder(name: str, prompt: Prompt, given: str | None, db: Path) -> Path:
    """Return the given task, else the user's task of that name: of the prompt's run, or under tasks/."""
    if given:
        return find_task(given)
    with suppress(InputError):
        if name == prompt.name and (own := run_options(prompt, db)):
            return find_task(own.task)
    return task_named(name)


# -- checks so far ----------------------------------------------------------------------------------------------------


def _history(name: str, model: str | None, page: Path | None, db: Path) -> Printed[ChecksResult]:
    with closing(open_history(db)) as history:
        found = checks_of(history, name, model=model or "")
    if found and page is not None:
        write_page(page, checks_page(name, found))
    none = f"no finished check of {name}{f' on {model}' * bool(model)}; `optimize check PROMPT` makes one"
    notes = [f"wrote {page}"] * bool(page) if found else [f"{none}; {page} was not written" if page else none]

    return Printed(ChecksResult(name=name, checks=tuple(found)), notes=notes)


def _not_due(prompt: Prompt, model: str, every: Any, db: Path) -> CheckNotDue | None:
    if every is None or not is_there(db):
        return None
    with closing(open_history(db)) as history:
        done = checks_of(history, prompt.name, prompt.version, model)
    due = done[-1].began + timedelta(seconds=every) if done else None
    if due is None or due <= datetime.now(UTC):
        return None
    return CheckNotDue(due_utc=due.isoformat(timespec="seconds"), last=done[-1])
