"""Blocks on stdout: fitted to the width of a terminal, plain and complete in a pipe. All text is untrusted.

On a terminal text is shortened before columns are dropped; a line below names the dropped ones. Except for the progress
display of cli/, the only importer of rich.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from agent.report.blocks import Block, Column, DiffBlock, PageSection, PlainBlock, ProseBlock, TableBlock, shown_on
from agent.report.prompt_texts import word_diff
from agent.safe_text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text as RichText

NUMBER = re.compile(r"[-+]?[\d,]*+(?:(?<=\d)|\.\d++)|-|")
DIGEST = re.compile(r"[0-9a-f]{64}")
BRACKETS = re.compile(r" \([^()]*\)$")
GAP, WORD = 2, 30
WIDEST = 100
"""Longest table line in a pipe; wider tables are replaced by their `instead`."""
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
WON, LOST, TIED = "▲", "▼", "·"
MARK_STYLES = {WON: "green", LOST: "red", TIED: "dim"}


def show_sections(sections: Iterable[PageSection]) -> None:
    """Print sections with an empty line between them."""
    for line in lines_of(sections)[1:]:
        print(line)


def lines_of(sections: Iterable[PageSection]) -> list[str]:
    """Return the lines of sections, an empty one before each."""
    return [line for section in sections if (lines := rendered(section.blocks)) for line in ("", *lines)]


def rendered(blocks: Iterable[Block]) -> list[str]:
    """Return the lines of blocks for stdout, coloured on a terminal."""
    console = _console() if sys.stdout.isatty() else None
    lines: list[str] = []
    for block in shown_on("screen", blocks):
        is_headed = bool(block.title and not block.tabbed if isinstance(block, TableBlock) else block.heading)
        lines += [""] * (is_headed and bool(lines))
        if console is None:
            lines += _plain_lines(block)
            continue
        with console.capture() as captured:
            _print_rich(console, block)
        lines += captured.get().splitlines()
    return lines


# -- a pipe -----------------------------------------------------------------------------------------------------------


def _plain_lines(block: PlainBlock) -> list[str]:
    if isinstance(block, TableBlock):
        return _plain_table(block)
    if isinstance(block, ProseBlock) and block.drawn:
        return []
    head = [_one_line(block.heading)] if block.heading else []
    if isinstance(block, DiffBlock):
        return [*head, *map(plain, _diff_lines(block))]
    indent = "  " if block.heading and not block.exact else ""
    lines = [f"{indent}{part}" for line in block.lines for part in plain(line).split("\n")]
    return [*head, *lines]


def _plain_table(table: TableBlock) -> list[str]:
    kept = [number for number in table.shown_on("screen") if not table.columns[number].drawn]
    columns = [table.columns[number] for number in kept]
    if table.tabbed:
        lines = [[column.name for column in columns]]
        lines += [[re.sub(r"[\t\n]", " ", row[number]) for number in kept] for row in table.rows]
        return ["\t".join(map(plain, line)) for line in lines]
    cells = [[_one_line(row[number]) for number in kept] for row in table.rows]
    heads = [plain(column.name) for column in columns]
    widths = [max(map(len, side)) for side in zip(heads, *cells, strict=True)]
    is_right = [_is_number(column, side) for column, side in zip(columns, zip(*cells, strict=True), strict=True)]
    lines = [heads, *cells] if any(heads) else cells
    set_lines = [
        "  ".join(f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in zip(line, widths, is_right, strict=True))
        for line in lines
    ]
    if table.instead is not None and max(map(len, set_lines), default=0) > WIDEST:
        return _plain_lines(table.instead)
    title, note = ([_one_line(words)] if words else [] for words in (table.title, table.note))
    return [*title, *(f"  {line}".rstrip() for line in set_lines), *note]


def _one_line(text: str) -> str:
    return " ".join(plain(text).split())


def _is_number(column: Column, cells: Sequence[str]) -> bool:
    return not column.drawn and (column.look == "number" or all(map(NUMBER.fullmatch, cells)))


def _diff_lines(diff: DiffBlock) -> list[str]:
    if diff.words:
        return word_diff(diff.old, diff.new).split("\n") if diff.old != diff.new else ["(the same)"]
    sides = (diff.old.splitlines(), diff.new.splitlines())
    lines = difflib.unified_diff(*sides, diff.old_name, diff.new_name, lineterm="", n=2)
    return list(lines) or ["(the same)"]


# -- a terminal -------------------------------------------------------------------------------------------------------


def _console() -> Console:
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 has no … and few other letters
    width, height = shutil.get_terminal_size()
    return Console(width=width, height=height, highlight=False, emoji=False, markup=False)


def _print_rich(console: Console, block: PlainBlock) -> None:
    from rich.text import Text as RichText

    if isinstance(block, TableBlock):
        _print_table(console, block)
        return
    if isinstance(block, ProseBlock) and block.drawn:
        for strip in [] if console.options.ascii_only else block.lines:
            for start in range(0, len(strip), console.width):
                marks = strip[start : start + console.width]
                console.print(RichText.assemble(*((mark, MARK_STYLES.get(mark, "")) for mark in marks)))
        return
    if block.heading:
        console.print(RichText(plain(block.heading), "bold"))
    if isinstance(block, DiffBlock):
        for line in _diff_lines(block):
            style = "" if block.words or line.startswith(("+++", "---")) else DIFF_STYLES.get(line[:1], "")
            console.print(RichText(plain(line), style))
        return
    style, indent = "bold" if block.strong else "", "  " if block.heading and not block.exact else ""
    for line in block.lines:
        for part in plain(line).split("\n"):
            if block.exact:
                console.print(RichText(f"{indent}{part}", style), soft_wrap=True)
                continue
            for piece in _wrapped(f"{indent}{part}", console.width):
                console.print(RichText(piece, style), soft_wrap=True)


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
    from rich.box import SIMPLE_HEAD
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

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
    sides = [[RichText(head), *side] for head, *side in zip(heads, *texts, strict=True)]
    widths = [_widest(side, "\n") for side in sides]
    least = [
        min(width, _least(column, side) or width) for column, width, side in zip(columns, widths, sides, strict=True)
    ]
    if table.instead is not None and sum(widths) + GAP * (len(widths) - 1) > room:
        _print_rich(console, table.instead)
        return
    kept = fit([column.rank for column in columns], widths, least, room)
    made = RichTable(header_style="bold", box=SIMPLE_HEAD if table.tabbed else None, show_header=any(heads))
    made.show_edge, made.pad_edge, made.padding = False, False, (0, GAP - 1 if table.tabbed else GAP, 0, 0)
    for number, width in kept.items():
        column = columns[number]
        look: Any = "right" if _is_number(column, [row[number] for row in rows]) else "left"
        wraps = column.wraps or column.look == "number"
        overflow: Any = "fold" if wraps else "ellipsis"
        made.add_column(RichText(heads[number]), width=width, justify=look, no_wrap=not wraps, overflow=overflow)
    for at, cells in enumerate(texts):
        made.add_row(*(cells[number] for number in kept), style="dim" if at in table.quiet else "")
    if table.title:
        console.print(RichText(_one_line(table.title), "bold"))
    if any(heads):
        console.print(Padding(made, (0, 0, 0, indent), expand=False))
    else:  # commands: whole, to be copied
        for line in _plain_table(table)[bool(table.title) :]:
            console.print(RichText(line), soft_wrap=True)
    if gone := [heads[number] for number in range(len(columns)) if heads[number] and number not in kept]:
        console.print(RichText(f"hidden (narrow terminal): {', '.join(gone)}", "dim"))
    for piece in _wrapped(plain(table.note), console.width) if table.note else ():
        console.print(RichText(piece))


def _least(column: Column, side: Sequence[RichText]) -> int:
    # minimum width of a column with its head; only heads of numbers may wrap
    if column.look == "number":
        return max(_widest(side[:1], None), _widest(side[1:], "\n"))
    return max(column.floor, column.wraps and min(WORD, _widest(side, None)))


def _cell(column: Column, text: str) -> RichText:
    from rich.text import Text as RichText

    if column.digests and DIGEST.fullmatch(text):
        return RichText(f"{text[:12]}…")
    style = {"+": "green", "-": "red"}.get(text[:1], "") if column.gain and text.strip("+-0.") else ""
    return RichText(text, style)


def _widest(cells: Sequence[RichText], between: str | None) -> int:
    # of a line, or of a word where `between` is None
    from rich.cells import cell_len

    return max((cell_len(part) for cell in cells for part in cell.plain.split(between)), default=0)


# -- numbers as marks -------------------------------------------------------------------------------------------------

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(scores: Sequence[float], width: int) -> str:
    """Return scores in [0, 1] as at most `width` bar heights."""
    if len(scores) > width:
        scores = [scores[(len(scores) - 1) * place // (width - 1)] for place in range(width)]
    return "".join(LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * score))] for score in scores)


def whisker(mean: float | None, low: float | None, high: float | None, width: int) -> str:
    """Draw a score in [0, 1] as a dot, and its interval as a line."""
    if mean is None:
        return ""

    def place(score: float) -> int:
        return min(width - 1, max(0, int(width * score)))

    places = [" "] * width
    if low is not None and high is not None:
        for at in range(place(low), place(high) + 1):
            places[at] = "─"
    places[place(mean)] = "●"
    return "".join(places)


def won_and_lost(differences: Iterable[float]) -> str:
    """Return one mark for each difference: won, lost or tied."""
    return "".join(WON if value > 0 else LOST if value < 0 else TIED for value in differences)
