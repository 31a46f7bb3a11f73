"""The live table of a sweep's cells."""

from __future__ import annotations

from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from agent.jobs.observers import CellLine
from agent.report.blocks import short
from agent.report.wording import points

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = ("cell", "state", "calls", "best dev", "sealed", "$")


def cells_table(lines: Sequence[CellLine]) -> RenderableType:
    """Build the table: running cells first, then waiting, then finished ones, and a line of totals."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True, overflow="ellipsis")
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
    return (line.name, line.state, calls, *scores, usd)
