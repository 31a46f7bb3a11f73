"""Files of the user read strictly, with line numbers: text and its encoding, JSON and TOML.

Knows their traps (encoding, NUL, NaN, depth), nothing of rows, fields, labels or tasks.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent.errors import InputError, Problem, ProblemsError, refuse_all
from agent.strict import MAX_TOML_DEPTH, TOML_STRING, BadToml
from agent.strict import parse_json as parse_json_strictly
from agent.strict import parse_toml as parse_toml_strictly
from agent.task.words import problem, quoted, shown

KeyPath = tuple[str | int, ...]
"""Where a key of a TOML text stands: names of tables and keys, and indices of arrays."""

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_HIDDEN = re.compile(TOML_STRING + r"|#[^\n]*+", re.DOTALL)
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{,]', re.DOTALL)
_PART = re.compile(r'"((?:\\.|[^"\\])*+)"?' + r"|'([^']*+)'?" + r"|([A-Za-z0-9_-]+)")
_UTF8_PAIR = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
_HIGH = re.compile(rb"[\x80-\xff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LOOKED_AT = 4_096


def refused(where: str, line: int, what: str) -> ProblemsError:
    """Return the error of a file that is not read at all, for one problem."""
    return ProblemsError((problem(where, line, what),))


def read_bytes(path: Path, folder: Path | None = None) -> bytes:
    """Read a regular file of at most FILE bytes, inside `folder` where given. Raises ProblemsError."""
    where = shown(path)
    try:
        real = path.resolve(strict=True)
        if folder is not None and not real.is_relative_to(folder.resolve()):
            raise refused(where, 1, f"lies outside the task folder {shown(folder)}; copy it into the folder")
        if not real.is_file():
            raise refused(where, 1, "is not a regular file; give a file")
        size = real.stat().st_size
        if size > FILE:
            most = f"a file may have {FILE >> 20} MB at most, so take fewer rows"
            raise refused(where, 1, f"is {size / 1024 / 1024:.0f} MB; {most}")
        return real.read_bytes()
    except FileNotFoundError:
        raise refused(where, 1, "no such file; write it or correct its name") from None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a loop of links, a NUL in the name
        raise refused(where, 1, f"cannot be read ({error}); check its name and permissions") from error


def prompt_text(prompt: str | Path) -> str:
    """Return the prompt in a file, or `prompt` itself if it is no file and has a blank. Raises InputError."""
    text = str(prompt)
    if re.search(r"\s", text) and not os.path.exists(text) and not re.fullmatch(r"[^\n]*\.(txt|md)", text):
        return text
    try:
        return Path(prompt).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: the prompt cannot be read ({error}); give a UTF-8 text file") from error


# -- text --------------------------------------------------------------------------------------------------------------


def decode(data: bytes, where: str) -> tuple[list[str | None], list[Problem]]:
    """Split a UTF-8 file into lines, None for unreadable ones; each kind of problem is reported once."""
    if data.startswith(_UTF16_MARKS):
        return [], [problem(where, 1, "is UTF-16; save the file as UTF-8")]
    if data.count(b"\n") > LINES:
        return [], [problem(where, LINES, str(more_than(LINES, "lines")))]
    lines: list[str | None] = []
    places_by_fix: dict[str, list[tuple[int, str]]] = {}
    for number, raw in enumerate(_lines(data), start=1):
        if len(raw) > LINE:
            return [], [problem(where, number, f"the line has more than {LINE >> 20} MB; cut it into several")]
        line: str | None = None
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"byte 0x{raw[error.start]:02x} is not UTF-8"
            places_by_fix.setdefault("save the file as UTF-8", []).append((number, what))
        if line is not None and "\x00" in line:
            places_by_fix.setdefault("remove it", []).append((number, "holds a NUL character"))
            line = None
        lines.append(line)
    return lines, [
        problem(where, places[0][0], f"{places[0][1]}{and_more(places, 'line')}; {fix}")
        for fix, places in places_by_fix.items()
    ]


def decoded(data: bytes, where: str) -> str:
    """Return the text of a UTF-8 file, its lines joined by line feeds. Raises ProblemsError."""
    lines, problems = decode(data, where)
    refuse_all(problems)
    return "\n".join(line or "" for line in lines)


def _lines(data: bytes) -> Iterator[bytes]:
    at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while (end := data.find(b"\n", at)) >= 0:
        yield data[at:end]
        at = end + 1
    yield data[at:]


def and_more(places: Sequence[Any], what: str) -> str:
    """Say how many more places there are than the first."""
    return f", and so in {len(places) - 1} more {what}{'s' * (len(places) > 2)}" * (len(places) > 1)


def as_utf8(data: bytes, where: str, asked: str | None = None) -> tuple[bytes, str]:
    """Convert text to UTF-8 from `asked` or the detected encoding; also return its name, "" for UTF-8.

    Raises ProblemsError.
    """
    name = asked or told(data)
    if not name:
        return data, ""
    try:
        is_utf8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
        return (data, "") if is_utf8 else (data.decode(name).lstrip("\ufeff").encode("utf-8"), name)
    except LookupError:
        raise refused(where, 1, f"no encoding {name!r:.40}; write one such as cp1252, utf-16, latin-1") from None
    except UnicodeError as error:
        raise refused(where, 1, f"is not {name} ({str(error)[-60:]}); name another with --encoding") from None


def told(data: bytes) -> str:
    """Tell the encoding of data that is not UTF-8: `utf-16`, `utf-16-le`, `utf-16-be` or `cp1252`, "" for any other."""
    if data.startswith(_UTF16_MARKS):
        return "utf-16"
    first = data[:_LOOKED_AT]
    half = len(first) // 2
    if half and not len(data) % 2:
        for name, zeros, others in (("utf-16-le", first[1::2], first[::2]), ("utf-16-be", first[::2], first[1::2])):
            if zeros.count(0) > half * 0.7 and others.count(0) == 0:
                return name
    is_text = not data.isascii() and b"\0" not in data and not _is(data, "utf-8") and _is(data, "cp1252")
    # UTF-8 of which a part was damaged has mostly whole pairs
    return "cp1252" if is_text and 4 * len(_UTF8_PAIR.findall(data)) < len(_HIGH.findall(data)) else ""


def _is(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


# -- JSON --------------------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """Parse strict JSON within the limits. Raises ValueError with a reason of one line."""
    if text.count(",") + text.count("[") + text.count("{") > CELLS:
        _require_few(text)
    value = parse_json_strictly(text, parse_constant=_constant, parse_float=_float, parse_int=_int)
    for part, depth in walk(value):
        if depth > MAX_TOML_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_TOML_DEPTH} levels; flatten it")
        if isinstance(part, str) and len(part) > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a text", "shorten it")
        if isinstance(part, str) and (bad := _UNSAFE.search(part)):
            raise ValueError(f"{quoted(bad[0])} in the text {quoted(part)} is a NUL or half a character; remove it")
    return value


def parse_json_cell(text: str, fix: str) -> Any:
    """Parse the JSON of a cell; a syntax error says to `fix` it."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{quoted(text)} is not JSON: {error.msg}; {fix}") from error


def _require_few(text: str) -> None:
    values = 0
    for token in _JSON_MARK.finditer(text):
        values += not token[0].startswith('"')
        if values > CELLS:
            raise more_than(CELLS, "values", "take fewer rows")


def walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield every value and key inside JSON-like data with its depth (from 1), without recursion."""
    stack = [(value, 1)]
    while stack:
        part, depth = stack.pop()
        yield part, depth
        if isinstance(part, dict):
            stack += [(key, depth) for key in part]
            stack += [(item, depth + 1) for item in part.values()]
        elif isinstance(part, list):
            stack += [(item, depth + 1) for item in part]


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write a finite number or null")


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {quoted(text)} is too large; write a finite number")
    return value


def _int(text: str) -> int:
    if len(text) > 308:
        raise ValueError(f"a number of {len(text)} digits is too large; write a shorter one or a text")
    return int(text)


# -- TOML --------------------------------------------------------------------------------------------------------------


class TomlLines:
    """Line numbers (from 1) of the keys and sections of a TOML text that parses, which is scanned once for them.

    >>> TomlLines("a = 1\\n[b]\\nc = 2").of(("b", "c"))
    3
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n").split("\n")
        self._lines: dict[KeyPath, int] = {}
        section: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        depth = 0
        masked = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", "~", found[0]), "\n".join(self._text)).split("\n")
        for number, (line, mask) in enumerate(zip(self._text, masked, strict=True), start=1):
            bare = mask.strip()
            if depth == 0 and bare.startswith("["):
                section = _parts(line[: mask.find("]")])
                if bare.startswith("[["):
                    counts[section] = counts.get(section, -1) + 1
                    section = (*section, counts[section])
                self._note(section, number)
                continue
            if depth == 0 and "=" in mask:
                self._note((*section, *_parts(line[: mask.index("=")])), number)
            depth += sum(mask.count(c) for c in "[{") - sum(mask.count(c) for c in "]}")

    def _note(self, path: KeyPath, number: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], number)

    def of(self, path: KeyPath, holding: str = "") -> int:
        """Return the line of a key, or of its nearest section; with `holding`, the first line with this text."""
        known = (self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines)
        line = next(known, 1)
        if holding:
            return next((n for n in range(line, len(self._text) + 1) if holding in self._text[n - 1]), line)
        return line


def _parts(dotted: str) -> KeyPath:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(dotted))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text, at most 50 levels deep. Raises `ProblemsError` with one problem at its line."""
    try:
        raw = parse_toml_strictly(text)
    except BadToml as error:
        text = str(error)
        what = f"not valid TOML: {text[:1].lower()}{text[1:]}; correct this line"
        raise ProblemsError((problem(where, error.line, what),)) from None
    if any(depth > MAX_TOML_DEPTH for _, depth in walk(raw)):
        raise ProblemsError((problem(where, 1, f"nested deeper than {MAX_TOML_DEPTH} levels; flatten it"),))
    return raw


COLUMNS = 1_000  # columns, also of all JSON rows together
ROWS = 1_000_000
LINES = 2_000_000  # lines of a text file; a cell may span several
CELLS = 5_000_000  # cells of all rows, and values inside of JSON
CELL_TEXT = 1_000_000  # characters of one cell, or of one text inside of JSON
TEXT = 100_000_000  # characters of all cells of a workbook or Parquet file, which are packed
POSITIONS = 50_000_000  # cells of a sheet, empty ones to the left of others included
FILE = 200 * 1024 * 1024  # bytes of a file
LINE = 64 * 1024 * 1024  # bytes of a line, and of a .json file, which is read as a whole
YAML = 4 * 1024 * 1024  # bytes of a YAML file, whose reader is slow
YAML_NODES = 50_000  # names, values and lists in it
MEMORY = 1024 * 1024 * 1024  # bytes of memory of the process that reads a workbook or Parquet file


class TooMuch(ValueError):
    """A file holds more than is read of one; says what and what to do."""


def more_than(most: int, what: str, fix: str = "") -> TooMuch:
    """Return the error of a limit."""
    return TooMuch(f"more than {most:,} {what}; {fix or 'take fewer'}")


def values_in(cell: Any) -> int:
    """Count the values of a cell of JSON, with itself.

    >>> values_in("a"), values_in({"a": [1, 2]})
    (1, 4)
    """
    inside = cell.values() if isinstance(cell, dict) else cell if isinstance(cell, list) else ()
    return 1 + sum(map(values_in, inside))


class FileMeter:
    """Count what has been read of one file."""

    def __init__(self) -> None:
        self._rows = self._cells = self._text = 0
        self._columns: set[str] = set()

    def header(self, columns: Collection[str]) -> None:
        """Note columns. Raises TooMuch."""
        if not self._columns.issuperset(columns):
            self._columns.update(columns)
        if max(len(columns), len(self._columns)) > COLUMNS:
            raise more_than(COLUMNS, "columns", "take out those that are not needed")

    def row(self, cells: int) -> None:
        """Note a row with its number of cells, or of values in its JSON. Raises TooMuch."""
        self._rows += 1
        self._cells += cells
        if self._rows > ROWS:
            raise more_than(ROWS, "rows")
        if self._cells > CELLS:
            raise more_than(CELLS, "cells", "take fewer rows or columns")

    def json_row(self, row: Mapping[str, Any]) -> None:
        """Note a row of JSON. Raises TooMuch."""
        self.header(row)
        self.row(sum(map(values_in, row.values())))

    def text(self, length: int) -> None:
        """Note the characters of a cell. Raises TooMuch."""
        self._text += length
        if length > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a cell", "shorten it")
        if self._text > TEXT:
            raise more_than(TEXT, "characters", "take fewer rows, or save it as .jsonl")
