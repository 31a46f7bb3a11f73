"""HTML in texts: recognise it, strip it, and parse it without scripts, styles and comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from agent.safe_text import counted, quoted

if TYPE_CHECKING:
    from agent.options.shared import FormOptions

_NOT_SHOWN = re.compile(  # removed first: an unclosed one takes html.parser quadratic time
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<![^>]*>?", re.DOTALL | re.IGNORECASE
)
SHARE = 0.1  # a column is reported from this share of texts with HTML
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr",
    "html", "legend", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
    "thead", "title", "tr", "ul",
))  # fmt: skip
INLINE = frozenset((
    "a", "abbr", "acronym", "b", "base", "bdi", "bdo", "big", "button", "cite", "code", "col", "colgroup", "data",
    "del", "dfn", "em", "embed", "font", "i", "iframe", "img", "input", "ins", "kbd", "label", "link", "map",
    "mark", "meta", "noscript", "object", "option", "param", "picture", "q", "s", "samp", "select", "small",
    "source", "span", "strike", "strong", "sub", "sup", "svg", "td", "template", "textarea", "th", "time", "tt",
    "u", "var", "video", "wbr",
))  # fmt: skip
_NAMES = "|".join(sorted(_BLOCKS | INLINE, key=len, reverse=True))
_TAG = re.compile(  # a quoted value may hold >; no part of a tag may hold <, so that hostile text takes linear time
    rf"""</?({_NAMES})(?:\s(?:[^<>=]|=\s*+(?:"[^"<]*+"|'[^'<]*+')?)*+)?/?>""", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#[0-9]{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether a text has tags of HTML, or entities.

    >>> is_html("<p>Hi"), is_html("Tom &amp; Jo"), is_html("a < b > c, <bob@example.org>")
    (True, True, False)
    """
    return _TAG.search(text) is not None or _ENTITY.search(text) is not None


def html_notes(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], form: FormOptions) -> list[str]:
    """Report the columns with HTML, or that it was stripped."""
    if form.strip_html:
        do = "do the same where the prompt is used: optimize apply --strip-html, promptassay.strip_html(text)"
        return [f"HTML was taken out of the inputs (--strip-html); {do}"]
    notes = []
    for name in columns:
        texts = [cell for row in rows if isinstance(cell := row.get(name), str) and cell.strip()]
        if (count := sum(map(is_html, texts))) and count >= SHARE * len(texts):
            where = f"{count} of {counted(len(texts), 'row')}"
            notes.append(f"column {quoted(name)}: HTML in {where}; --strip-html takes it out")
    return notes


def strip_html(text: str) -> str:
    """Strip HTML tags and comments and decode entities; other text stays unchanged.

    >>> strip_html("<p>Tom &amp; Jo</p><p>call <b>me</b>: <jo@example.org></p>")
    'Tom & Jo\\ncall me: <jo@example.org>'
    """
    if not is_html(text):
        return text
    lines = unescape(_TAG.sub(_mark, _NOT_SHOWN.sub(" ", text))).split("\n")
    return "\n".join(line for each in lines if (line := " ".join(each.split())))


def _mark(tag: re.Match[str]) -> str:
    name = tag[1].casefold()
    return "\n" if name in _BLOCKS else " " * (name in ("td", "th"))


def parse_html(page: HTMLParser, text: str) -> None:
    """Feed a text to a parser without scripts, styles and comments. Raises ValueError."""
    shown = _NOT_SHOWN.sub(" ", text)
    end = shown.rfind(">") + 1
    try:
        page.feed(shown[:end] + escape(shown[end:], quote=False).replace("&amp;", "&"))
        page.close()
    except AssertionError as error:  # what the standard library raises on `<![` and the like
        raise ValueError(f"is no HTML that can be read ({str(error)[:60]!a}); correct it") from error


def stripped(value: Any) -> Any:
    """Strip HTML from all texts in a cell."""
    if isinstance(value, str):
        return strip_html(value)
    if isinstance(value, list):
        return [stripped(part) for part in value]
    return {key: stripped(part) for key, part in value.items()} if isinstance(value, dict) else value
