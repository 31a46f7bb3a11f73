"""A page as a test reads it: its elements in order, its text as people see it, its tables by caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}
_TAGS = """
html head meta title style body header main footer section nav figure h1 h2 h3 p ul li a code pre span small strong div
dl dt dd ins del abbr details summary table caption thead tbody tr th td svg defs g path use text clippath rect
"""
_WEB_TAGS = """
link script noscript form label input select option datalist textarea button fieldset legend progress article h4
image kbd
"""
_ATTRIBUTES = """
lang charset http-equiv content name id class href open scope tabindex role aria-label aria-labelledby data-name title
colspan style d x y transform clip-path xlink:href viewbox version type xmlns xmlns:xlink width height
"""
_WEB_ATTRIBUTES = """
rel src defer action method value placeholder required checked selected list for max min size maxlength autocomplete
inputmode rows spellcheck formnovalidate disabled aria-current aria-sort data-live data-url data-show data-as data-key
"""
TAGS, ATTRIBUTES = set(_TAGS.split()), set(_ATTRIBUTES.split())
"""What the report and its charts are made of."""
WEB_TAGS = (TAGS - {"style"}) | set(_WEB_TAGS.split())
WEB_ATTRIBUTES = (ATTRIBUTES - {"http-equiv"}) | set(_WEB_ATTRIBUTES.split())
"""What the pages of `optimize ui` are made of."""
LINKS = ("href", "src", "action", "xlink:href")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a page never holds: controls but for line end and tab, and marks that turn the direction of text."""


class Page(HTMLParser):
    """`nodes`: (tag, attributes) in order. `text`: all text outside <style>, `words` the same with single blanks.
    `tables`: rows of cells by caption."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._texts: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"
        self.text = "".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._texts.append(data)
        if self._open and self._open[-1] == "caption":
            self._caption += data
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data

    @property
    def structure(self) -> list[str]:
        return [tag for tag, _ in self.nodes]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._texts).split())

    @property
    def links(self) -> Iterator[str]:
        """What the page points to, but for the parts of its charts and its empty icon."""
        for tag, attributes in self.nodes:
            found = [] if tag == "use" else [attributes.get(name) for name in LINKS]
            yield from (link for link in found if link is not None and link != "data:,")

    def field(self, name: str) -> str:
        """The value of a form's input."""
        return next(a["value"] or "" for tag, a in self.nodes if tag == "input" and a.get("name") == name)


def assert_harmless(html: str) -> Page:
    """The page holds no script, no handler, no request, no control character, and only what our templates make."""
    page = only(html, TAGS, ATTRIBUTES)
    for tag, attributes in page.nodes:
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        for value in attributes.values():
            assert "//" not in (value or "").replace("http://www.w3.org/", "") or tag == "div", (tag, value)
        assert "url(" not in (attributes.get("style") or "")
    assert len([tag for tag in page.structure if tag == "style"]) == 1
    return page


def only(html: str, tags: set[str], attributes: set[str]) -> Page:
    """The page has these elements and attributes only, no comment and no control character."""
    assert not CONTROL.search(html), CONTROL.search(html)
    page = Page(html)
    assert page.comments == []
    assert set(page.structure) <= tags, set(page.structure) - tags
    for tag, own in page.nodes:
        assert set(own) <= attributes, (tag, set(own) - attributes)
    return page
