"""Blocks that several web pages share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from agent.prompt.template import label_text
from agent.report import facts
from agent.report.blocks import Block, PageCell, PageSection, filled, group, line, text
from agent.report.facts import points
from agent.report.page_blocks import GroupBlock, LineBlock
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
"""The class of a badge without a colour."""
NO_ROWS = "The rows of the task are not at hand (its folder is gone, or they changed since), so only answers are shown."


def section(title: str, *blocks: Block | None, name: str = "") -> PageSection:
    """A section of a page; `name`: its address in the page."""
    return PageSection(name or title.casefold().replace(" ", "-"), title, filled(*blocks))


def address(*parts: object) -> str:
    """The path of these parts, each quoted."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def link(words: str, *parts: object, tag: str = "") -> PageCell:
    """A link to the path of these parts."""
    return PageCell(words, address(*parts), tag)


def soft(words: str) -> PageCell:
    """A quiet text."""
    return PageCell(words, tag="soft")


def strong(words: str) -> PageCell:
    """A strong text."""
    return PageCell(words, tag="strong")


def badge(word: str) -> PageCell:
    """A state, or which prompt of the run a trial is, as a badge; "" for none."""
    is_prompt = word and word not in ("complete", "running", "pruned", "incomplete", "interrupted", "budget")
    return PageCell(word, tag=TAGS.get(word, "good" if is_prompt and " " in word else PLAIN)) if word else PageCell("")


def title(*parts: str) -> LineBlock:
    """The heading of a page."""
    return line(*parts, level=1)


def crumbs(words: str, *parts: object) -> LineBlock:
    """The way back."""
    return line(link(words, *parts), look="crumbs")


def links(of: Iterable[PageCell]) -> LineBlock:
    """Links next to each other."""
    return line(*(part for one in of for part in (one, " ")), look="links")


def box(words: str, look: str = "") -> LineBlock | None:
    """A notice; None without words."""
    return line(words, look=f"box {look}".strip()) if words else None


def moment(utc: str | None, letters: int = 19) -> str:
    """The time of the ledger for a page."""
    return (utc or "")[:letters].replace("T", " ")


def value_text(value: Any) -> str:
    """A value of a row or of the ledger as a text."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else label_text(value)


def pager(place: Mapping[str, Any], what: str, of: int | None = None) -> LineBlock:
    """How many there are, which page this is, and links to its neighbours.

    `what`: one of them, such as "row". `of`: how many there are without a filter.
    """
    count = counted(place["count"], what) if of is None else f"{place['count']:,} of {counted(of, what)}"
    parts, start = [count], f"?{place['query']}{'&' if place['query'] else ''}page="
    if place["pages"] > 1:
        parts.append(f" · page {place['page']} of {place['pages']} ")
        parts += [PageCell("previous", f"{start}{place['page'] - 1}")] * (place["page"] > 1)
        parts += [PageCell("next", f"{start}{place['page'] + 1}")] * (place["page"] < place["pages"])
    return line(*parts, look="pager soft")


def named(values: Mapping[str, Any], before: str = "", tag: str = "") -> list[LineBlock]:
    """Values by name, a line each."""
    return [
        line(soft(f"{before}{name}:"), " ", PageCell(value_text(v), tag=tag), look="text") for name, v in values.items()
    ]


def row_pair(row: Mapping[str, Any], verdict: PageCell, sides: Sequence[str]) -> GroupBlock:
    """A row with what one or two prompts made of it; `sides`: what these are called."""
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
    """By how much a score changed, where it did."""
    return PageCell(facts.gain(change), tag="good" if change > 0 else "bad") if change else PageCell("")


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
    """Messages, each under its role."""
    return [block for one in of for block in (line(one["role"], level=level), text(one["content"], exact=True))]
