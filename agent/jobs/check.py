"""Compare a released prompt with its recorded answers (check), or record new ones (bless), without the cache."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from agent.errors import InputError, RunRefused
from agent.evaluate.breakdown import is_answer, mean_of
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.evaluate.verdict import steady
from agent.jobs.locations import open_history, prompt_path
from agent.jobs.models import earlier_prices, whole_budget
from agent.jobs.registry import DB, Printed, job
from agent.jobs.released import AskedRelease, require_named, run_options, task_for, task_named, task_of_suite
from agent.jobs.session import Session
from agent.jobs.tasks import require_judging, with_judges
from agent.jobs.work import Work
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
from agent.release.suite import SUITE_FILE, Sample, Suite, read_suite, require_fit, suite_of, write_suite
from agent.release.texts import Loaded, Texts, load_released
from agent.report.checks import CheckNotDue, ChecksResult, checks_of, checks_page
from agent.report.html import write_page
from agent.results.checks import BlessResult, CheckResult, SuiteReference
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.task.by_name import find_task
from agent.task.judge_files import read_rubric
from agent.tracking.tracker import TRACKERS
from agent.types import Task

NOW, RECORDED = "now", "recorded"
"""The arms of a check."""
FLATTERED = (
    "the reference chose this prompt and answers vary, so it may flatter; record a fair one with `optimize bless`"
)
UNANSWERED_AT_MOST = 0.5
"""Share of the rows; with more unanswered, nothing is recorded."""
CONTINUES = "interrupted; nothing was changed, and the same command continues"


class CheckOutput(JobOptions):
    """What a check shows and writes."""

    every: Time = option(None, group=OUTPUT, metavar="TIME", everyday=True)
    """For schedulers: do nothing and exit 0 if the last check of this version on this model began less than TIME ago
    (12h, 1d)."""
    history: bool = option(False, "Show the checks of this prompt so far; call nothing.", OUTPUT)
    page: File = option(None, "With {history}: also write them as an HTML page with a chart.", OUTPUT, metavar="FILE")
    junit: File = option(None, "Write the result as JUnit XML.", OUTPUT, metavar="FILE")
    markdown: File = option(None, "Write the result as Markdown.", OUTPUT, metavar="FILE")


@job("check", asks="checking the prompt", tracks=True, registries={"track": TRACKERS})
def check(
    prompt: str, options: CheckOptions, output: CheckOutput, db: Path = DB
) -> Work[CheckResult] | Printed[ChecksResult] | CheckNotDue:
    """Run a released PROMPT on its regression suite; exit 100 on regression.

    PROMPT is the path of a prompt.md or texts.json, or the id of a run. Without suite.json next to it (`optimize bless`
    writes one) the suite is the dev rows, as scored by the prompt's run. For texts.json your own agent runs again, as
    its task folder says. The gate fails if the score fell significantly, or if more answers changed than repeat noise
    explains; repeat noise alone fails at most 5 % of all checks. The model is asked again; cached replies are not used.
    """
    if output.page is not None and not output.history:
        raise InputError("--page goes with --history")
    path = prompt_path(prompt, db)
    loaded = load_released(path)
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
    task = _task_of(suite, loaded, options.task, path, db)
    asked = AskedRelease.of(loaded, path, db, name, task.judges, task)
    if early := _not_due(loaded, asked.lm.name, output.every, db):
        return early

    async def perform(asking: Session[CheckResult]) -> CheckResult:
        table = await _scored(asking, asked, options.repeats, Recorded.of_suite(suite, loaded))
        found = steady(table, NOW, RECORDED, loaded.release.outputs, options.seed).figures
        now = found.steadiness.now
        if "actor" not in suite.note and now and now.agreement < 1:
            found = found.model_copy(update={"notes": (*found.notes, FLATTERED)})
        reference = SuiteReference(suite=suite.id, model=suite.model, version=suite.version, **suite.note)
        return CheckResult(**asked.head(asking), reference=reference, **dict(found), **asking.spent())

    def ended(result: CheckResult) -> int:
        if output.junit:
            write_text(output.junit, as_junit(result, [row.id for row in suite.rows]))
        if output.markdown:
            write_text(output.markdown, as_markdown(result))
        return 0 if result.passed else 100

    chained = ("name", "version", "model", "reference", "gate", "why", "compared", "difference", "flip_test")
    work = _work("check", perform, asked, task, options, (suite.model, *suite.judges), db)
    return replace(work, chained=chained, seed=options.seed, ended=ended)


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
    loaded = load_released(path)
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
    asked = AskedRelease.of(loaded, path, db, name, task.judges, task)

    async def perform(asking: Session[BlessResult]) -> BlessResult:
        table = await _scored(asking, asked, options.repeats)
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
            **asked.head(asking),
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
    work = _work("bless", perform, asked, task, options, (loaded.model, *recorded_by), db)
    return replace(work, chained=chained)


def _work(
    kind: Literal["check", "bless"],
    perform: Callable[[Session[Any]], Awaitable[Any]],
    asked: AskedRelease,
    task: Task,
    options: CheckOptions | BlessOptions,
    recorded_by: Sequence[str],
    db: Path,
) -> Work[Any]:
    rows = len(task.dev)
    planned = asked.calls(rows, options.repeats) + rows * options.repeats * judge_calls(task)
    done = "checked" if kind == "check" else "blessed"
    budget = whole_budget(options, planned, "this check" if kind == "check" else "to record this suite")
    embedding = asked.embedding.name if asked.embedding else ""
    prices = earlier_prices(run_options(asked.prompt, db), *recorded_by, embedding)
    # no cache: old replies say nothing about the model of today
    more: dict[str, Any] = {"prices": prices, "use_cache": False, "after_interrupt": CONTINUES}
    more["programs"] = [asked.program] if asked.program else []
    return Work(kind, done, perform, task, asked.lms, options, planned, budget, **more)


async def _scored(
    asking: Session[Any], asked: AskedRelease, repeats: int, recorded: Recorded | None = None
) -> ScoreTable:
    task, rows = asking.task, asking.task.dev
    metrics = build_metrics(task, {"judge": judge_builder(task, asked.judges or (asked.lm,), asking.gateway)})
    evaluator, candidate, _ = await asked.evaluator(asking, rows, metrics)
    arms = [Arm(NOW, candidate, evaluator)]
    if recorded is not None:
        arms.append(recorded.arm(RECORDED))
        for judge, row in itertools.product(evaluator.judges(), rows):
            if first := next(filter(is_answer, recorded.answers.get(row.id, ())), None):
                judge.anchor(row, first.prediction)
    return await score(asking, arms, rows, repeats=repeats)


def _require_typed(
    source: Path, named: set[str], model: str, judges: Sequence[str], options: CheckOptions | BlessOptions, db: Path
) -> None:
    typed = {options.model, *options.judge}
    judging = [each for each in judges if each not in typed]
    require_named(source, named, {"--model": [] if options.model else [model], "--judge": judging}, db)


def suite_beside(path: Path, prompt: Loaded, named: Path | None) -> Suite | None:
    """Return the named suite, else the one next to the prompt, if any."""
    file = named or path.with_name(SUITE_FILE)
    if named is None and not file.exists():
        return None
    recorded = read_suite(file)
    require_fit(recorded, prompt, str(file))
    return recorded


def _suite_in_run(prompt: Loaded, task: Task, db: Path) -> Suite:
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


def _task_of(suite: Suite, prompt: Loaded, task: str | None, path: Path, db: Path) -> Task:
    rubrics = {name: read_rubric(text, name) for name, text in suite.rubrics.items()}
    if isinstance(prompt, Texts):  # only the user's own task says which program runs
        own: dict[str, Any] = {"dev": suite.rows, "train": (), "test": (), "hashes": {"suite": suite.id}}
        own |= {"metrics": suite.metrics, "judges": suite.judges, "rubrics": rubrics}
        return with_judges(replace(task_for(prompt, task, db), name=suite.name, model=suite.model, **own))
    folder = path.parent
    if any(spec.name == "python" for spec in suite.metrics):
        folder = task_folder(suite.name, prompt, task, db)
    return with_judges(task_of_suite(suite, prompt, folder, rubrics))


def task_folder(name: str, prompt: Loaded, given: str | None, db: Path) -> Path:
    """Return the task given, of the prompt's run, or of that name under tasks/."""
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


def _not_due(prompt: Loaded, model: str, every: Any, db: Path) -> CheckNotDue | None:
    if every is None or not is_there(db):
        return None
    with closing(open_history(db)) as history:
        done = checks_of(history, prompt.name, prompt.version, model)
    due = done[-1].began + timedelta(seconds=every) if done else None
    if due is None or due <= datetime.now(UTC):
        return None
    return CheckNotDue(due_utc=due.isoformat(timespec="seconds"), last=done[-1])
