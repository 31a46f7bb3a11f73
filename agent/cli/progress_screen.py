"""The progress of a run or job on a terminal, drawn with rich."""

from __future__ import annotations

from collections.abc import Sequence
from shutil import get_terminal_size

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.cli.common import plain, short
from agent.cli.progress_view import View, clock, sparkline, waiting
from agent.gateway.in_flight import InFlight
from agent.jobs.observers import CellLine, recent_loss
from agent.safe_text import counted
from agent.stats.figures import points

WIDE = 66
"""Columns of the longest labels."""
MARKS, ASCII_MARKS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
CURVE = 40
"""Most columns of a loss curve."""


class Screen:
    """A display at the end of a terminal that replaces itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live("", console=console, auto_refresh=False, transient=True)
        self.start, self.stop = self._live.start, self._live.stop

    def print_line(self, line: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(plain(line)), soft_wrap=True)

    def show_view(self, view: View, in_flight: InFlight, beats: int) -> None:
        """Show a run or job; its mark turns with `beats`."""
        marks, bars = (ASCII_MARKS, ASCII_BARS) if self._console.options.ascii_only else (MARKS, BARS)
        self._show(block(view, in_flight, marks[beats % len(marks)], self._console.width, bars))

    def show_bar(self, done: int, total: int, words: str) -> None:
        """Show how much is done."""
        self._show(bar_line(done, total, words))

    def show_cells(self, cells: Sequence[CellLine]) -> None:
        """Show the cells of a sweep."""
        self._show(cells_table(cells))

    def _show(self, what: RenderableType) -> None:
        self._live.update(what, refresh=True)


def screen_on_stderr() -> Screen | None:
    """Return the display of stderr; None unless it is a terminal that can replace lines."""
    console = Console(stderr=True)
    return Screen(console) if console.is_terminal and not console.is_dumb_terminal else None


def block(view: View, in_flight: InFlight, mark: str, width: int, bars: str = BARS) -> RenderableType:
    """Format the view as a block of this width. `mark` turns while the run is alive."""
    times, calls = clock(view.seconds), f"{view.done:,} of {view.planned:,}"
    if width >= WIDE:
        times += " elapsed, " + ("time left -" if view.left is None else f"at most {clock(view.left)} left")
        calls += f" {view.unit}"
        if view.unit == "calls":
            calls += f", {view.cached:,} cached, {counted(view.retries, 'retry', 'retries')}"
    place = f"{view.place}: " if view.place else ""
    title = _text((f"  {place}", "dim"), (view.title, "bold"))
    lines = [_two_columns(title, times), bar_line(view.done, view.planned, calls)]
    if view.score:
        lines.append(_text(("  best ", "dim"), (view.score, "bold"), (f": {view.best}" if view.best else "", "")))
    if view.losses:
        curve = sparkline(view.losses, min(CURVE, max(1, width - 16)), bars)
        loss = f"{recent_loss(view.losses):.3f}"
        lines.append(_text(("  loss ", "dim"), (loss, "bold"), (f" {curve}", "")))
    style = "bold red" if in_flight.outage else "dim"
    return Group(*lines, *_spent_lines(view, width), _text((f"{mark} ", "green"), (waiting(in_flight), style)))


def _text(*parts: tuple[str, str]) -> RenderableType:
    flat = [(plain(text).replace("\n", " ").replace("\t", " "), style) for text, style in parts]
    return Text.assemble(*flat, no_wrap=True, overflow="ellipsis")


def _two_columns(left: RenderableType, right: str) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    line.add_row(left, _text((right, "")))
    return line


def bar_line(done: int, total: int, words: str) -> RenderableType:
    green = {"complete_style": "green", "finished_style": "green", "pulse_style": "green"}
    bar = ProgressBar(max(1, total), done, style="bright_black", **green)  # type: ignore[arg-type]
    return _two_columns(Padding(bar, (0, 0, 0, 2)), words)


def _spent_lines(view: View, width: int) -> list[RenderableType]:
    longest = [max(map(len, column)) for column in zip(*view.spent, strict=True)]
    lines = []
    for row in view.spent:
        sized = enumerate(zip(row, longest, strict=True))
        cells = [f"{cell:>{size}}" if at % 2 else f"{cell:<{size}}" for at, (cell, size) in sized]
        if 2 + sum(longest) + len(longest) + 2 > width:
            line = f"  {cells[0]}  {cells[1]} {'call' if row[1] == '1' else 'calls'}  {row[5]}"
        else:
            line = f"  {cells[0]}  {' '.join(cells[1:3])}  {' '.join(cells[3:5])}  {' '.join(cells[5:])}"
        lines.append(_text((line, "")))
    return lines


# -- the cells of a sweep ----------------------------------------------------------------------------------------------

CELL_COLUMNS = ("cell", "state", "calls", "best dev", "sealed", "$")


def cells_table(lines: Sequence[CellLine]) -> RenderableType:
    """Build the table of cells: running, waiting, finished; then a line of totals."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for number, column in enumerate(CELL_COLUMNS):
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
