"""The documents of a task: text, Markdown, HTML, CSV and PDF files, each as sections.

Files are untrusted: nothing in them is run or fetched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

from agent.documents import Document, Section, TextBlock
from agent.errors import Problem
from agent.extras import command, is_here
from agent.safe_data import MOST_BYTES, MOST_FILES, MOST_LETTERS, MOST_PAGES
from agent.safe_file import OutsideFile, decoded
from agent.safe_text import listed, problem, shown
from agent.shipped import canonical
from agent.task.html_text import INLINE, parse_html

_HEADING = re.compile(r"(#{1,6})\s++(.*)")
_RULE_OF_TABLE = re.compile(r"\|?\s*+:?-{2,}+:?\s*+(?:\|\s*+:?-{2,}+:?\s*+)*+\|?\s*+")
_CODE = re.compile(r"\s*(```+|~~~+)")


class Outline:
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
    _INLINE = INLINE - {"td", "th"}

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
    """Read an HTML page as sections. Raises ValueError for broken declarations."""
    page = _Page()
    parse_html(page, text)
    return page.sections()


def read_pdf(data: bytes) -> tuple[Section, ...]:
    """Read each page of a PDF as a section. Raises ValueError, also without pypdf."""
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
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise ValueError(f"cannot be read as a PDF ({what}); save it as text") from error
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
"""Readers of text files by suffix."""
SUFFIXES = (*TEXTS, ".pdf")


# -- the folder --------------------------------------------------------------------------------------------------------


def read_documents(
    path: str, folder: Path, instead: Path | None = None
) -> tuple[tuple[Document, ...], str, list[Problem]]:
    """Read a task's documents, or those `instead`; also return their SHA-256 and all problems."""
    if instead is not None:
        path, folder = ("", instead) if instead.is_dir() else (instead.name, instead.parent)
    place = OutsideFile(folder / path)
    problems = place.problems
    try:
        inside = place.path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        place.note(1, "no such file or folder; write it, or correct path under [knowledge]")
        return (), "", problems
    if not inside:
        place.note(1, f"is outside the task folder {shown(folder)}; copy it into the folder")
        return (), "", problems
    is_folder = place.path.is_dir()
    files = _files(place.path, problems) if is_folder else [place.path]
    if len(files) > MOST_FILES:
        place.note(1, f"holds {len(files)} files; {MOST_FILES} documents at most")
        files = []
    elif not files and not problems:
        place.note(1, f"holds no documents; write some ({listed(SUFFIXES)})")
    documents, digests, letters = list[Document](), list[tuple[str, str]](), 0
    for path_of in files:
        file = OutsideFile(path_of, folder=folder)
        name = path_of.relative_to(place.path if is_folder else place.path.parent).as_posix()
        with file.at(1):
            documents.append(Document(name, _sections(name, file)))
            digests.append((name, hashlib.sha256(file.data).hexdigest()))
            letters += sum(len(block.text) for section in documents[-1].sections for block in section.blocks)
            if letters > MOST_LETTERS:
                file.note(1, f"the documents up to here have more than {MOST_LETTERS:,} letters; take fewer")
        problems += file.problems
        if letters > MOST_LETTERS:
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


def _sections(name: str, file: OutsideFile) -> tuple[Section, ...]:
    data, suffix = file.data, file.suffix
    if not name.isprintable():
        raise ValueError("has a name with characters that do not show; rename it")
    if suffix not in SUFFIXES:
        raise ValueError(f"is no document that can be read ({listed(SUFFIXES)}); take it out of the folder")
    if len(data) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES // 1_000_000} MB; cut it into parts")
    sections = read_pdf(data) if suffix == ".pdf" else TEXTS[suffix](decoded(data, file.where))
    if not sections:
        raise ValueError("holds no text; write it, or take the file out of the folder")
    return sections
