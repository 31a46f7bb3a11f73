"""`optimize run`, `resume`, `migrate` and `text`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, BudgetRefused
from agent.jobs.locations import calls_seen, ledger_option, open_history
from agent.jobs.registry import DB, job
from agent.jobs.work import Work
from agent.observer import Observer
from agent.options.run import MigrateOptions, RecordedOptions, ResumeOptions, RunOptions, TextOptions, TextSource
from agent.options.shared import PlanOption, PublishedOptions
from agent.redact import without_password
from agent.release.result import RunResult
from agent.report.blocks import PageSection
from agent.report.view import RunView
from agent.results.planned_run import PlannedRun
from agent.safe_file import disk_errors, new_file
from agent.safe_text import plain
from agent.search.registered import STRATEGIES
from agent.tracking.tracker import TRACKERS

if TYPE_CHECKING:
    from agent.jobs.launch import Launch

Publisher = Callable[[str, Path], int]
"""Publishes a finished run, by its id, from a ledger; returns the exit code."""
URL: Any = PublishedOptions.field("ledger_url")


def sections_of_run(result: RunResult, db: Path) -> list[PageSection]:
    from agent.report.run_blocks import screen_sections  # here, as reports would slow down every `--help`

    with suppress(AgentError), closing(open_history(db)) as history:  # a result that is there is printed
        return screen_sections(result, RunView(history, result.run_id), brief=True)
    return screen_sections(result, brief=True)


@job("run", tracks=True, registries={"strategy": STRATEGIES, "track": TRACKERS}, sections=sections_of_run)
def run(
    task: str, options: RunOptions, plan: PlanOption, *, observer: Observer, db: Path = DB, ledger_url: str | None = URL
) -> Work[RunResult] | PlannedRun:
    """Search for the best prompt of TASK, and test it once on sealed rows. The winner is written to runs/.

    TASK is a name under tasks/, a folder with a task.toml, or a data file (.csv, .tsv, .jsonl, .json, .xlsx, .parquet)
    together with --target and --prompt. Exit codes: 0 done (also if your prompt is kept), 1 error, 2 usage (also a key,
    address or name that the provider refuses), 3 budget too small, 130 interrupted. After 1 or 130, the last line is
    the command that resumes the run.
    """
    publish = _publisher(ledger_url)
    launch = _prepare(options.changed_to(RecordedOptions, task=task), db, observer)
    if launch.task.is_judged:
        from agent.jobs.tune import judge_first  # here, as it would slow down every command

        if advice := judge_first(launch.task, db):
            observer.on_message(advice)
    if not plan.dry_run:
        return _search(launch, db, publish)
    return launch.planned(None if launch.program.is_fixed else calls_seen(db, launch.task.name, launch.model.name))


@job("resume", tracks=True, registries={"track": TRACKERS}, sections=sections_of_run)
def resume(
    run: str = "", *, options: ResumeOptions, observer: Observer, db: Path = DB, ledger_url: str | None = URL
) -> Work[RunResult]:
    """Continue RUN (default: the latest unfinished one). Nothing that was paid for is bought again.

    Refuses if the task, its data or metrics, the model or the program changed since, and names the changes; --fork
    starts a new run with the current files, which still reuses every recorded call that is the same.
    """
    from agent.jobs.resume import prepare_resume

    publish = _publisher(ledger_url)
    return _search(prepare_resume(run, options, db, observer), db, publish)


@job("migrate", required=("model",), sections=sections_of_run)
def migrate(
    prompt: str, options: MigrateOptions, plan: PlanOption, *, observer: Observer, db: Path = DB
) -> Work[RunResult] | PlannedRun:
    """Move PROMPT, released for one model, to another model in few calls.

    PROMPT is a prompt.md or its folder, NAME@ALIAS, NAME@VERSION, or the id of a run. The prompts that its run tried
    are raced on the new model, and a few new ones are made from the best. The sealed test then shows whether the new
    model loses less than the accepted margin against the old one, whose recorded replies are reused. Exit codes, resume
    and promotion work as for `optimize run`.
    """
    from agent.jobs.recorded import migration_options

    launch = _prepare(migration_options(prompt, options, db), db, observer)
    return launch.planned() if plan.dry_run else _search(launch, db)


def _prepare(asked: RecordedOptions, db: Path, observer: Observer) -> Launch:
    from agent.jobs.launch import prepare  # here, as it loads all that a search needs

    return prepare(asked, db, observer)


def _search(launch: Launch, db: Path, publish: Publisher | None = None) -> Work[RunResult]:
    from agent.jobs.launch import search_of

    work = search_of(launch)
    return work if publish is None else replace(work, ended=lambda result: publish(result.run_id, db))


def _publisher(url: str | None) -> Publisher | None:
    """Return what publishes a run to a team's ledger. Raises InputError for an address that cannot be used."""
    if url is None:
        return None
    from agent.ledger.team_store import database, publish

    database(url)

    def published(run_id: str, db: Path) -> int:
        try:
            with closing(open_history(db)) as history:
                said = publish(history, run_id, url).line()
        except AgentError as error:
            again = f"optimize ledger publish {run_id} --to {shlex.quote(without_password(url))}{ledger_option(db)}"
            said = f"not published: {error}\npublish it with: {again}"
        print(plain(said), file=sys.stderr)
        return 0

    return published


# -- a text file -----------------------------------------------------------------------------------------------------


@job("text", required=("rows", "command"), tracks=True, registries={"track": TRACKERS}, sections=sections_of_run)
def text(
    file: str, options: TextOptions, plan: PlanOption, *, observer: Observer, db: Path = DB
) -> Work[RunResult] | PlannedRun:
    """Optimize a text FILE, such as AGENTS.md, by the scores of your own command.

    The command runs once for each row, without a shell. Its last line on stdout is JSON: "score" from 0 to 1, "reason",
    and "cost_usd". Your file and no file are both baselines; for no file, {file} is a path that does not exist. The
    best text is compared with both on sealed rows and written to runs/; FILE changes only if -o names it. A run without
    a score is left out. There is no sandbox: the command runs with your rights. Exit codes and resume work as for
    `optimize run`.
    """
    recorded = options.part(RecordedOptions)
    recorded = recorded.changed(task=file, text=options.part(TextSource), max_calls=options.max_runs)
    launch = _prepare(recorded, db, observer)
    try:
        if plan.dry_run:
            found, what = launch.planned(), f"a call of {launch.model.name} is one run of: {options.command}"
            return found.model_copy(
                update={"lines": (*map(_in_runs, found.lines), f"{what}, and costs what it reports")}
            )
        work = _search(launch, db)
    except BudgetRefused as refused:
        raise BudgetRefused(_in_runs(str(refused))) from None
    return replace(work, opening=_in_runs(work.opening), ended=partial(_written, options.output, file))


def _in_runs(words: str) -> str:
    return words.replace("--max-calls", "--max-runs").replace("max_calls", "--max-runs")


def _written(output: Path | None, file: str, result: RunResult) -> int:
    if result.decision != "promote":
        said = f"{file} is best as it is; nothing is written"
    elif result.reference_won:
        said = f"{file} is best left out; nothing is written or deleted"
    elif output is None:
        said = f"the new text is in {result.release.path.parent / 'file'}; {file} is unchanged"
    else:
        with disk_errors(f"{output}: cannot be written"), new_file(output) as new:
            new.write(result.winner.instruction.encode("utf-8", "replace"))
        said = f"wrote {output}"
    print(plain(said), file=sys.stderr)
    return 0
