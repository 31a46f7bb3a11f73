"""`optimize demo`: a whole search over recorded replies."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from agent.errors import InputError
from agent.jobs.launch import Launch, prepare, search_of
from agent.jobs.locations import ledger_option, open_history
from agent.jobs.registry import DB, job
from agent.jobs.tasks import copy_task
from agent.jobs.work import Work
from agent.ledger.connect import is_there
from agent.observer import NO_OBSERVER, Observer
from agent.options.run import RecordedOptions
from agent.release.result import RunResult
from agent.report.blocks import Column, PageSection, plain_section, table
from agent.report.blocks import text as prose
from agent.report.run_blocks import run_sections
from agent.report.view import RunView
from agent.task.by_name import SAMPLES

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


def _sections_of_demo(result: RunResult, db: Path) -> list[PageSection]:
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
