"""`optimize demo`: a whole run in seconds, over recorded replies, and what to look at afterwards."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from agent.cli.common import SETTINGS, ledger_options, print_json
from agent.cli.progress import Progress
from agent.release.result import RunResult
from agent.report.blocks import Column, PageSection, table, text
from agent.report.run_blocks import run_sections
from agent.report.terminal import show_sections
from agent.report.view import RunView
from agent.run.demo import FOLDER, prepare_demo
from agent.run.launch import start
from agent.run.locations import ledger_option, open_history

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


@click.command(context_settings=SETTINGS)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@ledger_options
def demo_command(quiet: bool, db: Path, as_json: bool) -> None:
    """Run a whole search in seconds, over recorded replies: no model, no key, no network.

    The replies were recorded from a small open model and ship with the package. Search, sealed test, statistics, ledger
    and report are those of every run. The task is written to tasks/demo, the run to runs/. A second demo is a second
    run, which takes its replies from the ledger. A ledger with runs of yours is refused: give another one with --db.
    """
    progress = Progress(quiet)
    launch = prepare_demo(db, progress)
    with progress:
        result = start(launch, db, progress)
    if as_json:
        print_json(result.to_json())
        return
    with closing(open_history(db)) as history:
        view = RunView(history, result.run_id)
        click.echo()
        show_sections([*run_sections(result, view, brief=True, names=SECTIONS), *_where_to_go(result, db)])


def _where_to_go(result: RunResult, db: Path) -> list[PageSection]:
    """What the demo is, which files it wrote, and what to type next."""
    words = ledger_option(db)
    files = (("task", FOLDER), ("new prompt", result.release.path), ("record of every call", db))
    steps = [*((what, f"{command}{words}") for what, command in STEPS), OWN_DATA]
    pairs = (Column(""), Column("", "code"))
    return [
        PageSection("about", "", (text("Search, statistics, ledger and report are those of every run."),)),
        PageSection("files", "", (table("files:", pairs, files),)),
        PageSection("next", "", (table("next:", pairs, steps),)),
    ]
