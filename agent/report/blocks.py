"""What a result says, on every surface: texts, tables, charts, diffs. Data alone; a renderer decides how it looks.

`terminal` renders them for a screen or a pipe, the macros of templates/parts.html for pages and notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from agent.report.page_blocks import FigureBlock, FormBlock, GroupBlock, LineBlock, ProgressBlock, TermsBlock
from agent.safe_text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Surface = Literal["", "screen", "page"]
"""Where a block or a column is shown: everywhere, on a terminal alone, on pages alone."""


def short(text: str, width: int) -> str:
    """Put plain text into one line of at most `width` characters."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!', ':')) else '.'}" if text else ""


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is set.

    Args:
        name: its head.
        look: `number`: to the right; `long`: wrapped; `text`: in its lines, a long one folded; `code`: to be copied;
            others are classes of web.css.
        rank: on a narrow screen the columns of the highest rank go first; 0 always stays.
        floor: it may be narrowed to this many characters; 0: never.
        wraps: on a narrow screen it takes more lines and is not shortened.
        brief: a narrow screen shows neither intervals nor other words in brackets.
        digests: a screen shows the start of a SHA-256 digest.
        gain: a difference, which a screen shows in green or red.
        drawn: a picture of numbers that stand next to it, for a screen alone.
        sort: how a page is sorted by it: `ascending` or `descending`.
    """

    name: str
    look: Literal["", "number", "long", "text", "code", "short", "break", "id"] = ""
    rank: int = 0
    floor: int = 0
    wraps: bool = False
    brief: bool = False
    digests: bool = False
    gain: bool = False
    drawn: bool = False
    sort: str = ""
    on: Surface = ""


class PageCell(str):
    """A text that is more on a page.

    Args:
        href: it is a link.
        tag: a badge of a class of page.css; `soft`, `strong` and `code` only set it; `current`: the link of this page;
            `pick`: a tick box whose value is `href`.
        parts: what it consists of, each set on its own.
    """

    href: str
    tag: str
    parts: tuple[str, ...]

    def __new__(cls, text: str, href: str = "", tag: str = "", parts: Sequence[str] = ()) -> Self:
        made = super().__new__(cls, text)
        made.href, made.tag, made.parts = href, tag, tuple(parts)
        return made


def cells(*parts: str) -> PageCell:
    """Several texts, links and badges as one cell; empty ones are left out."""
    kept = [part for part in parts if part]
    return PageCell(" ".join(kept), parts=kept)


@dataclass(frozen=True, slots=True)
class TableBlock:
    """Cells of plain text; the first cell of a row names it.

    Args:
        note: what a reader must know in addition.
        explained: the same, for a reader of a page.
        folded: a page shows the title alone until it is opened.
        quiet: numbers of the rows that stand back.
        shades: by row and column a class of page.css.
        instead: stands on a screen that is too narrow for the whole table, which is then left out.
        tabbed: a listing: a rule below its heads, and in a pipe a line of tab-separated cells for each row.
    """

    kind: ClassVar = "table"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    explained: str = ""
    on: Surface = ""
    folded: bool = False
    quiet: frozenset[int] = frozenset()
    shades: tuple[tuple[str, ...], ...] = ()
    instead: ProseBlock | None = None
    tabbed: bool = False

    def shown_on(self, surface: Surface) -> list[int]:
        """The numbers of the columns that a surface shows."""
        shown = [(number, column) for number, column in enumerate(self.columns) if column.on in ("", surface)]
        return [number for number, column in shown if not (column.drawn and surface == "page")]


@dataclass(frozen=True, slots=True)
class ProseBlock:
    """Paragraphs, or under a heading a list.

    Args:
        exact: lines are kept as they are: a prompt, a reply, a path.
        strong: stands out.
        drawn: strips of the marks of `terminal.won_and_lost`, for a terminal alone.
        folded: a page shows the heading alone until it is opened.
    """

    kind: ClassVar = "text"
    lines: tuple[str, ...]
    heading: str = ""
    exact: bool = False
    strong: bool = False
    drawn: bool = False
    folded: bool = False
    on: Surface = ""


@dataclass(frozen=True, slots=True)
class DiffBlock:
    """Two texts and what differs. `words`: a screen marks words, not lines; `is_short`: a page leaves long equal parts
    out."""

    kind: ClassVar = "diff"
    old: str
    new: str
    heading: str = ""
    old_name: str = "A"
    new_name: str = "B"
    words: bool = False
    is_short: bool = False
    on: Surface = ""


@dataclass(frozen=True)
class ChartBlock:
    """A drawing, and the table with its numbers, which is all that a screen shows."""

    kind: ClassVar = "chart"
    name: str
    title: str
    draw: Callable[[], Figure]
    table: TableBlock
    is_open: bool = False
    on: Surface = ""

    @cached_property
    def svg(self) -> str:
        """The drawing as an <svg> element."""
        from agent.report import charts

        return charts.svg(self.draw(), self.name, self.title)


PlainBlock = TableBlock | ProseBlock | DiffBlock
"""What a pipe can show."""


PageBlock = LineBlock | GroupBlock | FormBlock | FigureBlock | ProgressBlock | TermsBlock
Block = TableBlock | ProseBlock | DiffBlock | ChartBlock | PageBlock


@dataclass(frozen=True, slots=True)
class PageSection:
    """Blocks that belong together. A page has it under its title, and `name` as the address in the page."""

    name: str
    title: str
    blocks: tuple[Block, ...]

    def __bool__(self) -> bool:
        return bool(self.blocks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, what pages show of it; of a chart its numbers."""
        return {"name": self.name, "title": self.title, "blocks": [_as_dict(block) for block in self.on_page()]}

    def on_page(self) -> tuple[PlainBlock, ...]:
        """The blocks that a page shows, of each chart the table."""
        return shown_on("page", self.blocks)


def plain_section(*blocks: Block) -> PageSection:
    """A section without a title."""
    return PageSection("", "", blocks)


def shown_on(surface: Surface, blocks: Iterable[Block]) -> tuple[PlainBlock, ...]:
    """The blocks that a surface shows, of each chart the table, without those that only a browser can show."""
    here = (block for block in blocks if block.on in ("", surface))
    shown = (block.table if isinstance(block, ChartBlock) else block for block in here)
    return tuple(block for block in shown if isinstance(block, PlainBlock) and block.on in ("", surface))


def _as_dict(block: PlainBlock) -> dict[str, Any]:
    if isinstance(block, TableBlock):
        shown = block.shown_on("page")
        columns = [block.columns[number].name for number in shown]
        rows = [[row[number] for number in shown] for row in block.rows]
        return {"table": block.title, "columns": columns, "rows": rows, "note": block.note}
    if isinstance(block, DiffBlock):
        return {"diff": [block.old, block.new]}
    return {"text": block.heading, "lines": list(block.lines)}


def table(title: str, columns: Sequence[Column | str], rows: Iterable[Sequence[Any]], **more: Any) -> TableBlock:
    """Make a table; None is an empty cell.

    Args:
        columns: the end of a bare name sets the look: " #" number, " ~" long, " $" code.
        more: other fields of `TableBlock`.
    """
    cells = tuple(tuple(_cell(cell) for cell in row) for row in rows)
    return TableBlock(title, tuple(map(_column, columns)), cells, **more)


def listing(
    title: str, columns: Sequence[tuple[Column | str, str | Callable[[Any], Any]]], records: Iterable[Any], **more: Any
) -> TableBlock:
    """Make a table of records: each column with the name of a part of a record, or with what makes its cell of one."""
    rows = [[of(record) if callable(of) else _part(record, of) for _, of in columns] for record in records]
    return table(title, [column for column, _ in columns], rows, **more)


def _part(record: Any, name: str) -> Any:
    return record[name] if isinstance(record, Mapping) else getattr(record, name)


def _cell(cell: Any) -> str:
    return cell if isinstance(cell, str) else "" if cell is None else str(cell)


def _column(column: Column | str) -> Column:
    if isinstance(column, Column):
        return column
    name, _, end = column.rpartition(" ")
    if end == "#":
        return Column(name, "number", brief=name.endswith("(95 % CI)") and not name.startswith("difference"))
    if end == "$":
        return Column(name, "code")
    return Column(name if end == "~" else column, "long" if end == "~" else "", floor=12, wraps=True)


def text(*lines: str, **more: Any) -> ProseBlock:
    """Make a text of those lines that say something; `more`: other fields of `ProseBlock`."""
    return ProseBlock(tuple(line for line in lines if line), **more)


def line(*parts: str, **more: Any) -> LineBlock:
    """Make a paragraph of a page; `more`: other fields of `LineBlock`."""
    return LineBlock(parts, **more)


def group(*blocks: Block | None, **more: Any) -> GroupBlock:
    """Make a group of those blocks that there are; `more`: other fields of `GroupBlock`."""
    return GroupBlock(tuple(block for block in blocks if block is not None), **more)


def filled(*blocks: Block | None) -> tuple[Block, ...]:
    """The blocks that have something to show."""
    return tuple(block for block in blocks if block is not None and _has_content(block))


def _has_content(block: Block) -> bool:
    if isinstance(block, ChartBlock):
        return bool(block.table.rows)
    if isinstance(block, TableBlock):
        return bool(block.rows or block.tabbed)
    return bool(block.lines) if isinstance(block, ProseBlock) else True
