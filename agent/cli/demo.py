"""`optimize demo`: a whole run in seconds, over recorded replies, and what to look at afterwards."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from agent.cli import ending_blocks
from agent.cli.common import SETTINGS, ledger_options, plain, print_json
from agent.cli.progress import Progress
from agent.release.result import RunResult
from agent.report import answer_facts, facts
from agent.report.excerpts import Excerpts, excerpts
from agent.report.facts import points, sealed_score
from agent.run.demo import FOLDER, prepare_demo
from agent.run.locations import ledger_option, open_history
from agent.run.session import start

WIDEST = 100
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
        texts = excerpts(history, history.run(result.run_id), result)
    click.echo(demo_report(result, texts, db, shutil.get_terminal_size().columns))


def demo_report(result: RunResult, texts: Excerpts, db: Path, columns: int = 80) -> str:
    """The end of the demo: verdict, scores, prompt, files and next steps, in lines of at most `columns`."""
    width, words = max(40, min(columns, WIDEST)), ledger_option(db)
    absolute = answer_facts.in_absolute_terms(result)
    about = f"{facts.recorded(result)}. Search, statistics, ledger and report are those of every run."
    files = (("task", FOLDER), ("new prompt", result.release.path), ("record of every call", db))
    steps = [*((what, f"{command}{words}") for what, command in STEPS), OWN_DATA]
    parts = (
        _wrapped([facts.verdict(result), facts.certainty(result)], width),
        _scores(result),
        _wrapped([f"in absolute terms: {absolute}"] * bool(absolute), width),
        _wrapped(ending_blocks.changes(result), width),
        ending_blocks.new_prompt(result, texts, words),
        _wrapped([about[:1].upper() + about[1:]], width),
        ["files:", *_pairs([(what, str(path)) for what, path in files])],
        ["next:", *_pairs(steps)],
    )
    return "\n".join(plain(line) for part in parts if part for line in ("", *part))


def _scores(result: RunResult) -> list[str]:
    dev = {"baseline": result.baseline.dev, "winner": result.winner.dev}
    return [
        f"{'':13}{'dev':>6}{'sealed test':>14}",
        *(
            f"{name:13}{points(dev[side]):>6}{points(sealed_score(result, side)):>14}"
            for side, name in facts.sides(result)
        ),
    ]


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(what) for what, _ in rows)
    return [f"  {what:<{width}}  {text}" for what, text in rows]


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Lines at the width of the terminal, a continued one indented below its text."""
    return [part for line in lines for part in _wrap(line, width)]


def _wrap(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)
