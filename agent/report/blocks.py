"""Blocks of a result for every surface: texts, tables, charts, diffs. Data only; a renderer decides the look.

`terminal` renders them for screens and pipes, the macros of templates/parts.html for pages and notebooks.
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
"""Surfaces of a block or column: all, terminal only, or pages only."""


def short(text: str, width: int) -> str:
    """Join plain text into one line of at most `width` characters."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def sentence(text: str) -> str:
    """Capitalize the text and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!', ':')) else '.'}" if text else ""


@dataclass(frozen=True, slots=True)
class Column:
    """The format of a column.

    `look`: `number`: right-aligned; `long`: wrapped; `text`: line breaks kept; `code`: copyable; others are classes of
    web.css. Narrow screens drop the columns of the highest `rank` first (0 stays), shorten a column to `floor`
    characters (0: never), wrap it if it `wraps`, and omit its intervals if it is `brief`. Screens shorten SHA-256
    digests if it `digests` and color a `gain`. `drawn`: a picture of numbers of the same row, for screens only. `sort`:
    how a page is sorted by it, `ascending` or `descending`.
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
    """Text with markup for pages.

    `href`: target of a link. `tag`: a badge with a class of page.css, a text style (`soft`, `strong`, `code`),
    `current` for the link of this page, or `pick` for a tick box with the value `href`. `parts`: nested cells.
    """

    href: str
    tag: str
    parts: tuple[str, ...]

    def __new__(cls, text: str, href: str = "", tag: str = "", parts: Sequence[str] = ()) -> Self:
        made = super().__new__(cls, text)
        made.href, made.tag, made.parts = href, tag, tuple(parts)
        return made


def soft(words: str) -> PageCell:
    return PageCell(words, tag="soft")


def strong(words: str) -> PageCell:
    return PageCell(words, tag="strong")


def cells(*parts: str) -> PageCell:
    """Join the non-empty texts, links and badges into one cell."""
    kept = [part for part in parts if part]
    return PageCell(" ".join(kept), parts=kept)


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table of plain text cells; the first cell of a row names it.

    `note`: a remark for all surfaces; `explained`: for pages. `folded`: a page shows only the title until it is opened.
    `quiet`: indices of de-emphasized rows. `shades`: by row and column a class of page.css. `instead`: shown on screens
    that are too narrow. `tabbed`: a listing, tab-separated in a pipe.
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
        """Return the indices of the columns that a surface shows."""
        shown = [(number, column) for number, column in enumerate(self.columns) if column.on in ("", surface)]
        return [number for number, column in shown if not (column.drawn and surface == "page")]


@dataclass(frozen=True, slots=True)
class ProseBlock:
    """Paragraphs, or a list under a heading.

    `exact`: keep line breaks, as for a prompt. `drawn`: strips of `terminal.won_and_lost`, for a terminal only.
    `folded`: a page shows only the heading until it is opened.
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
    """A diff of two texts. `words`: screens mark words, not lines; `is_short`: pages omit long equal parts."""

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
    """A chart and the table of its numbers; screens show only the table."""

    kind: ClassVar = "chart"
    name: str
    title: str
    draw: Callable[[], Figure]
    table: TableBlock
    is_open: bool = False
    on: Surface = ""

    @cached_property
    def svg(self) -> str:
        """The chart as an <svg> element."""
        from agent.report import charts

        return charts.svg(self.draw(), self.name, self.title)


PlainBlock = TableBlock | ProseBlock | DiffBlock
"""What a pipe can show."""


PageBlock = LineBlock | GroupBlock | FormBlock | FigureBlock | ProgressBlock | TermsBlock
Block = TableBlock | ProseBlock | DiffBlock | ChartBlock | PageBlock


@dataclass(frozen=True, slots=True)
class PageSection:
    """A titled group of blocks; `name` is its anchor on a page."""

    name: str
    title: str
    blocks: tuple[Block, ...]

    def __bool__(self) -> bool:
        return bool(self.blocks)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of the section; for a chart its numbers."""
        return {"name": self.name, "title": self.title, "blocks": _as_dicts(self.blocks)}


def plain_section(*blocks: Block) -> PageSection:
    """Return a section without a title."""
    return PageSection("", "", blocks)


def shown_on(surface: Surface, blocks: Iterable[Block]) -> tuple[PlainBlock, ...]:
    """Return the blocks that a surface shows, with tables instead of charts."""
    here = (block for block in filled(*blocks) if block.on in ("", surface))
    shown = (block.table if isinstance(block, ChartBlock) else block for block in here)
    return tuple(block for block in shown if isinstance(block, PlainBlock) and block.on in ("", surface))


def _as_dicts(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    return [_as_dict(block) for block in blocks if block.on != "screen"]


def _as_dict(block: Block) -> dict[str, Any]:
    match block:
        case ChartBlock():
            return _as_dict(block.table)
        case TableBlock():
            shown = block.shown_on("page")
            columns = [block.columns[number].name for number in shown]
            rows = [[row[number] for number in shown] for row in block.rows]
            return {"table": block.title, "columns": columns, "rows": rows, "note": block.note}
        case DiffBlock():
            return {"diff": [block.old, block.new]}
        case ProseBlock():
            return {"text": block.heading, "lines": list(block.lines)}
        case LineBlock():
            return {"line": "".join(block.parts)}
        case GroupBlock():
            return {"group": block.title or block.label, "blocks": _as_dicts(block.blocks)}
        case FormBlock():
            fields, buttons = ({one.name: one.value for one in block.fields}, [one.text for one in block.buttons])
            return {"form": block.action, "fields": fields, "buttons": buttons, "blocks": _as_dicts(block.blocks)}
        case FigureBlock():
            return {"figures": dict(block.figures)}
        case ProgressBlock():
            return {"progress": block.label, "done": block.done, "of": block.of}
        case TermsBlock():
            return {"terms": dict(block.words)}


def table(title: str, columns: Sequence[Column | str], rows: Iterable[Sequence[Any]], **more: Any) -> TableBlock:
    """Make a table; None is an empty cell; `more`: other fields of `TableBlock`.

    A suffix of a bare column name sets its look: " #" number, " ~" long, " $" code.
    """
    cells = tuple(tuple(_cell(cell) for cell in row) for row in rows)
    return TableBlock(title, tuple(map(_column, columns)), cells, **more)


def listing(
    title: str, columns: Sequence[tuple[Column | str, str | Callable[[Any], Any]]], records: Iterable[Any], **more: Any
) -> TableBlock:
    """Make a table of records. Each column names a field or a function of the record."""
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
    """Make a paragraph of the non-empty lines; `more`: other fields of `ProseBlock`."""
    return ProseBlock(tuple(line for line in lines if line), **more)


def line(*parts: str, **more: Any) -> LineBlock:
    """Make a paragraph of a page; `more`: other fields of `LineBlock`."""
    return LineBlock(parts, **more)


def group(*blocks: Block | None, **more: Any) -> GroupBlock:
    """Make a group of the given blocks, skipping None; `more`: other fields of `GroupBlock`."""
    return GroupBlock(tuple(block for block in blocks if block is not None), **more)


def filled(*blocks: Block | None) -> tuple[Block, ...]:
    """Return the non-empty blocks."""
    return tuple(block for block in blocks if block is not None and _has_content(block))


def _has_content(block: Block) -> bool:
    if isinstance(block, ChartBlock):
        return bool(block.table.rows)
    if isinstance(block, TableBlock):
        return bool(block.rows or block.tabbed)
    return bool(block.lines) if isinstance(block, ProseBlock) else True
