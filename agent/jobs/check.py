"""A released prompt against what was recorded of it: asked again (check), recorded anew (bless), or by a log (monitor).

Check and bless ask the model afresh, since a reply out of the ledger would say nothing of the model as it is today; the
calls are budgeted and written down like all others. The sealed test is never touched. A log of production is compared
without a call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from agent.errors import InputError, RunRefused
from agent.evaluate.score_table import Arm, score
from agent.gateway.embedding import Embedder
from agent.jobs.embeddings import model_of_prompt
from agent.jobs.launch import earlier_prices, whole_budget
from agent.jobs.locations import (
    models_of,
    open_history,
    prompt_path,
    require_named,
    run_options,
    task_for,
)
from agent.jobs.registry import DB, Printed, job, key_option
from agent.jobs.released import head, released
from agent.jobs.session import Session, Work
from agent.jobs.tasks import find_task, require_judging, task_named
from agent.ledger.connect import is_there
from agent.ledger.provenance import tool_version, user, utc_now
from agent.ledger.query import is_erased
from agent.options.jobs import BlessOptions, CheckOptions
from agent.options.kinds import File, Time
from agent.options.option import JobOptions, option
from agent.options.shared import OUTPUT
from agent.prompt.parts.adapter import brought, in_folder, without_folder
from agent.redact import mask, rare_secrets_in
from agent.release.production_logs import ab_report, compare_windows, read_outcomes, window_of_log, window_of_suite
from agent.release.regression import as_junit, as_markdown, mean_of, require_place, verdict, write_text
from agent.release.runtime import Prompt, load_prompt
from agent.release.suite import SUITE_FILE, Sample, Suite, is_answer, read_suite, require_fit, suite_of, write_suite
from agent.report.checks import checks_chart, checks_of, checks_page
from agent.report.html import write_page
from agent.report.terminal import print_listing, say
from agent.results.checks import AbResult, BlessResult, CheckResult, MonitorResult, SuiteReference
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.task.judge_files import read_rubric
from agent.task.load import load_task
from agent.tracking.tracker import TRACKERS
from agent.types import LM, Drift, Outcome, Task

FLATTERED = (
    "the reference is what its run scored on dev, by which this prompt was chosen; the answers vary, so it may "
    "flatter: record a fair one with `optimize bless`"
)
UNANSWERED_AT_MOST = 0.5
"""Of the rows; with more there is nothing to record."""


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
def check(prompt: str, options: CheckOptions, output: CheckOutput, db: Path = DB) -> Work[CheckResult] | Printed:
    """Ask a released PROMPT the rows of its suite again, and compare with what was recorded; 100 when it got worse.

    PROMPT is the path of a prompt.md or the id of a run. Without suite.json beside it (`optimize bless` writes one) the
    dev rows are taken, as its run in the ledger scored them. The gate fails when the score fell significantly, or when
    more answers changed than repeat noise explains; repeat noise alone fails it in at most 5 % of all checks. The model
    is asked afresh, not the ledger.
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
    source, named = path, brought(loaded.release)
    if (recorded := _suite(path, loaded, options.suite)) is not None:
        source, named = options.suite or path.with_name(SUITE_FILE), {*named, recorded.model, *recorded.judges}
    else:
        recorded = _suite_in_run(loaded, task_for(loaded, options.task, db), db)
    if other := [each for each in options.judge if each not in recorded.judges]:
        judges = ", ".join(recorded.judges) or "no judge"
        raise InputError(
            f"--judge {', '.join(other)}: recorded are scores of {judges}; another one "
            "needs a new record: optimize bless PROMPT --judge NAME --reason WHY"
        )
    name = options.model or in_folder(loaded.release, recorded.model)
    _require_typed(source, named, name, recorded.judges, options, db)
    task = _task_of(recorded, loaded, options.task, path, db)
    suite = recorded
    lms, planned, prices, asked = _plan(loaded, path, task, name, recorded.judges, recorded.model, options, db)
    if early := _not_due(loaded, lms[0].name, output.every, db):
        return early

    async def perform(asking: Session[CheckResult]) -> CheckResult:
        before = suite.recorded(loaded)
        answers = await asked(asking, before)
        found = verdict(suite.rows, before, answers, loaded.release.outputs, options.seed)
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

    return Work(
        "check",
        "checked",
        perform,
        task,
        lms,
        options,
        planned,
        whole_budget(options, planned, "this check"),
        chained=("name", "version", "model", "reference", "gate", "why", "compared", "difference", "flip_test"),
        use_cache=False,
        prices=prices,
        seed=options.seed,
        ended=ended,
    )


@job("bless", asks="recording the reference", required=("reason",))
def bless(prompt: str, options: BlessOptions, db: Path = DB) -> Work[BlessResult]:
    """Record what a released PROMPT answers now as the reference of `optimize check`, in suite.json beside it.

    The reason goes into the ledger's chain. The rows are those of the suite that is there, else the dev rows of the
    prompt's task; never those of the sealed test. Asked more than once, the answers also say what is repeat noise.
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
    _require_typed(file if before else path, {*brought(loaded.release), *own}, name, task.judges, options, db)
    actor = options.actor or user()
    lms, planned, prices, asked = _plan(loaded, path, task, name, recorded_by, loaded.model, options, db)

    async def perform(asking: Session[BlessResult]) -> BlessResult:
        answers = await asked(asking, ())
        unanswered = sum(not any(map(is_answer, row)) for row in answers)
        if unanswered > UNANSWERED_AT_MOST * len(answers):
            why = next(each.prediction.error for row in answers for each in row if not is_answer(each))
            raise RunRefused(f"{unanswered} of {len(answers)} rows got no answer, so nothing was recorded: {why}")
        secrets = rare_secrets_in(os.environ)
        samples = [[_masked(Sample.of(each), secrets) for each in row] for row in answers]
        note: dict[str, Any] = {"reason": reason, "actor": actor, "created_utc": utc_now(), "tool": tool_version()}
        model = without_folder(loaded.release, lms[0].name)
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
            score=mean_of([each.value for row in answers for each in row[:1] if each.value is not None]),
            **note,
            **asking.spent(),
        )

    return Work(
        "bless",
        "blessed",
        perform,
        task,
        lms,
        options,
        planned,
        whole_budget(options, planned, "to record this suite"),
        chained=("name", "version", "model", "suite", "before", "reason", "actor", "score"),
        use_cache=False,
        prices=prices,
    )


def _require_typed(
    source: Path, named: set[str], model: str, judges: Sequence[str], options: CheckOptions | BlessOptions, db: Path
) -> None:
    """Raises InputError for a model that only the file of the prompt or its suite names."""
    typed = {options.model, *options.judge}
    judging = [each for each in judges if each not in typed]
    require_named(source, named, {"--model": [] if options.model else [model], "--judge": judging}, db)


def _plan(
    prompt: Prompt,
    path: Path,
    task: Task,
    name: str,
    known_judges: Sequence[str],
    known: str,
    options: CheckOptions | BlessOptions,
    db: Path,
) -> tuple[list[LM], int, dict[str, Any], Any]:
    """The models, the calls, the prices that the prompt's run was given, and what asks the prompt all rows."""
    lm, judges = models_of(name, task.judges, prompt)
    embedding = model_of_prompt(prompt, path, db)
    calls = len(task.dev) * options.repeats * (1 + judge_calls(task))
    calls += Embedder.calls(len(task.dev)) if embedding else 0
    lms = [lm, *judges, *([embedding] if embedding else [])]
    names = [known, *known_judges, *([embedding.name] if embedding else [])]

    async def asked(asking: Session[Any], recorded: Sequence[Sequence[Outcome]]) -> list[list[Outcome]]:
        """The outcomes of each row, one for each time. A judge that compares sees what was `recorded`."""
        metrics = build_metrics(task, {"judge": judge_builder(task, judges or (lm,), asking.gateway)})
        evaluator, candidate, _ = await released(asking, prompt, lm, embedding, task.dev, metrics)
        for judge in evaluator.judges():
            for row, seen in zip(task.dev, recorded, strict=False):
                if first := next((each for each in seen if is_answer(each)), None):
                    judge.anchor(row, first.prediction)
        arm = Arm("now", candidate, evaluator)
        return (await score(asking, [arm], task.dev, repeats=options.repeats)).answers(arm.name)

    return lms, calls, earlier_prices(run_options(prompt, db), *names), asked


def _masked(sample: Sample, secrets: tuple[str, ...]) -> Sample:
    return replace(sample, reply=mask(sample.reply, secrets), error=mask(sample.error, secrets))


def _suite(path: Path, prompt: Prompt, named: Path | None) -> Suite | None:
    """The suite that is named, else the one next to the prompt, if any."""
    file = named or path.with_name(SUITE_FILE)
    if named is None and not file.exists():
        return None
    recorded = read_suite(file)
    require_fit(recorded, prompt, str(file))
    return recorded


def _suite_in_run(prompt: Prompt, task: Task, db: Path) -> Suite:
    """What the prompt's own run has recorded of it on the dev rows. Raises InputError where there is nothing."""
    provenance = prompt.provenance
    run_id, candidate_id = str(provenance.get("run_id", "")), str(provenance.get("candidate_id", ""))
    hint = "record its answers first: optimize bless PROMPT --reason WHY"
    if not run_id or not db.is_file():
        raise InputError(f"{prompt.name}: no suite.json beside the prompt, and no ledger at {db} that knows it; {hint}")
    if task.is_compared:
        raise InputError(f"{prompt.name}: its judge compares with another prompt's answers; {hint}")
    if task.hashes.get("dev") != provenance.get("hashes", {}).get("dev"):
        raise InputError(f"{task.folder}: the dev rows are not those that the prompt was scored on; {hint}")
    with closing(open_history(db)) as history:
        seen = {row["example_id"]: row for row in history.outcomes(run_id, candidate_id, "dev")}
    rows = tuple(row for row in task.dev if row.id in seen and not is_erased(seen[row.id]))
    if not rows:
        raise InputError(f"{db}: holds no answers of {prompt.name} ({candidate_id}) to dev rows; {hint}")
    is_calibrated = prompt.release.reads_tokens
    samples = [[_recorded_sample(seen[row.id], is_calibrated)] for row in rows]
    note = {"run_id": run_id, "reason": "the dev rows as its own run scored them"}
    return suite_of(replace(task, dev=rows), prompt, prompt.model, samples, note)


def _recorded_sample(item: Mapping[str, Any], is_calibrated: bool) -> Sample:
    if is_calibrated and item["fields"]:  # a calibrated label reads as itself
        return Sample(str(next(iter(item["fields"].values()))), item["value"])
    if item["reply"] or item["value"] is not None:
        return Sample(item["reply"], item["value"])
    return Sample("", None, item["error"] or "no answer")


def _task_of(suite: Suite, prompt: Prompt, task: str | None, path: Path, db: Path) -> Task:
    """The task of a suite, with its rubrics and the folder of metric.py, if a metric needs it. Only a task that the
    user has is asked for that: a suite names no code."""
    rubrics = {name: read_rubric(text, name) for name, text in suite.rubrics.items()}
    folder = path.parent
    if any(spec.name == "python" for spec in suite.metrics):
        folder = find_task(task) if task else _task_folder(suite.name, prompt, db)
    return suite.task(prompt, str(folder), rubrics)


def _task_folder(name: str, prompt: Prompt, db: Path) -> Path:
    """The user's own task of that name: the one of the prompt's run in the ledger, or a folder under tasks/."""
    with suppress(InputError):
        if name == prompt.name and (own := run_options(prompt, db)):
            return find_task(own.task)
    return task_named(name)


# -- checks so far ----------------------------------------------------------------------------------------------------


def _history(name: str, model: str | None, page: Path | None, db: Path) -> Printed:
    """The finished checks of a prompt, of every version; the page is written where there is any."""
    with closing(open_history(db)) as history:
        found = checks_of(history, name, model=model or "")
    if found and page is not None:
        write_page(page, checks_page(name, found))
    none = f"no finished check of {name}{f' on {model}' * bool(model)}; `optimize check PROMPT` makes one"
    notes = [f"wrote {page}"] * bool(page) if found else [f"{none}; {page} was not written" if page else none]

    def show() -> None:
        if found:
            print_listing(checks_chart(name, found).table)

    return Printed({"name": name, "checks": [point.as_dict() for point in found]}, show, notes=notes)


def _not_due(prompt: Prompt, model: str, every: Any, db: Path) -> Printed | None:
    """What is shown where the last check of this version on this model began less than `every` seconds ago."""
    if every is None or not is_there(db):
        return None
    with closing(open_history(db)) as history:
        done = checks_of(history, prompt.name, prompt.version, model)
    due = done[-1].began + timedelta(seconds=every) if done else None
    if due is None or due <= datetime.now(UTC):
        return None
    last, when = done[-1], due.isoformat(timespec="seconds")
    said = f"{last.series}: checked at {last.utc[:16]} ({last.gate}), due again at {when}"
    found = {"kind": "check", "skipped": True, "due_utc": when, "last": last.as_dict()}
    return Printed(found, lambda: say(said))


# -- a log of production ----------------------------------------------------------------------------------------------


@job("monitor")
def monitor(
    prompt: str,
    log: Path,
    *,
    reference: File = option(None, "A log of good answers. Default: the suite."),
    suite: File = option(None, "Recorded answers. Default: suite.json beside PROMPT."),
    task: str | None = option(None, "Whose [monitor] limits hold. Default: the prompt's own task, if it is here."),
    alpha: float | None = option(
        None, "False alarms of one look, up to 0.5; over the task's.", metavar="RATE", gt=0, le=0.5
    ),
    seed: int = option(0, "For permutation tests.", metavar="N", ge=0, le=2**31 - 1),
    reply_column: str = key_option("reply"),
    inputs_column: str = key_option("inputs"),
    time_column: str = key_option("time"),
    score_column: str = key_option("score"),
    confidence_column: str = key_option("confidence"),
    db: Path = DB,
) -> MonitorResult | Printed:
    """Compare LOG, answers of production, with the reference answers of a released PROMPT; 100 when they drifted.

    LOG is a .jsonl or .csv file, a row for each answer: reply, and where known inputs, time, score and confidence (0 to
    1). Other keys are ignored, --reply-column and its like name these otherwise (of both logs), and rows that cannot be
    read are left out, with a note. Looked at are replies that cannot be read, the mix of labels, lengths, answers to
    inputs that come again, scores, and the share of answers below the confidence that the release names. An alarm needs
    a change that is significant, corrected for the number of tests, and as large as [monitor] in task.toml says. No
    model is asked.
    """
    columns = {
        "reply": reply_column,
        "inputs": inputs_column,
        "time": time_column,
        "score": score_column,
        "confidence": confidence_column,
    }
    if reference and suite:
        raise InputError("--reference and --suite: give one of the two")
    path = prompt_path(prompt, db)
    loaded = load_prompt(path)
    if reference:
        was = window_of_log(reference, loaded, columns)
    elif (recorded := _suite(path, loaded, suite)) is not None:
        was = window_of_suite(recorded, loaded)
    else:
        raise InputError(
            f"{path.with_name(SUITE_FILE)}: no recorded answers; record some with `optimize bless`, or give "
            "--reference FILE, a log of answers that were good"
        )
    limits = _limits(loaded, task, db)
    if alpha:
        limits = replace(limits, alpha=alpha)
    result = compare_windows(was, window_of_log(log, loaded, columns), loaded, limits, seed, str(log))
    return Printed(result, exit_code=100 if result.drift else 0)


def _limits(prompt: Prompt, task: str | None, db: Path) -> Drift:
    """The limits of the task that is named, else of the prompt's own, else the defaults."""
    try:
        folder = find_task(task) if task else _task_folder(prompt.name, prompt, db)
    except InputError:
        if task:
            raise
        return Drift()
    return load_task(folder).monitor


# -- A/B tests --------------------------------------------------------------------------------------------------------


@job("ab report")
def report(
    outcomes: Path,
    *,
    control: str | None = option(None, "The arm to compare with. Default: the first by name.", metavar="ARM"),
    alpha: float = option(0.05, "The error rate, up to 0.5.", metavar="RATE", gt=0, le=0.5),
    smallest: float = option(
        0.0,
        "A difference below it, 0 to 1, does not matter, so that equal arms can be told as well.",
        metavar="SHARE",
        ge=0,
        le=1,
    ),
    several: Literal["refuse", "first"] = option(
        "refuse", "A unit with several outcomes: an error, or its first one counts."
    ),
    unit_column: str = key_option("unit"),
    arm_column: str = key_option("arm"),
    outcome_column: str = key_option("outcome"),
) -> AbResult:
    """Tell the difference of two arms with a confidence sequence: look as often as you like, and stop when you like.

    OUTCOMES is a .jsonl or .csv file, a row for each outcome in the order in which they came: unit (a user, a session),
    arm, outcome from 0 to 1. Other keys are ignored, --unit-column and its like name these otherwise, and rows that
    cannot be read are left out, with a note. Each is paired with the latest of the other arm. However often it is
    looked at, arms that are equal, or drift together, are told apart in at most 5 % of all tests.
    """
    columns = {"unit": unit_column, "arm": arm_column, "outcome": outcome_column}
    return ab_report(read_outcomes(outcomes, control, first=several == "first", columns=columns), alpha, smallest)
