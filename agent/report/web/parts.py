"""Blocks shared by several web pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from agent.prompt.template import label_text
from agent.report import wording
from agent.report.blocks import Block, PageCell, PageSection, filled, group, line, text
from agent.report.page_blocks import GroupBlock, LineBlock
from agent.report.wording import points
from agent.safe_text import counted

TAGS: Mapping[str, str] = {
    "complete": "good",
    "running": "base",
    "killed": "bad",
    "failed": "bad",
    "your prompt": "base",
    "released prompt": "base",
}
"""By word the class of its badge."""
PLAIN = "plain"
"""Class of a badge without a colour."""
NO_ROWS = "Inputs are not shown: the task's rows are gone or have changed since the run."


def section(title: str, *blocks: Block | None, name: str = "") -> PageSection:
    """Return a section of a page; `name` is its anchor."""
    return PageSection(name or title.casefold().replace(" ", "-"), title, filled(*blocks))


def address(*parts: object) -> str:
    """Return the path of these parts, each quoted."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def link(words: str, *parts: object, tag: str = "") -> PageCell:
    """Return a link to the path of these parts."""
    return PageCell(words, address(*parts), tag)


def soft(words: str) -> PageCell:
    return PageCell(words, tag="soft")


def strong(words: str) -> PageCell:
    return PageCell(words, tag="strong")


def badge(word: str) -> PageCell:
    """Return a badge for a state or for which prompt a trial is; "" if neither."""
    is_prompt = word and word not in ("complete", "running", "pruned", "incomplete", "interrupted", "budget")
    return PageCell(word, tag=TAGS.get(word, "good" if is_prompt and " " in word else PLAIN)) if word else PageCell("")


def title(*parts: str) -> LineBlock:
    """Return the heading of a page."""
    return line(*parts, level=1)


def crumbs(words: str, *parts: object) -> LineBlock:
    """Return the breadcrumbs."""
    return line(link(words, *parts), look="crumbs")


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
    """Return the number of rows, the page number, and links to the pages before and after.

    `what`: the noun, such as "row". `of`: the number without a filter.
    """
    count = counted(place["count"], what) if of is None else f"{place['count']:,} of {counted(of, what)}"
    parts, start = [count], f"?{place['query']}{'&' if place['query'] else ''}page="
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


def row_pair(row: Mapping[str, Any], verdict: PageCell, sides: Sequence[str]) -> GroupBlock:
    """Return a row with the outcomes of one or two prompts; `sides`: their names."""
    answers = [_side(row[key], name) for key, name in zip(("one", "two"), sides, strict=False)]
    return group(
        line(row["example_id"], " ", verdict, level=3),
        *named(row["inputs"]),
        *named(row["labels"], "right ", "strong"),
        group(*answers, look="pair"),
        tag="article",
        look="row",
    )


def change_badge(change: float | None) -> PageCell:
    """Return the change of a score as a badge, if any."""
    return PageCell(wording.gain(change), tag="good" if change > 0 else "bad") if change else PageCell("")


def _side(one: Mapping[str, Any] | None, name: str) -> GroupBlock:
    score = {1: "good", 0: "bad"}.get(one["value"], PLAIN) if one else PLAIN
    head = line(name, " ", PageCell(points(one["value"]) if one else "-", tag=score), level=4)
    if one is None:
        return group(head, line("not asked about this row", look="soft"), look="answer")
    reasons = [(metric, reason) for metric, _, reason in one["scores"] if reason and reason != one["error"]]
    return group(
        head,
        line(one["reply"] or "(no reply)", look="text"),
        line(one["error"], look="text bad") if one["error"] else None,
        *(line(f"{metric}: {reason}", look="soft text") for metric, reason in reasons),
        line(link("its call", "call", one["call_key"]), look="soft"),
        look="answer",
    )


def messages(of: Iterable[Mapping[str, str]], level: int = 3) -> list[Block]:
    """Return messages, each under its role."""
    return [block for one in of for block in (line(one["role"], level=level), text(one["content"], exact=True))]
