"""Files read strictly, with line numbers: rows (`.jsonl`, `.json`, `.csv`, `.tsv`) and TOML, in UTF-8.

Knows file formats and their traps (encoding, NUL, NaN, depth, ragged rows), nothing of fields, labels or tasks.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from agent.errors import InputError, Problem, ProblemsError
from agent.options.shared import FormOptions
from agent.strict import MAX_DEPTH, BadToml
from agent.strict import parse_json as parse_json_strictly
from agent.strict import parse_toml as parse_toml_strictly
from agent.task.encodings import UnknownEncoding, as_utf8
from agent.task.limits import CELL_TEXT, CELLS, FILE, LINE, LINES, FileMeter, TooMuch, more_than
from agent.task.words import problem, quoted, shown

_T = TypeVar("_T")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".parquet")
"""The kinds of files that rows are read from."""
PACKED = (".xlsx", ".parquet")
TEXT_CELLS = (".csv", ".tsv")
"""Those whose cells are texts, whatever they hold."""
SPREADSHEETS = (".xls", ".ods", ".numbers")
"""Kinds that are not read, and can be saved as CSV."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """How the user says that a data file is read: its encoding and its sheet, "" for what the file says itself; and
    whether HTML is taken out of its inputs."""

    encoding: str = ""
    sheet: str = ""
    strip_html: bool = False

    @classmethod
    def of(cls, options: FormOptions) -> FileForm:
        """Read the options of a command."""
        return cls(options.encoding or "", options.sheet or "", options.strip_html)

    @property
    def is_any(self) -> bool:
        """Whether an option was given."""
        return self != AS_IT_IS


AS_IT_IS = FileForm()

Rows = list[tuple[int, dict[str, Any]]]
"""Each row with the line where it starts."""
KeyPath = tuple[str | int, ...]
"""Where a key of a TOML text stands: names of tables and keys, and indices of arrays."""

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_SEP = re.compile('"?sep=([,;\t])"?', re.IGNORECASE)  # what Excel writes and understands on the first line
_HIDDEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'  # one that is never closed goes to the end
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*+"?'
    r"|'[^'\n]*+'?|#[^\n]*+",
    re.DOTALL,
)
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{,]', re.DOTALL)
_PART = re.compile(r'"((?:\\.|[^"\\])*+)"?' + r"|'([^']*+)'?" + r"|([A-Za-z0-9_-]+)")


def read_bytes(path: Path, folder: Path | None = None) -> bytes:
    """The bytes of a regular file of at most FILE bytes; with `folder`, one that really lies inside it.

    Raises `ProblemsError` (one problem, at line 1) when it is missing, unreadable, too large or outside.
    """
    where = shown(path)
    try:
        real = path.resolve(strict=True)
        if folder is not None and not real.is_relative_to(folder.resolve()):
            raise _refused(where, f"lies outside the task folder {shown(folder)}; copy it into the folder")
        if not real.is_file():
            raise _refused(where, "is not a regular file; give a file")
        size = real.stat().st_size
        if size > FILE:
            most = f"a file may have {FILE >> 20} MB at most, so take fewer rows"
            raise _refused(where, f"is {size / 1024 / 1024:.0f} MB; {most}")
        return real.read_bytes()
    except FileNotFoundError:
        raise _refused(where, "no such file; write it or correct its name") from None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a loop of links, a NUL in the name
        raise _refused(where, f"cannot be read ({error}); check its name and permissions") from error


def _refused(where: str, what: str) -> ProblemsError:
    return ProblemsError((problem(where, 1, what),))


def decode(data: bytes, where: str) -> tuple[list[str | None], list[Problem]]:
    """The lines of a UTF-8 file (BOM and CRLF dropped); None for a line that is not UTF-8 or holds a NUL.

    Each of the two is one problem, at its first line, however many lines have it.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
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
    problems = []
    for fix, places in places_by_fix.items():
        number, what = places[0]
        problems.append(problem(where, number, f"{what}{_and_more(places, 'line')}; {fix}"))
    return lines, problems


def _lines(data: bytes) -> Iterator[bytes]:
    """The lines without their ends and without a BOM, one at a time."""
    at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while (end := data.find(b"\n", at)) >= 0:
        yield data[at:end]
        at = end + 1
    yield data[at:]


def _and_more(places: Sequence[Any], what: str) -> str:
    """How many more places there are than the first."""
    return f", and so in {len(places) - 1} more {what}{'s' * (len(places) > 2)}" * (len(places) > 1)


def parse_json(text: str) -> Any:
    """Strict JSON: no NaN or Infinity, no number past a float, no key twice, no NUL or lone surrogate, 50 levels.

    Raises ValueError (`json.JSONDecodeError` for bad syntax, TooMuch beyond the limits) with a reason of one line.
    """
    if text.count(",") + text.count("[") + text.count("{") > CELLS:
        _require_few(text)
    value = parse_json_strictly(text, parse_constant=_constant, parse_float=_float, parse_int=_int)
    for part, depth in walk(value):
        if depth > MAX_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_DEPTH} levels; flatten it")
        if isinstance(part, str) and len(part) > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a text", "shorten it")
        if isinstance(part, str) and (bad := _UNSAFE.search(part)):
            raise ValueError(f"{quoted(bad[0])} in the text {quoted(part)} is a NUL or half a character; remove it")
    return value


def _require_few(text: str) -> None:
    """Raise TooMuch for JSON of more than CELLS values, before they are made."""
    values = 0
    for token in _JSON_MARK.finditer(text):
        values += not token[0].startswith('"')
        if values > CELLS:
            raise more_than(CELLS, "values", "take fewer rows")


def walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Every value and key inside JSON-like data with its depth (from 1), without recursion."""
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


def prompt_text(prompt: str | Path) -> str:
    """The user's prompt: the text in the file of that name, or, where there is none, `prompt` itself if it has a blank.

    Raises InputError where it cannot be read.
    """
    text = str(prompt)
    if re.search(r"\s", text) and not os.path.exists(text) and not re.fullmatch(r"[^\n]*\.(txt|md)", text):
        return text
    try:
        return Path(prompt).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: the prompt cannot be read ({error}); give a UTF-8 text file") from error


def read_rows(path: Path) -> tuple[Rows, list[Problem]]:
    """All rows of a file of one of the kinds `TABLES`, and all its problems; raises nothing.

    CSV values are texts; their delimiter is a comma, semicolon or tab, as the header or `sep=;` before it says. Values
    of JSON (an array of objects) and JSONL are any JSON. A row with a problem is left out.
    """
    try:
        return rows_of(read_bytes(path), path)
    except ProblemsError as error:
        return [], list(error.problems)


@dataclass(frozen=True, slots=True)
class DataFile:
    """The rows of a data file, its problems, and what to say of how it was read."""

    rows: Rows
    problems: list[Problem]
    notes: tuple[str, ...] = ()


def read_data_file(path: Path, form: FileForm) -> DataFile:
    """`read_rows` of a file of the user's, in any encoding and of any sheet; raises nothing."""
    try:
        return data_file(read_bytes(path), path, form)
    except ProblemsError as error:
        return DataFile([], list(error.problems))


def data_file(data: bytes, path: Path, form: FileForm) -> DataFile:
    """`read_data_file` over bytes already read from `path`."""
    where, suffix = shown(path), path.suffix.lower()
    if form.sheet and suffix != ".xlsx":
        return DataFile([], [problem(where, 1, "--sheet goes with .xlsx files; leave it out")])
    if suffix in PACKED:
        if form.encoding:
            return DataFile([], [problem(where, 1, "--encoding goes with text files; leave it out")])
        from agent.task.binary_tables import table_of_binary

        return table_of_binary(data, suffix, where, form.sheet)
    try:
        data, name = as_utf8(data, form.encoding) if suffix in TABLES else (data, "")
    except UnknownEncoding as error:
        return DataFile([], [problem(where, 1, str(error))])
    rows, problems = rows_of(data, path)
    return DataFile(rows, problems, encoding_notes(path, name, form))


def encoding_notes(path: Path, name: str, form: FileForm) -> tuple[str, ...]:
    """What to say of a file that was read in the encoding `name`, which nobody asked for."""
    if not name or form.encoding:
        return ()
    return (f"{shown(path)}: read as {name} (not UTF-8); --encoding NAME sets another",)


def rows_of(data: bytes, path: Path) -> tuple[Rows, list[Problem]]:
    """`read_rows` over bytes already read from `path`."""
    where = shown(path)
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        fix = "save it as CSV UTF-8" if suffix in SPREADSHEETS else "give a .jsonl or a .csv file"
        return [], [problem(where, 1, f"unknown kind of file {quoted(suffix)}; {fix}")]
    if suffix in PACKED:
        from agent.task.binary_tables import table_of_binary

        table = table_of_binary(data, suffix, where)
        return table.rows, table.problems
    if suffix == ".json":
        text, problems = whole_text(data, where)
        return _json_array(text, where) if not problems else ([], problems)
    lines, problems = decode(data, where)
    if suffix == ".jsonl":
        rows, more = _jsonl(lines, where)
    elif problems:  # a CSV row may span lines, so with one line unreadable no row is sure
        return [], problems
    else:
        rows, more = _csv([line or "" for line in lines], where, "\t" if suffix == ".tsv" else "")
    return rows, problems + more


def whole_text(data: bytes, where: str) -> tuple[str, list[Problem]]:
    """The text of a .json file, which is read as a whole and so is smaller than others; its problems else."""
    if len(data) > LINE:
        return "", [problem(where, 1, f"has more than {LINE >> 20} MB; save it as .jsonl, one object a line")]
    lines, problems = decode(data, where)
    return "\n".join(line or "" for line in lines), problems


def _jsonl(lines: list[str | None], where: str) -> tuple[Rows, list[Problem]]:
    rows: Rows = []
    problems, meter = list[Problem](), FileMeter()
    for number, line in enumerate(lines, start=1):
        if not line or not line.strip(" \t\r"):
            continue
        try:
            value = parse_json(line)
            if isinstance(value, dict):
                meter.json_row(value)
        except TooMuch as error:
            return [], [problem(where, number, str(error))]
        except json.JSONDecodeError as error:
            what = f"not valid JSON: {error.msg} at column {error.colno}; write one JSON object per line"
            problems.append(problem(where, number, what))
        except ValueError as error:
            problems.append(problem(where, number, str(error)))
        else:
            if isinstance(value, dict):
                rows.append((number, value))
            else:
                what = f'the row {quoted(value)} is not an object; write {{"field": value, ...}}'
                problems.append(problem(where, number, what))
    return rows, problems


def _json_array(text: str, where: str) -> tuple[Rows, list[Problem]]:
    """The objects of a JSON array, each with the line where it starts."""
    try:
        items = parse_json(text)
    except json.JSONDecodeError as error:
        return [], [problem(where, error.lineno, f"not valid JSON: {error.msg} at column {error.colno}; correct it")]
    except ValueError as error:
        return [], [problem(where, 1, str(error))]
    if not isinstance(items, list):
        return [], [problem(where, 1, 'is not an array; write [{"field": value, ...}, ...], or a .jsonl file')]
    rows: Rows = []
    problems, meter = list[Problem](), FileMeter()
    at, decoder = text.index("[") + 1, json.JSONDecoder()
    line, seen = 1, 0
    for item in items:
        at = _NEXT.match(text, at).end()  # type: ignore[union-attr]
        line, seen = line + text.count("\n", seen, at), at
        if isinstance(item, dict):
            try:
                meter.json_row(item)
            except TooMuch as error:
                return [], [problem(where, line, str(error))]
            rows.append((line, item))
        else:
            problems.append(problem(where, line, f'the row {quoted(item)} is not an object; write {{"field": value}}'))
        at = decoder.raw_decode(text, at)[1]
    return rows, problems


_NEXT = re.compile(r"[\s,]*")


def _beyond(check: Callable[[_T], None], what: _T) -> str:
    """What a limit says, or ""."""
    try:
        check(what)
    except TooMuch as error:
        return str(error)
    return ""


def _csv(lines: list[str], where: str, delimiter: str) -> tuple[Rows, list[Problem]]:
    before = csv.field_size_limit(CELL_TEXT)
    try:
        stated = _SEP.fullmatch(lines[0])
        lines = ["", *lines[1:]] if stated else lines
        return _table(lines, stated[1] if stated else delimiter or _delimiter(lines), where)
    except TooMuch as error:  # within a row that spans lines
        return [], [problem(where, 1, str(error))]
    finally:
        csv.field_size_limit(before)


def _table(lines: list[str], delimiter: str, where: str) -> tuple[Rows, list[Problem]]:
    rows: Rows = []
    wrong: list[tuple[int, str]] = []
    ragged: list[tuple[int, int]] = []
    header: list[str] | None = None
    meter = FileMeter()
    for start, cells in _records(lines, delimiter):
        if isinstance(cells, csv.Error):
            wrong.append((start, _not_csv(cells)))
            if header is None:
                break
        elif header is None:
            header = cells
            if len(cells) == 1 and "|" in cells[0]:
                wrong.append((start, "the columns stand apart by '|'; save it with commas"))
                break
            if too_many := _beyond(meter.header, header):
                return [], [problem(where, start, too_many)]
            if twice := sorted({name for name in header if header.count(name) > 1}):
                wrong.append((start, f"two columns are called {quoted(twice[0])}; rename one"))
                break
        elif too_many := _beyond(meter.row, len(cells)):
            return [], [problem(where, start, too_many)]
        elif len(cells) != len(header):
            ragged.append((start, len(cells)))
        else:
            rows.append((start, dict(zip(header, cells, strict=True))))
    if ragged and header:
        start, count = ragged[0]
        what = f"the row has {count} cells, the header has {len(header)}{_and_more(ragged, 'row')}"
        wrong.append((start, f"{what}; quote cells that hold a {DELIMITERS[delimiter]}"))
    return rows, [problem(where, start, what) for start, what in sorted(wrong)]


def _not_csv(error: csv.Error) -> str:
    if "field limit" in str(error):
        return str(more_than(CELL_TEXT, "characters in a cell", "shorten it, or close the quotes of the cell before"))
    if "new-line" in str(error):  # Python's words would have the file opened in another way
        return "a carriage return (\\r) stands outside of quotes; save the file with \\n at the ends of its lines"
    return f'not valid CSV: {error}; put the cell in " and write an inner " twice'


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The header and the rows, each with the line where it starts; empty lines are left out. Raises TooMuch."""
    marks = 0

    def fed() -> Iterator[str]:
        nonlocal marks
        for line in lines:
            marks += line.count(delimiter)
            if marks > CELLS:
                raise more_than(CELLS, "cells in a row", "close the quotes of its cells")
            yield f"{line}\n"

    reader = csv.reader(fed(), delimiter=delimiter, strict=True)
    while True:
        marks = 0
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, error
        else:
            if cells:
                yield start, cells


def _delimiter(lines: list[str]) -> str:
    """Of the delimiters that give the header no fewer cells than the comma does, the one that suits the most rows."""
    width = {delimiter: next(map(_cells, _records(lines, delimiter)), 0) for delimiter in DELIMITERS}
    likely = [delimiter for delimiter in DELIMITERS if width[delimiter] >= max(2, width[","])]
    if len(likely) < 2:
        return (likely or [","])[0]
    suited = {delimiter: [*map(_cells, _records(lines, delimiter))].count(width[delimiter]) for delimiter in likely}
    return max(likely, key=lambda delimiter: (suited[delimiter], width[delimiter]))


def _cells(record: tuple[int, list[str] | csv.Error]) -> int:
    return 0 if isinstance(record[1], csv.Error) else len(record[1])


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
        """The line of the key at `path`, or of the nearest section around it, or 1.

        With `holding`, the first line from there on that holds this text (a word inside a long string).
        """
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
    if any(depth > MAX_DEPTH for _, depth in walk(raw)):
        raise ProblemsError((problem(where, 1, f"nested deeper than {MAX_DEPTH} levels; flatten it"),))
    return raw
