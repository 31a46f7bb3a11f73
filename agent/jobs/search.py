"""`optimize run`, `resume`, `migrate`, `text` and `demo`: from a task, a model and a budget to a tested prompt."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import AgentError, BudgetRefused, InputError
from agent.jobs.launch import Launch, prepare, search_of
from agent.jobs.locations import calls_seen, ledger_option, open_history
from agent.jobs.registry import DB, job
from agent.jobs.resume import prepare_resume
from agent.jobs.session import Work
from agent.jobs.tasks import SAMPLES, copy_task
from agent.ledger.connect import is_there
from agent.observer import NO_OBSERVER, Observer
from agent.options.run import MigrateOptions, RecordedOptions, ResumeOptions, RunOptions, TextOptions, TextSource
from agent.options.shared import PlanOption, PublishedOptions
from agent.redact import without_password
from agent.release.result import RunResult
from agent.report.blocks import Column, PageSection, plain_section, table
from agent.report.blocks import text as prose
from agent.report.view import RunView
from agent.results.planned_run import PlannedRun
from agent.safe_file import disk_errors, new_file
from agent.safe_text import plain
from agent.search.registered import STRATEGIES
from agent.tracking.tracker import TRACKERS

MODEL = "recorded/qwen2.5-coder-0.5b"
FOLDER = Path("tasks/demo")
ROWS = SAMPLES / "home_assistant"
OWN = Path(__file__).parents[1] / "demo" / "task"
"""The files of the task that are not the sample's."""
DEMO = RecordedOptions(task=FOLDER.name, max_concurrency=16)
SECTIONS = ("verdict", "result", "prompt")
STEPS = (
    ("see it whole", "optimize show"),
    ("open the report", "optimize report"),
    ("see it in the browser", "optimize ui"),
    ("ship the prompt", "optimize promote"),
    ("use it in a program", "optimize export --format python -o demo_prompt.py"),
    ("check the record", "optimize audit verify"),
)
OWN_DATA = ("try your own data", "optimize run data.csv --target COL --prompt prompt.txt")
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
    _require_database(ledger_url)
    launch = prepare(options.changed_to(RecordedOptions, task=task), db, observer)
    if launch.task.is_judged:
        from agent.jobs.tune import judge_first  # here, as it would slow down every command

        if advice := judge_first(launch.task, db):
            observer.on_message(advice)
    if not plan.dry_run:
        return _search(launch, db, ledger_url)
    return launch.planned(None if launch.program.is_fixed else calls_seen(db, launch.task.name, launch.model.name))


@job("resume", tracks=True, registries={"track": TRACKERS}, sections=sections_of_run)
def resume(
    run: str = "", *, options: ResumeOptions, observer: Observer, db: Path = DB, ledger_url: str | None = URL
) -> Work[RunResult]:
    """Continue RUN (default: the latest unfinished one). Nothing that was paid for is bought again.

    Refuses if the task, its data or metrics, the model or the program changed since, and names the changes; --fork
    starts a new run with the current files, which still reuses every recorded call that is the same.
    """
    _require_database(ledger_url)
    return _search(prepare_resume(run, options, db, observer), db, ledger_url)


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

    launch = prepare(migration_options(prompt, options, db), db, observer)
    return launch.planned() if plan.dry_run else _search(launch, db)


def _search(launch: Launch, db: Path, url: str | None = None) -> Work[RunResult]:
    work = search_of(launch)
    return work if url is None else replace(work, ended=lambda result: _published(url, result.run_id, db))


def _require_database(url: str | None) -> None:
    if url is not None:
        from agent.ledger.team_store import database

        database(url)


def _published(url: str, run_id: str, db: Path) -> int:
    from agent.ledger.team_store import publish

    try:
        with closing(open_history(db)) as history:
            said = publish(history, run_id, url).line()
    except AgentError as error:
        again = f"optimize ledger publish {run_id} --to {shlex.quote(without_password(url))}{ledger_option(db)}"
        said = f"not published: {error}\npublish it with: {again}"
    print(plain(said), file=sys.stderr)
    return 0


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
    launch = prepare(recorded, db, observer)
    try:
        if plan.dry_run:
            found, what = launch.planned(), f"a call of {launch.model.name} is one run of: {options.command}"
            return found.model_copy(
                update={"lines": (*map(_in_runs, found.lines), f"{what}, and costs what it reports")}
            )
        work = search_of(launch)
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


# -- the demo ---------------------------------------------------------------------------------------------------------


def _sections_of_demo(result: RunResult, db: Path) -> list[PageSection]:
    from agent.report.run_blocks import run_sections

    words, pairs = ledger_option(db), (Column(""), Column("", "code"))
    files = (("task", FOLDER), ("new prompt", result.release.path), ("record of every call", db))
    steps = [*((what, f"{command}{words}") for what, command in STEPS), OWN_DATA]
    with closing(open_history(db)) as history:
        sections = run_sections(result, RunView(history, result.run_id), brief=True, names=SECTIONS)
    about = prose("Search, statistics, ledger and report are the same as in any run.")
    return [*sections, plain_section(about, table("files:", pairs, files), table("next:", pairs, steps))]


@job("demo", sections=_sections_of_demo)
def demo(*, observer: Observer, db: Path = DB) -> Work[RunResult]:
    """Run a whole search in seconds over recorded replies: no model, no key, no network.

    The replies were recorded from a small open model and ship with the package. Search, sealed test, statistics, ledger
    and report are the same as in any run. The task is written to tasks/demo, the run to runs/. A second demo is a new
    run, which takes its replies from the ledger. A ledger with your runs is refused: use --db for another one.
    """
    return search_of(prepare_demo(db, observer))


def prepare_demo(db: Path, observer: Observer = NO_OBSERVER) -> Launch:
    """Write the task to tasks/demo, and prepare its run."""
    if is_there(db):
        with closing(open_history(db)) as history:
            others = [run["id"] for run in history.runs() if run["model"] != MODEL]
        if others:
            raise InputError(
                f"{db}: holds other runs; keep the demo apart: optimize demo --db demo/ledger.db, or an empty folder"
            )
    if not FOLDER.exists():
        copy_task(FOLDER, ROWS, OWN)
    elif changed := _changed():
        raise InputError(f"{changed}: not as the demo was recorded; remove {FOLDER}, or run the demo in another folder")
    return prepare(DEMO, db, observer)


def _changed() -> Path | None:
    originals = {path.name: path for source in (ROWS, OWN) for path in source.iterdir()}
    for name, original in sorted(originals.items()):
        copy = FOLDER / name
        if not copy.is_file() or copy.read_bytes() != original.read_bytes():
            return copy
    return None
