"""Rows of .jsonl, .json, .csv, .tsv, .xlsx and .parquet files with their line numbers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Problem, ProblemsError
from agent.safe_data import CELL_TEXT, CELLS, COLUMNS, LINE, PACKED_TEXT, ROWS, TooMuch, more_than, parse_data
from agent.safe_file import OutsideFile, and_more, as_utf8, decode
from agent.safe_text import quoted

if TYPE_CHECKING:
    from agent.options.shared import FormOptions

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".parquet")
"""Suffixes of files with rows."""
PACKED = (".xlsx", ".parquet")
TEXT_CELLS = (".csv", ".tsv")
"""Suffixes of files whose cells are all text."""
SPREADSHEETS = (".xls", ".ods", ".numbers")
"""Suffixes that are not read; save these files as CSV."""
TEXT_COLUMN = "text"
"""The column of a .txt file, one row per line."""
Rows = list[tuple[int, dict[str, Any]]]
"""Line number and row."""
_NEXT = re.compile(r"[\s,]*")
_SEP = re.compile('"?sep=([,;\t])"?', re.IGNORECASE)  # a first line that Excel writes


def read_rows(path: Path, data: bytes | None = None) -> tuple[Rows, list[Problem]]:
    """Read the rows and problems of a UTF-8 file, or of its `data`."""
    file = DataFile(path, data=data)
    return file.rows, file.problems


class DataFile(OutsideFile):
    """The rows of a data file, its problems, and notes. Wrong rows are left out.

    CSV values are texts; the delimiter is detected from the header, or stated by a line `sep=;`.

    Args:
        form: encoding and sheet; None allows UTF-8 only.
        data: the bytes, instead of reading the file.
        has_lines: whether to read `.txt` files, too.
    """

    def __init__(
        self, path: Path, form: FormOptions | None = None, data: bytes | None = None, has_lines: bool = False
    ) -> None:
        super().__init__(path, data)
        self.rows: Rows = []
        self.notes: tuple[str, ...] = ()
        self._form, self._has_lines, self._meter = form, has_lines, FileMeter()
        try:
            self._read(self.data)
        except ProblemsError as error:
            self.rows, self.problems = [], list(error.problems)

    def _read(self, data: bytes) -> None:
        asked = self._form.encoding if self._form else None
        sheet = self._form.sheet if self._form else None
        if sheet and self.suffix != ".xlsx":
            raise self.refusal(1, "--sheet goes with .xlsx files; leave it out")
        if self.suffix in PACKED:
            from agent.task.packed_tables import read_packed

            if asked:
                raise self.refusal(1, "--encoding goes with text files; leave it out")
            self.rows, self.notes = read_packed(self, sheet)
            return
        if self.suffix not in TABLES and not (self._has_lines and self.suffix == ".txt"):
            fix = "save it as CSV UTF-8" if self.suffix in SPREADSHEETS else "give a .jsonl or a .csv file"
            raise self.refusal(1, f"unknown kind of file {quoted(self.suffix)}; {fix}")
        if self._form:
            self.data, name = as_utf8(data, self.where, asked)
            if name and not asked:
                self.notes = (f"{self.where}: read as {name} (not UTF-8); --encoding NAME sets another",)
        if self.suffix == ".json":
            self._json_array(self.whole(LINE, "save it as .jsonl, one object a line"))
            return
        lines, self.problems = decode(self.data, self.where)
        if self.suffix == ".jsonl":
            for number, line in enumerate(lines, start=1):
                if line and line.strip(" \t\r"):
                    with self.at(number):
                        self._add(number, _json(line, "write one JSON object per line"), ", ...")
        elif self.suffix == ".txt":
            self.rows = [(number, {TEXT_COLUMN: line}) for number, line in enumerate(lines, 1) if line and line.strip()]
        elif not self.problems:  # a CSV row may span lines, so one unreadable line makes all rows unsure
            self._csv([line or "" for line in lines])

    def _add(self, line: int, value: Any, more: str = "") -> None:
        if not isinstance(value, dict):
            raise ValueError(f'the row {quoted(value)} is not an object; write {{"field": value{more}}}')
        self._meter.header(value)
        self._meter.row(sum(map(values_in, value.values())))
        self.rows.append((line, value))

    def _json_array(self, text: str) -> None:
        try:
            items = _json(text, "correct it")
        except ValueError as error:
            raise self.refusal(getattr(error.__cause__, "lineno", 1), str(error)) from None
        if not isinstance(items, list):
            raise self.refusal(1, 'is not an array; write [{"field": value, ...}, ...], or a .jsonl file')
        at, decoder = text.index("[") + 1, json.JSONDecoder()
        line, seen = 1, 0
        for item in items:
            at = _NEXT.match(text, at).end()  # type: ignore[union-attr]
            line, seen = line + text.count("\n", seen, at), at
            with self.at(line):
                self._add(line, item)
            at = decoder.raw_decode(text, at)[1]

    def _csv(self, lines: list[str]) -> None:
        before = csv.field_size_limit(CELL_TEXT)
        try:
            self._table(lines)
        except TooMuch as error:  # within a row that spans lines
            raise self.refusal(1, str(error)) from None
        finally:
            csv.field_size_limit(before)

    def _table(self, lines: list[str]) -> None:
        if stated := _SEP.fullmatch(lines[0]):
            lines = ["", *lines[1:]]
        delimiter = stated[1] if stated else "\t" if self.suffix == ".tsv" else _delimiter(lines)
        records = _records(lines, delimiter)
        start, header = next(records, (1, None))
        if isinstance(header, csv.Error):
            return self.note(start, _not_csv(header))
        if header is None:
            return None
        if len(header) == 1 and "|" in header[0]:
            return self.note(start, "the columns are separated by '|'; save it with commas")
        with self.at(start):
            self._meter.header(header)
        if twice := sorted({name for name in header if header.count(name) > 1}):
            return self.note(start, f"two columns are called {quoted(twice[0])}; rename one")
        ragged: list[tuple[int, int]] = []
        for start, cells in records:
            if isinstance(cells, csv.Error):
                self.note(start, _not_csv(cells))
                continue
            with self.at(start):
                self._meter.row(len(cells))
            if len(cells) == len(header):
                self.rows.append((start, dict(zip(header, cells, strict=True))))
            else:
                ragged.append((start, len(cells)))
        if ragged:
            start, count = ragged[0]
            what = f"the row has {count} cells, the header has {len(header)}{and_more(ragged, 'row')}"
            self.note(start, f"{what}; quote cells that hold a {DELIMITERS[delimiter]}")
        return None


def _json(text: str, fix: str) -> Any:
    try:
        return parse_data(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}; {fix}") from error


def _not_csv(error: csv.Error) -> str:
    if "field limit" in str(error):
        return str(more_than(CELL_TEXT, "characters in a cell", "shorten it, or close the quotes of the cell before"))
    if "new-line" in str(error):  # the message of `csv` is about opening files
        return "a carriage return (\\r) outside of quotes; save the file with line ends \\n"
    return f'not valid CSV: {error}; put the cell in " and write an inner " twice'


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
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
    width = {delimiter: next(map(_cells, _records(lines, delimiter)), 0) for delimiter in DELIMITERS}
    likely = [delimiter for delimiter in DELIMITERS if width[delimiter] >= max(2, width[","])]
    if len(likely) < 2:
        return (likely or [","])[0]
    suited = {delimiter: [*map(_cells, _records(lines, delimiter))].count(width[delimiter]) for delimiter in likely}
    return max(likely, key=lambda delimiter: (suited[delimiter], width[delimiter]))


def _cells(record: tuple[int, list[str] | csv.Error]) -> int:
    return 0 if isinstance(record[1], csv.Error) else len(record[1])


# -- limits of rows ----------------------------------------------------------------------------------------------------


def values_in(cell: Any) -> int:
    """Count the values in a JSON cell, including itself.

    >>> values_in("a"), values_in({"a": [1, 2]})
    (1, 4)
    """
    inside = cell.values() if isinstance(cell, dict) else cell if isinstance(cell, list) else ()
    return 1 + sum(map(values_in, inside))


class FileMeter:
    def __init__(self) -> None:
        self._rows = self._cells = self._text = 0
        self._columns: set[str] = set()

    def header(self, columns: Collection[str]) -> None:
        if not self._columns.issuperset(columns):
            self._columns.update(columns)
        if max(len(columns), len(self._columns)) > COLUMNS:
            raise more_than(COLUMNS, "columns", "take out those that are not needed")

    def row(self, cells: int) -> None:
        self._rows += 1
        self._cells += cells
        if self._rows > ROWS:
            raise more_than(ROWS, "rows")
        if self._cells > CELLS:
            raise more_than(CELLS, "cells", "take fewer rows or columns")

    def text(self, length: int) -> None:
        self._text += length
        if length > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a cell", "shorten it")
        if self._text > PACKED_TEXT:
            raise more_than(PACKED_TEXT, "characters", "take fewer rows, or save it as .jsonl")
