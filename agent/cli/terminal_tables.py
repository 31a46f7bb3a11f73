"""Tables on stdout: set for the width of a terminal, tab-separated lines in a pipe; and numbers as marks.

A pipe gets every column but the drawn ones, whole and without colour. On a terminal numbers stand to the right, text is
shortened before a column goes, and what was left out is named below. All text is untrusted.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


NUMBER = re.compile(r"[-+]?[\d,]*+(?:(?<=\d)|\.\d++)|-|")
DIGEST = re.compile(r"[0-9a-f]{64}")
GAP, WRAPPED, WORD = 2, 12, 30


@dataclass(frozen=True, slots=True)
class Column:
    """How a column behaves on a terminal."""

    head: str
    rank: int = 0
    """Where it is narrow, the highest go first; 0 always stays."""
    floor: int = 0
    """May be narrowed to this width; 0: never."""
    wraps: bool = False
    """Goes on in the next line, not shortened, where it is narrow; short words stay whole."""
    digests: bool = False
    """SHA-256 digests are cut to their start."""
    gain: bool = False
    """A difference: green above zero, red below."""
    drawn: bool = False
    """A picture of numbers that stand beside it: not for a pipe, nor for a terminal that has no such letters."""


def print_table(
    title: str,
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Any]],
    quiet: Callable[[Sequence[str]], bool] = lambda row: False,
) -> None:
    """Prints a table. `quiet`: whether a row, as text, is dimmed on a terminal."""
    heads = [column if isinstance(column, Column) else Column(plain(column), 0, WRAPPED, True) for column in columns]
    cells = [["" if cell is None else plain(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_on_terminal(plain(title), heads, cells, [quiet(row) for row in cells])
        return
    kept = [number for number, column in enumerate(heads) if not column.drawn]
    click.echo("\t".join(heads[number].head for number in kept))
    for row in cells:
        click.echo("\t".join(row[number].replace("\t", " ").replace("\n", " ") for number in kept))


def say(text: str, style: str = "") -> None:
    """One text, on a terminal in its style and wrapped between words."""
    if not sys.stdout.isatty():
        click.echo(plain(text))
        return
    from rich.text import Text

    _console().print(Text(plain(text), style))


def say_diff(lines: Iterable[str]) -> None:
    """A unified diff, what is new in green, what is gone in red."""
    for line in lines:
        style = "" if line.startswith(("+++", "---")) else {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        say(line, style)


def say_marks(marks: str, styles: dict[str, str]) -> None:
    """A strip of marks, each in its style, over as many lines as it needs; nothing in a pipe."""
    if not sys.stdout.isatty() or (console := _console()).options.ascii_only:
        return
    from rich.text import Text

    for start in range(0, len(marks), console.width):
        console.print(Text.assemble(*((mark, styles.get(mark, "")) for mark in marks[start : start + console.width])))


def fit(ranks: Sequence[int], widths: Sequence[int], least: Sequence[int], room: int) -> dict[int, int]:
    """The columns to show, by number, each with its width. Pure.

    First those of high rank go, until the rest fits at its least widths; then the widest are narrowed. Columns of rank
    0 always stay.

    Args:
        ranks, widths, least: of each column, its rank, its full and its least width in characters.
        room: the width of the terminal in characters.
    """
    kept = list(range(len(ranks)))
    while sum(least[number] for number in kept) + GAP * (len(kept) - 1) > room:
        dropped = max(kept, key=ranks.__getitem__)
        if ranks[dropped] == 0:
            break
        kept.remove(dropped)
    fitted = {number: widths[number] for number in kept}
    while sum(fitted.values()) + GAP * (len(kept) - 1) > room:
        narrowable = [number for number in kept if fitted[number] > least[number]]
        if not narrowable:
            break
        fitted[max(narrowable, key=fitted.__getitem__)] -= 1
    return fitted


def _print_on_terminal(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], quiet: Sequence[bool]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console = _console()
    shown = [number for number, column in enumerate(columns) if not (column.drawn and console.options.ascii_only)]
    texts = [[_cell(columns[number], row[number]) for number in shown] for row in rows]
    columns = [columns[number] for number in shown]
    sides = [[row[number] for row in texts] for number in range(len(columns))]
    widths = [_widest([Text(column.head), *side], "\n") for column, side in zip(columns, sides, strict=True)]
    least = [
        min(width, max(column.floor, column.wraps and min(WORD, _widest([Text(column.head), *side], None))) or width)
        for column, width, side in zip(columns, widths, sides, strict=True)
    ]
    kept = fit([column.rank for column in columns], widths, least, console.width)
    table = Table(title=Text(title, "bold"), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.padding = False, False, (0, GAP - 1, 0, 0)
    for number, width in kept.items():
        column = columns[number]
        is_number = not column.drawn and all(NUMBER.fullmatch(cell.plain) for cell in sides[number])
        table.add_column(
            Text(column.head),
            width=width,
            justify="right" if is_number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row, stands_back in zip(texts, quiet, strict=True):
        table.add_row(*(row[number] for number in kept), style="dim" if stands_back else "")
    console.print(table)
    if gone := [column.head for number, column in enumerate(columns) if column.head and number not in kept]:
        console.print(Text(f"left out for want of room: {', '.join(gone)}", "dim"))


def _cell(column: Column, text: str) -> Text:
    from rich.text import Text

    if column.digests and DIGEST.fullmatch(text):
        return Text(f"{text[:12]}…")
    style = {"+": "green", "-": "red"}.get(text[:1], "") if column.gain and text.strip("+-0.") else ""
    return Text(text, style)


def _widest(cells: Sequence[Text], between: str | None) -> int:
    """The width of the widest part of these cells: of a line, or of a word where `between` is None."""
    from rich.cells import cell_len

    return max((cell_len(part) for cell in cells for part in cell.plain.split(between)), default=0)


def _console() -> Console:
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 has no … and few other letters
    width, height = shutil.get_terminal_size()
    return Console(width=width, height=height, highlight=False, emoji=False, markup=False)


LEVELS = "▁▂▃▄▅▆▇█"
WON, LOST, TIED = "▲", "▼", "·"


def sparkline(scores: Sequence[float], width: int) -> str:
    """Scores of 0 to 1 as heights of the full scale, so that two lines can be compared; at most `width` marks."""
    if len(scores) > width:
        scores = [scores[(len(scores) - 1) * place // (width - 1)] for place in range(width)]
    return "".join(LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * score))] for score in scores)


def so_far(scores: Iterable[float | None]) -> list[float]:
    """The best so far after each score; None, which is no score, changes nothing."""
    best: list[float] = []
    for score in scores:
        if score is not None or best:
            best.append(max([*best[-1:], *([] if score is None else [score])]))
    return best


def whisker(mean: float | None, low: float | None, high: float | None, width: int) -> str:
    """A score of 0 to 1 as a dot on an axis of `width` places, its interval as a line around it."""
    if mean is None:
        return ""
    places = [" "] * width
    if low is not None and high is not None:
        for place in range(_place(low, width), _place(high, width) + 1):
            places[place] = "─"
    places[_place(mean, width)] = "●"
    return "".join(places)


def _place(score: float, width: int) -> int:
    return min(width - 1, max(0, int(width * score)))


def won_and_lost(differences: Iterable[float]) -> str:
    """One mark for each difference: won, lost or tied."""
    return "".join(WON if value > 0 else LOST if value < 0 else TIED for value in differences)
