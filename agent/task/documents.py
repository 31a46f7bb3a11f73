"""The documents of a task: a folder or a file of text, Markdown, HTML, CSV and PDF, each file as sections.

What a file says is data: nothing in it is run, and no address in it is fetched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Problem, ProblemsError
from agent.extras import command, is_here
from agent.safe_file import decoded, read_bytes
from agent.safe_text import counted, listed, problem, quoted, shown
from agent.shipped import canonical
from agent.types import Document, Section, TextBlock

if TYPE_CHECKING:
    from agent.options.shared import FormOptions

MOST_FILES = 1_000
MOST_BYTES = 20_000_000  # of one file
MOST_LETTERS = 4_000_000  # of all documents together: a release holds every passage
MOST_PAGES = 2_000
_HEADING = re.compile(r"(#{1,6})\s++(.*)")
_RULE_OF_TABLE = re.compile(r"\|?\s*+:?-{2,}+:?\s*+(?:\|\s*+:?-{2,}+:?\s*+)*+\|?\s*+")
_CODE = re.compile(r"\s*(```+|~~~+)")


class Outline:
    """Collects blocks under the headings that are open."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []
        self._blocks: list[TextBlock] = []
        self._sections: list[Section] = []

    def head(self, level: int, text: str) -> None:
        self._close()
        self._open = [each for each in self._open if each[0] < level]
        if text:
            self._open.append((level, text))

    def add(self, text: str, header: str = "") -> None:
        if text.strip():
            self._blocks.append(TextBlock(text.strip("\n").rstrip(), header))

    def sections(self) -> tuple[Section, ...]:
        self._close()
        return tuple(self._sections)

    def _close(self) -> None:
        if self._blocks:
            self._sections.append(Section(tuple(text for _, text in self._open), tuple(self._blocks)))
        self._blocks = []


def read_text(text: str) -> tuple[Section, ...]:
    outline = Outline()
    for paragraph in re.split(r"\n\s*\n", text):
        outline.add(paragraph)
    return outline.sections()


def read_markdown(text: str) -> tuple[Section, ...]:
    outline, held = Outline(), list[str]()

    def end() -> None:
        outline.add("\n".join(held))
        held.clear()

    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if code := _CODE.match(line):
            end()
            last = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == code[1]), len(lines) - 1)
            outline.add("\n".join(lines[at : last + 1]))
            at = last
        elif heading := _HEADING.fullmatch(line):
            end()
            outline.head(len(heading[1]), heading[2].rstrip().rstrip("#").rstrip())
        elif "|" in line and at + 1 < len(lines) and "|" in lines[at + 1] and _RULE_OF_TABLE.fullmatch(lines[at + 1]):
            end()
            last = at + 2
            while last < len(lines) and "|" in lines[last]:
                last += 1
            outline.add("\n".join(lines[at + 2 : last]) or line, f"{line}\n{lines[at + 1]}")
            at = last - 1
        elif line.strip():
            held.append(line)
        else:
            end()
        at += 1
    end()
    return outline.sections()


def read_table(text: str, delimiter: str = ",") -> tuple[Section, ...]:
    """Read a table whose first row names the columns. Raises ValueError where a row cannot be read."""
    outline = Outline()
    try:
        rows = [
            " | ".join(" ".join(cell.split()) for cell in row)
            for row in csv.reader(io.StringIO(text), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise ValueError(f"is no table of values with commas ({error}); correct it") from error
    rows = [row for row in rows if row.strip(" |")]
    if rows:
        outline.add("\n".join(rows[1:]) or rows[0], rows[0])
    return outline.sections()


class _Page(HTMLParser):
    _HIDDEN = frozenset(("script", "style", "template", "noscript", "svg", "select", "textarea", "iframe", "object"))
    _INLINE = frozenset((
        "a", "abbr", "b", "cite", "code", "del", "em", "font", "i", "img", "ins", "kbd", "label", "mark", "q", "s",
        "small", "span", "strong", "sub", "sup", "time", "u", "var", "wbr",
    ))  # fmt: skip

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.outline = Outline()
        self._text: list[str] = []
        self._hidden = 0
        self._rows: list[list[str]] = []
        self._cells: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        elif tag not in self._INLINE:
            self._end(tag)
        if tag == "tr":
            self._cells = []

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag not in self._INLINE and tag not in self._HIDDEN:
            self._end(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "title":
            self.outline.head(0, self._taken())
        elif re.fullmatch("h[1-6]", tag):
            self.outline.head(int(tag[1]), self._taken())
        elif tag in ("td", "th") and self._cells is not None:
            self._cells.append(self._taken())
        elif tag not in self._INLINE:
            self._end(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)

    def _taken(self) -> str:
        text, self._text = " ".join("".join(self._text).split()), []
        return text

    def _end(self, tag: str) -> None:
        if self._cells is not None and tag not in ("tr", "table", "tbody", "thead", "tfoot"):
            self._text.append(" ")  # a paragraph within a cell
            return
        if self._cells:
            self._rows.append(self._cells)
        self._cells = None
        if tag == "table" and self._rows:
            lines = [" | ".join(row) for row in self._rows]
            self.outline.add("\n".join(lines[1:]) or lines[0], lines[0])
            self._rows = []
        self.outline.add(self._taken())

    def sections(self) -> tuple[Section, ...]:
        self._end("table")
        return self.outline.sections()


def read_html(text: str) -> tuple[Section, ...]:
    """Read the text of a page under its headings. Raises ValueError where its declarations are broken."""
    page = _Page()
    parse_html(page, text)
    return page.sections()


def read_pdf(data: bytes) -> tuple[Section, ...]:
    """Read the text of each page of a PDF. Raises ValueError where it cannot be read, or pypdf is not installed."""
    if not is_here("knowledge"):
        raise ValueError(f"is a PDF, which takes pypdf; {command('knowledge')}, or save it as text")
    from pypdf import PdfReader

    found: list[Section] = []
    try:
        pages = PdfReader(io.BytesIO(data)).pages
        if len(pages) > MOST_PAGES:
            raise ValueError(f"has {len(pages)} pages; {MOST_PAGES} at most")
        for number, page in enumerate(pages, start=1):
            texts = [TextBlock(each.strip()) for each in re.split(r"\n\s*\n", page.extract_text()) if each.strip()]
            found += [Section((f"page {number}",), tuple(texts))] if texts else []
    except ValueError:
        raise
    except Exception as error:  # a PDF is free bytes to its library, which may fail in any way on them
        raise ValueError(
            f"cannot be read as a PDF ({type(error).__name__}: {str(error)[:100]}); save it as text"
        ) from error
    return tuple(found)


TEXTS: Mapping[str, Callable[[str], tuple[Section, ...]]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".csv": read_table,
    ".tsv": lambda text: read_table(text, "\t"),
}
"""By ending, what reads a file of text."""
SUFFIXES = (*TEXTS, ".pdf")


# -- the folder --------------------------------------------------------------------------------------------------------


def read_documents(path: str, folder: Path) -> tuple[tuple[Document, ...], str, list[Problem]]:
    """Read the documents at `path` inside a task folder; also return their SHA-256 and all problems."""
    place, problems = folder / path, list[Problem]()
    try:
        inside = place.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return (), "", [problem(shown(place), 1, "no such file or folder; write it, or correct path under [knowledge]")]
    if not inside:
        what = f"lies outside the task folder {shown(folder)}; copy it into the folder"
        return (), "", [problem(shown(place), 1, what)]
    files = _files(place, problems) if place.is_dir() else [place]
    root = place if place.is_dir() else place.parent
    if len(files) > MOST_FILES:
        problems.append(problem(shown(place), 1, f"holds {len(files)} files; {MOST_FILES} documents at most"))
        files = []
    elif not files and not problems:
        problems.append(problem(shown(place), 1, f"holds no documents; write some ({listed(SUFFIXES)})"))
    documents, digests, letters = list[Document](), list[tuple[str, str]](), 0
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            data = read_bytes(file, folder)
            documents.append(Document(name, _sections(name, data, file)))
        except ProblemsError as error:
            problems += error.problems
            continue
        except ValueError as error:
            problems.append(problem(shown(file), 1, str(error)))
            continue
        digests.append((name, hashlib.sha256(data).hexdigest()))
        letters += sum(len(block.text) for section in documents[-1].sections for block in section.blocks)
        if letters > MOST_LETTERS:
            what = f"with this file the documents have more than {MOST_LETTERS:,} letters; a release holds them all"
            problems.append(problem(shown(file), 1, f"{what}, so take fewer or shorter ones"))
            break
    digest = hashlib.sha256(canonical(digests).encode("utf-8", "surrogatepass")).hexdigest()
    return tuple(documents), digest, problems


def _files(place: Path, problems: list[Problem]) -> list[Path]:
    found: list[Path] = []
    for top, folders, names in os.walk(place):  # follows no links
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (link := Path(top, name)).is_symlink():
                problems.append(problem(shown(link), 1, "is a link to a folder; copy the folder"))
        found += [Path(top, name) for name in sorted(names) if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(place).as_posix())


def _sections(name: str, data: bytes, file: Path) -> tuple[Section, ...]:
    suffix = file.suffix.lower()
    if not name.isprintable():
        raise ValueError("has a name with characters that do not show; rename it")
    if suffix not in SUFFIXES:
        raise ValueError(f"is no document that can be read ({listed(SUFFIXES)}); take it out of the folder")
    if len(data) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES // 1_000_000} MB; cut it into parts")
    sections = read_pdf(data) if suffix == ".pdf" else TEXTS[suffix](decoded(data, shown(file)))
    if not sections:
        raise ValueError("holds no text; write it, or take the file out of the folder")
    return sections


_NOT_SHOWN = re.compile(  # taken out first: where one of them is not closed, html.parser takes the square of the time
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<![^>]*>?", re.DOTALL | re.IGNORECASE
)
SHARE = 0.1  # of the texts of a column; with as many in HTML it is named
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr",
    "html", "legend", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
    "thead", "title", "tr", "ul",
))  # fmt: skip
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "base", "bdi", "bdo", "big", "button", "cite", "code", "col", "colgroup", "data",
    "del", "dfn", "em", "embed", "font", "i", "iframe", "img", "input", "ins", "kbd", "label", "link", "map",
    "mark", "meta", "noscript", "object", "option", "param", "picture", "q", "s", "samp", "select", "small",
    "source", "span", "strike", "strong", "sub", "sup", "svg", "td", "template", "textarea", "th", "time", "tt",
    "u", "var", "video", "wbr",
))  # fmt: skip
_HIDDEN = frozenset(("script", "style"))
_NAMES = "|".join(sorted(_BLOCKS | _INLINE, key=len, reverse=True))
_TAG = re.compile(rf"</?(?:{_NAMES})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#[0-9]{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether a text has tags of HTML, or entities.

    >>> is_html("<p>Hi"), is_html("Tom &amp; Jo"), is_html("a < b > c, <bob@example.org>")
    (True, True, False)
    """
    return _TAG.search(text) is not None or _ENTITY.search(text) is not None


def html_notes(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], form: FormOptions) -> list[str]:
    """Say which columns hold HTML, one line each, or that it was taken out."""
    if form.strip_html:
        do = "do the same where the prompt is used: optimize apply --strip-html, promptassay.strip_html(text)"
        return [f"HTML was taken out of the inputs (--strip-html); {do}"]
    notes = []
    for name in columns:
        texts = [cell for row in rows if isinstance(cell := row.get(name), str) and cell.strip()]
        if (count := sum(map(is_html, texts))) and count >= SHARE * len(texts):
            what = f"HTML in {count} of {counted(len(texts), 'row')}; --strip-html takes it out"
            notes.append(f"column {quoted(name)}: {what}")
    return notes


def strip_html(text: str) -> str:
    """Return a text without tags and comments of HTML, with its entities decoded; what is no HTML stays unchanged.

    >>> strip_html("<p>Tom &amp; Jo</p><p>call <b>me</b>: <jo@example.org></p>")
    'Tom & Jo\\ncall me: <jo@example.org>'
    """
    if not is_html(text):
        return text
    page = _Text()
    try:
        parse_html(page, text)
    except ValueError:
        return text
    return page.text()


def parse_html(page: HTMLParser, text: str) -> None:
    """Feed a text to a parser, without scripts, styles and comments. Raises ValueError for broken declarations."""
    shown = _NOT_SHOWN.sub(" ", text)
    end = shown.rfind(">") + 1
    try:
        page.feed(shown[:end] + escape(shown[end:], quote=False).replace("&amp;", "&"))
        page.close()
    except AssertionError as error:  # what the standard library raises on `<![` and the like
        raise ValueError(f"is no HTML that can be read ({str(error)[:60]!a}); correct it") from error


def stripped(value: Any) -> Any:
    """Return a cell with the HTML taken out of its texts."""
    if isinstance(value, str):
        return strip_html(value)
    if isinstance(value, list):
        return [stripped(part) for part in value]
    return {key: stripped(part) for key, part in value.items()} if isinstance(value, dict) else value


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _BLOCKS:
            self._parts.append("\n")
        elif tag in ("td", "th"):
            self._parts.append(" ")
        elif tag not in _INLINE and tag not in _HIDDEN:  # an address in angle brackets, and the like
            self._parts.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._parts.append("\n")
        elif tag not in _INLINE and tag not in _HIDDEN:
            self._parts.append(f"</{tag}>")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    def text(self) -> str:
        lines = [" ".join(line.split()) for line in "".join(self._parts).split("\n")]
        return "\n".join(line for line in lines if line)
