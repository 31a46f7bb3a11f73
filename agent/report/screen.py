"""Blocks on a terminal, drawn with rich: fitted to its width. All text is untrusted.

Text is shortened before columns are dropped; a line below names the dropped ones.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.report.blocks import Column, DiffBlock, PlainBlock, ProseBlock, TableBlock
from agent.report.terminal import LOST, TIED, WON, diff_lines, is_number, one_line, plain_table
from agent.safe_text import plain

DIGEST = re.compile(r"[0-9a-f]{64}")
BRACKETS = re.compile(r" \([^()]*\)$")
GAP, WORD = 2, 30
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
MARK_STYLES = {WON: "green", LOST: "red", TIED: "dim"}


def drawer() -> Callable[[PlainBlock], list[str]]:
    """Return the function that draws a block as lines for the terminal of stdout."""
    console = _console()

    def draw(block: PlainBlock) -> list[str]:
        with console.capture() as captured:
            _print_rich(console, block)
        return captured.get().splitlines()

    return draw


def _console() -> Console:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 has no … and few other letters
    width, height = shutil.get_terminal_size()
    return Console(width=width, height=height, highlight=False, emoji=False, markup=False)


def _print_rich(console: Console, block: PlainBlock) -> None:
    if isinstance(block, TableBlock):
        _print_table(console, block)
        return
    if isinstance(block, ProseBlock) and block.drawn:
        for strip in [] if console.options.ascii_only else block.lines:
            for start in range(0, len(strip), console.width):
                marks = strip[start : start + console.width]
                console.print(Text.assemble(*((mark, MARK_STYLES.get(mark, "")) for mark in marks)))
        return
    if block.heading:
        console.print(Text(plain(block.heading), "bold"))
    if isinstance(block, DiffBlock):
        for line in diff_lines(block):
            style = "" if block.words or line.startswith(("+++", "---")) else DIFF_STYLES.get(line[:1], "")
            console.print(Text(plain(line), style))
        return
    style, indent = "bold" if block.strong else "", "  " if block.heading and not block.exact else ""
    for line in block.lines:
        for part in plain(line).split("\n"):
            if block.exact:
                console.print(Text(f"{indent}{part}", style), soft_wrap=True)
                continue
            for piece in _wrapped(f"{indent}{part}", console.width):
                console.print(Text(piece, style), soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def fit(ranks: Sequence[int], widths: Sequence[int], least: Sequence[int], room: int) -> dict[int, int]:
    """Return the widths of the columns to show. High ranks are dropped (0 stays), then the widest are narrowed."""
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


def _print_table(console: Console, table: TableBlock) -> None:
    indent = 0 if table.tabbed else 2
    room = console.width - indent
    shown = [n for n in table.shown_on("screen") if not (table.columns[n].drawn and console.options.ascii_only)]
    columns = [table.columns[number] for number in shown]
    heads = [plain(column.name) for column in columns]
    rows = [[plain(row[number]) for number in shown] for row in table.rows]
    if sum(max(map(len, side)) for side in zip(heads, *rows, strict=True)) + GAP * (len(heads) - 1) > room:
        for at, column in enumerate(columns):
            if column.brief:
                heads[at] = BRACKETS.sub("", heads[at])
                for row in rows:
                    row[at] = BRACKETS.sub("", row[at])
    texts = [[_cell(column, cell) for column, cell in zip(columns, row, strict=True)] for row in rows]
    sides = [[Text(head), *side] for head, *side in zip(heads, *texts, strict=True)]
    widths = [_widest(side, "\n") for side in sides]
    least = [
        min(width, _least(column, side) or width) for column, width, side in zip(columns, widths, sides, strict=True)
    ]
    if table.instead is not None and sum(widths) + GAP * (len(widths) - 1) > room:
        _print_rich(console, table.instead)
        return
    kept = fit([column.rank for column in columns], widths, least, room)
    made = Table(header_style="bold", box=SIMPLE_HEAD if table.tabbed else None, show_header=any(heads))
    made.show_edge, made.pad_edge, made.padding = False, False, (0, GAP - 1 if table.tabbed else GAP, 0, 0)
    for number, width in kept.items():
        column = columns[number]
        look: Any = "right" if is_number(column, [row[number] for row in rows]) else "left"
        wraps = column.wraps or column.look == "number"
        overflow: Any = "fold" if wraps else "ellipsis"
        made.add_column(Text(heads[number]), width=width, justify=look, no_wrap=not wraps, overflow=overflow)
    for at, cells in enumerate(texts):
        made.add_row(*(cells[number] for number in kept), style="dim" if at in table.quiet else "")
    if table.title:
        console.print(Text(one_line(table.title), "bold"))
    if any(heads):
        console.print(Padding(made, (0, 0, 0, indent), expand=False))
    else:  # commands: whole, to be copied
        for line in plain_table(table)[bool(table.title) :]:
            console.print(Text(line), soft_wrap=True)
    if gone := [heads[number] for number in range(len(columns)) if heads[number] and number not in kept]:
        console.print(Text(f"hidden (narrow terminal): {', '.join(gone)}", "dim"))
    for piece in _wrapped(plain(table.note), console.width) if table.note else ():
        console.print(Text(piece))


def _least(column: Column, side: Sequence[Text]) -> int:
    # minimum width of a column with its head; only heads of numbers may wrap
    if column.look == "number":
        return max(_widest(side[:1], None), _widest(side[1:], "\n"))
    return max(column.floor, column.wraps and min(WORD, _widest(side, None)))


def _cell(column: Column, text: str) -> Text:
    if column.digests and DIGEST.fullmatch(text):
        return Text(f"{text[:12]}…")
    style = {"+": "green", "-": "red"}.get(text[:1], "") if column.gain and text.strip("+-0.") else ""
    return Text(text, style)


def _widest(cells: Sequence[Text], between: str | None) -> int:
    # of a line, or of a word where `between` is None
    return max((cell_len(part) for cell in cells for part in cell.plain.split(between)), default=0)
