"""Blocks shared by several web pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from agent.prompt.template import label_text
from agent.report.blocks import Block, PageCell, PageSection, filled, line, soft, text
from agent.report.page_blocks import Button, FormBlock, FormField, LineBlock
from agent.safe_text import counted

COMPARE = Button("Compare the two that are ticked")


def section(title: str, *blocks: Block | None, name: str = "") -> PageSection:
    """Return a section of a page; `name` is its anchor."""
    return PageSection(name or title.casefold().replace(" ", "-"), title, filled(*blocks))


def address(*parts: object) -> str:
    """Return the path of these parts, each quoted."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def link(words: str, *parts: object, tag: str = "") -> PageCell:
    """Return a link to the path of these parts."""
    return PageCell(words, address(*parts), tag)


def pick(value: str, words: str) -> PageCell:
    """Return a tick box of a form with COMPARE."""
    return PageCell(f"Compare {words}", value, "pick")


def search(action: str, value: str, words: str, everything: str, *fields: FormField, size: int = 24) -> FormBlock:
    """Return a search form; `everything`: the address without the search."""
    field = FormField("text", value, words, more={"size": size, "maxlength": 200})
    after = (PageCell("all", everything),) if value else ()
    return FormBlock(action, (*fields, field), (Button("Search"),), after=after)


def hidden(**values: str) -> tuple[FormField, ...]:
    """Return hidden fields of a form."""
    return tuple(FormField(name, value, kind="hidden") for name, value in values.items())


def run_link(run_id: str) -> PageCell:
    return link(f"run {run_id}", "run", run_id)


def head(title: str, *blocks: Block | None, above: str = "") -> PageSection:
    """Return the start of a page: its heading, below a link to the page `above`."""
    return section("", line(above, look="crumbs") if above else None, line(title, level=1), *blocks)


def links(of: Iterable[PageCell]) -> LineBlock:
    """Return links next to each other."""
    return line(*(part for one in of for part in (one, " ")), look="links")


def box(words: str, look: str = "") -> LineBlock | None:
    """Return a notice; None without a message."""
    return line(words, look=f"box {look}".strip()) if words else None


def moment(utc: str | None, letters: int = 19) -> str:
    """Return a time of the ledger for a page."""
    return (utc or "")[:letters].replace("T", " ")


def value_text(value: Any) -> str:
    """Return a value of a row or of the ledger as text."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else label_text(value)


def pager(place: Mapping[str, Any], what: str, of: int | None = None) -> LineBlock:
    """Return row count, page number, and links to the previous and next page.

    `what`: the noun, such as "row". `of`: the number without a filter.
    """
    count = counted(place["count"], what) if of is None else f"{place['count']:,} of {counted(of, what)}"
    parts = [count]
    start = f"?{place['query']}{'&' if place['query'] else ''}page="
    if place["pages"] > 1:
        parts.append(f" · page {place['page']} of {place['pages']} ")
        parts += [PageCell("previous", f"{start}{place['page'] - 1}")] * (place["page"] > 1)
        parts += [PageCell("next", f"{start}{place['page'] + 1}")] * (place["page"] < place["pages"])
    return line(*parts, look="pager soft")


def named(values: Mapping[str, Any], before: str = "", tag: str = "") -> list[LineBlock]:
    """Return named values, a line each."""
    return [
        line(soft(f"{before}{name}:"), " ", PageCell(value_text(v), tag=tag), look="text") for name, v in values.items()
    ]


def messages(of: Iterable[Mapping[str, str]], level: int = 3) -> list[Block]:
    """Return messages, each under its role."""
    return [block for one in of for block in (line(one["role"], level=level), text(one["content"], exact=True))]
