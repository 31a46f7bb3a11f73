"""`optimize sweep`: many runs out of one file, and a table of what they came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import click

from agent.cli.common import PATH, SETTINGS, json_option, plain, print_json, short
from agent.cli.progress import live_on_stderr
from agent.errors import AgentError
from agent.jobs.sweep.prepare import PreparedSweep, prepare_sweep
from agent.jobs.sweep.sweep import CellLine, SweepResult, run_sweep
from agent.report.blocks import Column
from agent.report.facts import dollars, points
from agent.report.sweep_page import best_of_task, groups_table, model_names
from agent.report.terminal import print_listing, print_table, say

CELLS = (
    Column("cell", floor=16),
    Column("state", floor=8),
    Column("calls"),
    Column("best dev", rank=2),
    Column("sealed", rank=1),
    Column("$"),
)
PLAN = (
    Column("cell", floor=16),
    Column("state"),
    Column("calls"),
    Column("tokens"),
    Column("cap, $"),
    Column("$ at most"),
)


@click.command(context_settings=SETTINGS)
@click.argument("file", type=PATH)
@click.option("--ray", metavar="ADDRESS", help="Run the cells on a Ray cluster: its address, auto, or local.")
@click.option(
    "-J",
    "--jobs",
    metavar="N",
    type=click.IntRange(1),
    help="Cells at once on this machine. Default: 1 where a model is embedded, else 4. Not with --ray.",
)
@click.option("--folder", metavar="PATH", type=PATH, help="For ledgers and report. Default: runs/sweep-NAME.")
@click.option("--dry-run", is_flag=True, help="Print each cell with its state and priced plan; call nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@json_option
def sweep_command(
    file: Path, ray: str | None, jobs: int | None, folder: Path | None, dry_run: bool, quiet: bool, as_json: bool
) -> None:
    """Run every combination of tasks, models, strategies and seeds that FILE, a sweep.toml, lists.

    Each combination is a cell: a run with a ledger of its own in runs/sweep-NAME/. All of them are checked before
    anything is spent. The same command goes on where it was: cells with a result are left as they are, and the others
    are resumed, so that nothing is bought twice. Ctrl-C lets what is in flight land.
    At the end: scores on the sealed rows by task, model and strategy, and which is best where, corrected by Holm.
    Exit codes: 0 all cells have a result, 1 some have none, 2 usage, 3 budget too small, 130 interrupted.
    """
    if ray is not None and jobs is not None:
        raise click.UsageError("--jobs counts processes of this machine; with --ray, [resources] of the file say it")
    prepared = prepare_sweep(file, folder, check_keys=ray is None and not dry_run)
    if dry_run:
        _print_plan(prepared, as_json)
        return
    with _Shown(quiet or as_json) as shown:
        result = run_sweep(prepared, shown.show, ray, jobs)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result)
    if result.report_error:
        click.echo(plain(f"no page: {result.report_error}; the same command writes it"), err=True)
    if result.unfinished:
        errors = [f"{cell['cell']}: {cell['error'] or cell['state']}" for cell in result.cells if cell["error"]]
        raise AgentError(
            "\n".join(
                [
                    *errors,
                    f"{len(result.unfinished)} of {len(result.cells)} cells have no result; "
                    "the same command tries them again",
                ]
            )
        )


class _Shown:
    """The cells on stderr: a live table on a terminal, elsewhere a line for each change of a state."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._live = quiet, live_on_stderr() if not quiet else None
        self._states: dict[str, str] = {}

    def __enter__(self) -> _Shown:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, lines: Sequence[CellLine]) -> None:
        """Draws the cells."""
        if self._live is not None:
            self._live.update(_table(lines), refresh=True)
            return
        for line in lines:
            if self._states.get(line.cell.name) != line.state:
                was, self._states[line.cell.name] = self._states.get(line.cell.name), line.state
                if not self._quiet and (was is not None or not line.state.startswith("waits")):
                    click.echo(plain(f"{line.cell.name}: {line.state}{_score(line)}"), err=True)


def _score(line: CellLine) -> str:
    return "" if line.score is None else f", sealed test {points(line.score)}, {dollars(line.usd)}"


def _table(lines: Sequence[CellLine]) -> Any:
    """The cells that run first, then those that wait, then those that have ended, and a line with the sums."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for number, column in enumerate(CELLS):
        table.add_column(column.name, justify="left" if number < 2 else "right", no_wrap=True, overflow="ellipsis")
    order = sorted(lines, key=lambda line: (line.state != "running", not line.state.startswith("waits")))
    room = max(3, get_terminal_size().lines - 5)
    for line in order[:room]:
        table.add_row(*(Text(short(cell, 60)) for cell in _cells(line)), style="" if line.state == "running" else "dim")
    states = [line.state for line in lines]
    done = sum(state == "finished" for state in states)
    usd = sum(line.usd or 0.0 for line in lines)
    more = f", {len(order) - room} not shown" if len(order) > room else ""
    total = f"{done} of {len(lines)} cells finished, {states.count('running')} running, ${usd:.4f}{more}; Ctrl-C stops"
    return Group(table, Text(total, "dim"))


def _cells(line: CellLine) -> tuple[str, ...]:
    calls = (
        "" if line.calls is None else f"{line.calls:,}" + (f" of {line.planned:,}" if line.state == "running" else "")
    )
    usd = "" if line.usd is None else f"{line.usd:.4f}"
    scores = ("" if score is None else points(score) for score in (line.best, line.score))
    return (line.cell.name, line.state, calls, *scores, usd)


def _print_plan(prepared: PreparedSweep, as_json: bool) -> None:
    found = []
    for cell in prepared.cells:
        plan, progress = prepared.estimates.get(cell.name), prepared.progress[cell.name]
        found.append(
            {
                "cell": cell.name,
                "state": progress.state,
                "run_id": progress.run_id or None,
                "ledger": str(cell.db),
                "max_cost": cell.max_cost,
                "calls": None if plan is None else sum(row["calls"] for row in plan.roles.values()),
                "tokens_at_most": None if plan is None else plan.tokens,
                "cost_usd_at_most": None if plan is None else plan.usd,
            }
        )
    known = [plan.usd for plan in prepared.estimates.values()]
    total = None if None in known else sum(usd or 0.0 for usd in known)
    if as_json:
        print_json(
            {"sweep": prepared.file.name, "folder": str(prepared.folder), "cells": found, "cost_usd_at_most": total}
        )
        return
    columns = ("cell", "state", "calls", "tokens_at_most", "max_cost", "cost_usd_at_most")
    print_table(prepared.file.name, PLAN, [[cell[name] for name in columns] for cell in found])
    states = [cell["state"] for cell in found]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"{len(found)} cells: {counted}; those not begun cost at most {dollars(total, digits=2)}; nothing was called")


def _print_result(result: SweepResult) -> None:
    names = model_names(result.groups)
    print_listing(replace(groups_table(result.groups, names), title=f"sweep {result.name}, sealed test"))
    for task in result.tasks:
        say(best_of_task(task, names))
    say(
        "; ".join(
            [f"{len(result.cells)} cells, {dollars(result.cost_usd)}", *([str(result.report)] if result.report else [])]
        )
    )
