"""A run or a job as a live block on a terminal, drawn by rich.

The run's own loop draws it, and no thread: where the loop hangs, the clock and the mark stand still.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.cli.common import plain
from agent.cli.progress_view import clock, loss_words, sparkline, time_left, waiting
from agent.task.words import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from agent.cli.progress_view import View
    from agent.gateway.in_flight import InFlight

DRAW_SECONDS = 0.1
WIDE = 66
"""Columns that the longest words take."""
MARKS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_MARKS = "|/-\\"
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
CURVE = 40
"""Columns of a loss curve, at most."""


class Screen:
    """The block at the bottom of a terminal; messages stand above it, and nothing of it stays."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live("", console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._live.start()

    def is_due(self) -> bool:
        """Whether the block may be drawn again: not more often than the eye can follow."""
        return time.monotonic() - self._drawn >= DRAW_SECONDS

    def draw(self, view: View, in_flight: InFlight, beats: int) -> None:
        """Draws what is shown of a run; `beats` counts its heartbeats."""
        is_ascii = self._console.options.ascii_only
        marks, bars = (ASCII_MARKS, ASCII_BARS) if is_ascii else (MARKS, BARS)
        self._draw(block(view, in_flight, marks[beats % len(marks)], self._console.width, bars))

    def draw_download(self, done: int, total: int) -> None:
        """Draws how many bytes of a model's weights have come; `total` is 0 where it is not known."""
        self._draw(_bar_line(done, total or done, f"{megabytes(done, total)} of the model"))

    def print(self, line: str) -> None:
        """Prints untrusted text above the block."""
        from rich.text import Text

        self._console.print(Text(plain(line)), soft_wrap=True)

    def stop(self) -> None:
        """Takes the block away."""
        self._live.stop()

    def _draw(self, what: RenderableType) -> None:
        self._drawn = time.monotonic()
        self._live.update(what, refresh=True)


def megabytes(done: int, total: int) -> str:
    """How much of a download has come, as text."""
    return f"{done / 1e6:.0f}{f' of {total / 1e6:.0f}' if total else ''} MB"


def block(view: View, in_flight: InFlight, mark: str, width: int, bars: str = BARS) -> RenderableType:
    """The lines of a view at this width. `mark` changes as long as the run is alive; `bars`: of a loss curve."""
    from rich.console import Group

    times, calls = clock(view.seconds), f"{view.done:,} of {view.planned:,}"
    if width >= WIDE:
        times += f" elapsed, {time_left(view.left)}"
        calls += f" {view.unit}"
        if view.unit == "calls":
            calls += f", {view.cached:,} cached, {counted(view.retries, 'retry', 'retries')}"
    lines: list[RenderableType] = [_title_line(view, times), _bar_line(view.done, view.planned, calls)]
    if view.score:
        lines.append(_text(("  best ", "dim"), (view.score, "bold"), (f": {view.best}" if view.best else "", "")))
    if view.losses:
        curve = sparkline(view.losses, min(CURVE, max(1, width - 16)), bars)
        lines.append(_text(("  loss ", "dim"), (loss_words(view.losses), "bold"), (f" {curve}", "")))
    lines += _spent_lines(view, width)
    style = "bold red" if in_flight.outage else "dim"
    lines.append(_text((f"{mark} ", "green"), (waiting(in_flight), style)))
    return Group(*lines)


def _text(*parts: tuple[str, str]) -> RenderableType:
    """One line of untrusted text, cut off where the terminal ends."""
    from rich.text import Text

    flat = [(plain(text).replace("\n", " ").replace("\t", " "), style) for text, style in parts]
    return Text.assemble(*flat, no_wrap=True, overflow="ellipsis")


def _title_line(view: View, times: str) -> RenderableType:
    from rich.table import Table

    line = Table.grid(expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    place = f"{view.place}: " if view.place else ""
    line.add_row(_text((f"  {place}", "dim"), (view.title, "bold")), _text((times, "")))
    return line


def _bar_line(done: int, total: int, words: str) -> RenderableType:
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(
        max(1, total), done, style="bright_black", complete_style="green", finished_style="green", pulse_style="green"
    )
    line.add_row(Padding(bar, (0, 0, 0, 2)), _text((words, "")))
    return line


def _spent_lines(view: View, width: int) -> list[RenderableType]:
    """Calls, tokens and dollars by role, the numbers of a column below each other; without the tokens and the caps
    where these do not fit."""
    rows = [(spent.name, *spent.calls, *spent.tokens, *spent.usd) for spent in view.spent]
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if 2 + sum(longest) + len(longest) + 2 > width:
        calls = [f"{row[1]:>{longest[1]}} {'call' if row[1] == '1' else 'calls'}" for row in rows]
        return [_text((f"  {row[0]:<{longest[0]}}  {c}  {row[5]}", "")) for row, c in zip(rows, calls, strict=True)]
    lines = []
    for row in rows:
        name, *cells = (
            f"{cell:>{size}}" if number % 2 else f"{cell:<{size}}"
            for number, (cell, size) in enumerate(zip(row, longest, strict=True))
        )
        lines.append(_text((f"  {name}  {' '.join(cells[:2])}  {' '.join(cells[2:4])}  {' '.join(cells[4:])}", "")))
    return lines
