"""Rows of data files with the lines where they start: `.jsonl`, `.json`, `.csv`, `.tsv`, `.xlsx` and `.parquet`.

Knows file formats and their traps (ragged rows, delimiters), nothing of fields, labels or tasks.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Problem, ProblemsError
from agent.task.input_files import UnknownEncoding, and_more, as_utf8, decode, decoded, parse_json, read_bytes, refused
from agent.task.limits import CELL_TEXT, CELLS, LINE, FileMeter, TooMuch, more_than
from agent.task.words import problem, quoted, shown

if TYPE_CHECKING:
    from agent.options.shared import FormOptions

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".parquet")
"""The kinds of files that rows are read from."""
PACKED = (".xlsx", ".parquet")
TEXT_CELLS = (".csv", ".tsv")
"""Those whose cells are texts, whatever they hold."""
SPREADSHEETS = (".xls", ".ods", ".numbers")
"""Kinds that are not read, and can be saved as CSV."""
Rows = list[tuple[int, dict[str, Any]]]
"""Each row with the line where it starts."""
Read = tuple[Rows, list[Problem]]
_NEXT = re.compile(r"[\s,]*")
_SEP = re.compile('"?sep=([,;\t])"?', re.IGNORECASE)  # what Excel writes and understands on the first line


@dataclass(frozen=True, slots=True)
class FileForm:
    """What the user says of a data file: its encoding and its sheet, "" for what the file says itself; and whether HTML
    is taken out of its inputs."""

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


@dataclass(frozen=True, slots=True)
class DataFile:
    """The rows of a data file, its problems, and what to say of how it was read."""

    rows: Rows
    problems: list[Problem]
    notes: tuple[str, ...] = ()


def read_rows(path: Path) -> Read:
    """Read all rows of a UTF-8 file of one of the kinds `TABLES`, and all its problems; raises nothing.

    CSV values are texts; their delimiter is a comma, semicolon or tab, as the header or `sep=;` before it says. Values
    of JSON (an array of objects) and JSONL are any JSON. A row with a problem is left out.
    """
    return _collected(lambda: _rows(read_bytes(path), path))


def rows_of(data: bytes, path: Path) -> Read:
    """Do `read_rows` over bytes already read from `path`."""
    return _collected(lambda: _rows(data, path))


def _collected(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except ProblemsError as error:
        return [], list(error.problems)


def read_data_file(path: Path, form: FileForm) -> DataFile:
    """Do `read_rows` for a file of the user's, in any encoding and of any sheet; raises nothing."""
    try:
        return data_file(read_bytes(path), path, form)
    except ProblemsError as error:
        return DataFile([], list(error.problems))


def data_file(data: bytes, path: Path, form: FileForm) -> DataFile:
    """Do `read_data_file` over bytes already read from `path`."""
    where, suffix = shown(path), path.suffix.lower()
    try:
        if form.sheet and suffix != ".xlsx":
            raise refused(where, 1, "--sheet goes with .xlsx files; leave it out")
        if suffix in PACKED:
            if form.encoding:
                raise refused(where, 1, "--encoding goes with text files; leave it out")
            from agent.task.packed_tables import read_packed

            rows, notes = read_packed(data, suffix, where, form.sheet)
            return DataFile(rows, [], notes)
        data, name = as_utf8(data, form.encoding) if suffix in TABLES else (data, "")
    except UnknownEncoding as error:
        return DataFile([], [problem(where, 1, str(error))])
    except ProblemsError as error:
        return DataFile([], list(error.problems))
    return DataFile(*rows_of(data, path), encoding_notes(path, name, form))


def encoding_notes(path: Path, name: str, form: FileForm) -> tuple[str, ...]:
    """Say that a file was read in the encoding `name`, where nobody asked for it."""
    if not name or form.encoding:
        return ()
    return (f"{shown(path)}: read as {name} (not UTF-8); --encoding NAME sets another",)


def _rows(data: bytes, path: Path) -> Read:
    """`rows_of`; raises ProblemsError for a file that is not read at all."""
    where, suffix = shown(path), path.suffix.lower()
    if suffix not in TABLES:
        fix = "save it as CSV UTF-8" if suffix in SPREADSHEETS else "give a .jsonl or a .csv file"
        raise refused(where, 1, f"unknown kind of file {quoted(suffix)}; {fix}")
    if suffix in PACKED:
        from agent.task.packed_tables import read_packed

        return read_packed(data, suffix, where)[0], []
    if suffix == ".json":
        return _json_array(whole_text(data, where), where)
    lines, problems = decode(data, where)
    if suffix == ".jsonl":
        rows, more = _jsonl(lines, where)
        return rows, problems + more
    if problems:  # a CSV row may span lines, so with one line unreadable no row is sure
        return [], problems
    return _csv([line or "" for line in lines], where, "\t" if suffix == ".tsv" else "")


def whole_text(data: bytes, where: str) -> str:
    """Return the text of a .json file, which is read as a whole and so is smaller than others. Raises ProblemsError."""
    if len(data) > LINE:
        raise refused(where, 1, f"has more than {LINE >> 20} MB; save it as .jsonl, one object a line")
    return decoded(data, where)


def _jsonl(lines: list[str | None], where: str) -> Read:
    rows: Rows = []
    problems, meter = list[Problem](), FileMeter()
    for number, line in enumerate(lines, start=1):
        if not line or not line.strip(" \t\r"):
            continue
        try:
            value = parse_json(line)
            if not isinstance(value, dict):
                raise ValueError(f'the row {quoted(value)} is not an object; write {{"field": value, ...}}')
            meter.json_row(value)
        except TooMuch as error:
            raise refused(where, number, str(error)) from None
        except json.JSONDecodeError as error:
            what = f"not valid JSON: {error.msg} at column {error.colno}; write one JSON object per line"
            problems.append(problem(where, number, what))
        except ValueError as error:
            problems.append(problem(where, number, str(error)))
        else:
            rows.append((number, value))
    return rows, problems


def _json_array(text: str, where: str) -> Read:
    """The objects of a JSON array, each with the line where it starts."""
    try:
        items = parse_json(text)
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} at column {error.colno}; correct it"
        raise refused(where, error.lineno, what) from None
    except ValueError as error:
        raise refused(where, 1, str(error)) from None
    if not isinstance(items, list):
        raise refused(where, 1, 'is not an array; write [{"field": value, ...}, ...], or a .jsonl file')
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
                raise refused(where, line, str(error)) from None
            rows.append((line, item))
        else:
            problems.append(problem(where, line, f'the row {quoted(item)} is not an object; write {{"field": value}}'))
        at = decoder.raw_decode(text, at)[1]
    return rows, problems


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _csv(lines: list[str], where: str, delimiter: str) -> Read:
    before = csv.field_size_limit(CELL_TEXT)
    try:
        stated = _SEP.fullmatch(lines[0])
        lines = ["", *lines[1:]] if stated else lines
        return _table(lines, stated[1] if stated else delimiter or _delimiter(lines), where)
    except TooMuch as error:  # within a row that spans lines
        raise refused(where, 1, str(error)) from None
    finally:
        csv.field_size_limit(before)


def _table(lines: list[str], delimiter: str, where: str) -> Read:
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
            continue
        try:
            if header is not None:
                meter.row(len(cells))
            elif len(cells) != 1 or "|" not in cells[0]:
                meter.header(cells)
        except TooMuch as error:
            raise refused(where, start, str(error)) from None
        if header is None:
            header = cells
            if what := _wrong_header(header):
                wrong.append((start, what))
                break
        elif len(cells) != len(header):
            ragged.append((start, len(cells)))
        else:
            rows.append((start, dict(zip(header, cells, strict=True))))
    if ragged and header:
        start, count = ragged[0]
        what = f"the row has {count} cells, the header has {len(header)}{and_more(ragged, 'row')}"
        wrong.append((start, f"{what}; quote cells that hold a {DELIMITERS[delimiter]}"))
    return rows, [problem(where, start, what) for start, what in sorted(wrong)]


def _wrong_header(header: list[str]) -> str:
    if len(header) == 1 and "|" in header[0]:
        return "the columns stand apart by '|'; save it with commas"
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"two columns are called {quoted(twice[0])}; rename one" if twice else ""


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
