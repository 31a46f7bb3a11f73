"""Blocks on stdout: fitted to the width of a terminal, plain and complete in a pipe. All text is untrusted.

`screen.py` draws them on a terminal, with rich; a pipe does not import it.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

from agent.report.blocks import Block, Column, DiffBlock, PageSection, PlainBlock, ProseBlock, TableBlock, shown_on
from agent.report.prompt_texts import word_diff
from agent.safe_text import plain

NUMBER = re.compile(r"[-+]?[\d,]*+(?:(?<=\d)|\.\d++)|-|")
WIDEST = 100
"""Longest table line in a pipe; wider tables are replaced by their `instead`."""
WON, LOST, TIED = "▲", "▼", "·"


def show_sections(sections: Iterable[PageSection]) -> None:
    """Print sections with an empty line between them."""
    for line in lines_of(sections)[1:]:
        print(line)


def lines_of(sections: Iterable[PageSection]) -> list[str]:
    """Return the lines of sections, an empty one before each."""
    return [line for section in sections if (lines := rendered(section.blocks)) for line in ("", *lines)]


def rendered(blocks: Iterable[Block]) -> list[str]:
    """Return the lines of blocks for stdout, coloured on a terminal."""
    draw: Callable[[PlainBlock], list[str]] = plain_lines
    if sys.stdout.isatty():
        from agent.report.screen import drawer

        draw = drawer()
    lines: list[str] = []
    for block in shown_on("screen", blocks):
        is_headed = bool(block.title and not block.tabbed if isinstance(block, TableBlock) else block.heading)
        lines += [""] * (is_headed and bool(lines))
        lines += draw(block)
    return lines


# -- a pipe -----------------------------------------------------------------------------------------------------------


def plain_lines(block: PlainBlock) -> list[str]:
    if isinstance(block, TableBlock):
        return plain_table(block)
    if isinstance(block, ProseBlock) and block.drawn:
        return []
    head = [one_line(block.heading)] if block.heading else []
    if isinstance(block, DiffBlock):
        return [*head, *map(plain, diff_lines(block))]
    indent = "  " if block.heading and not block.exact else ""
    lines = [f"{indent}{part}" for line in block.lines for part in plain(line).split("\n")]
    return [*head, *lines]


def plain_table(table: TableBlock) -> list[str]:
    kept = [number for number in table.shown_on("screen") if not table.columns[number].drawn]
    columns = [table.columns[number] for number in kept]
    if table.tabbed:
        lines = [[column.name for column in columns]]
        lines += [[re.sub(r"[\t\n]", " ", row[number]) for number in kept] for row in table.rows]
        return ["\t".join(map(plain, line)) for line in lines]
    cells = [[one_line(row[number]) for number in kept] for row in table.rows]
    heads = [plain(column.name) for column in columns]
    widths = [max(map(len, side)) for side in zip(heads, *cells, strict=True)]
    is_right = [is_number(column, side) for column, side in zip(columns, zip(*cells, strict=True), strict=True)]
    lines = [heads, *cells] if any(heads) else cells
    set_lines = [
        "  ".join(f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in zip(line, widths, is_right, strict=True))
        for line in lines
    ]
    if table.instead is not None and max(map(len, set_lines), default=0) > WIDEST:
        return plain_lines(table.instead)
    title, note = ([one_line(words)] if words else [] for words in (table.title, table.note))
    return [*title, *(f"  {line}".rstrip() for line in set_lines), *note]


def one_line(text: str) -> str:
    return " ".join(plain(text).split())


def is_number(column: Column, cells: Sequence[str]) -> bool:
    return not column.drawn and (column.look == "number" or all(map(NUMBER.fullmatch, cells)))


def diff_lines(diff: DiffBlock) -> list[str]:
    if diff.words:
        return word_diff(diff.old, diff.new).split("\n") if diff.old != diff.new else ["(the same)"]
    sides = (diff.old.splitlines(), diff.new.splitlines())
    lines = difflib.unified_diff(*sides, diff.old_name, diff.new_name, lineterm="", n=2)
    return list(lines) or ["(the same)"]


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
