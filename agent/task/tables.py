"""Rows of data files with the lines where they start: `.jsonl`, `.json`, `.csv`, `.tsv`, `.xlsx` and `.parquet`.

Knows file formats and their traps (ragged rows, delimiters), nothing of fields, labels or tasks.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import math
import re
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Problem, ProblemsError
from agent.extras import command
from agent.task.input_files import (
    CELL_TEXT,
    CELLS,
    LINE,
    LINES,
    MEMORY,
    POSITIONS,
    ROWS,
    FileMeter,
    TooMuch,
    and_more,
    as_utf8,
    decode,
    decoded,
    more_than,
    parse_json,
    read_bytes,
    refused,
    values_in,
)
from agent.task.words import listed, near, printable, problem, quoted, shown
from agent.worker import Worker

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
class DataFile:
    """The rows of a data file, its problems, and what to say of how it was read."""

    rows: Rows
    problems: list[Problem]
    notes: tuple[str, ...] = ()


def read_rows(path: Path, data: bytes | None = None) -> Read:
    """Read all rows of a UTF-8 file, or of its `data`, and all its problems; raises nothing."""
    file = data_file(path, None, data)
    return file.rows, file.problems


def data_file(path: Path, form: FormOptions | None, data: bytes | None = None) -> DataFile:
    """Read a file of one of the kinds `TABLES`, or its `data`; raises nothing. A `form` of None allows UTF-8 only.

    CSV values are texts; their delimiter is a comma, semicolon or tab, as the header or `sep=;` before it says. Values
    of JSON (an array of objects) and JSONL are any JSON. A row with a problem is left out.
    """
    where, suffix = shown(path), path.suffix.lower()
    try:
        data = read_bytes(path) if data is None else data
        if form and form.sheet and suffix != ".xlsx":
            raise refused(where, 1, "--sheet goes with .xlsx files; leave it out")
        if suffix in PACKED:
            if form and form.encoding:
                raise refused(where, 1, "--encoding goes with text files; leave it out")
            return _read_packed(data, suffix, where, form.sheet if form else None)
        if suffix not in TABLES:
            fix = "save it as CSV UTF-8" if suffix in SPREADSHEETS else "give a .jsonl or a .csv file"
            raise refused(where, 1, f"unknown kind of file {quoted(suffix)}; {fix}")
        data, name = (data, "") if form is None else as_utf8(data, where, form.encoding)
        rows, problems = _rows(data, suffix, where)
    except ProblemsError as error:
        return DataFile([], list(error.problems))
    return DataFile(rows, problems, encoding_notes(where, name, form))


def encoding_notes(where: str, name: str, form: FormOptions | None) -> tuple[str, ...]:
    """Say that a file was read in the encoding `name`, where nobody asked for it."""
    if not name or form is None or form.encoding:
        return ()
    return (f"{where}: read as {name} (not UTF-8); --encoding NAME sets another",)


def _rows(data: bytes, suffix: str, where: str) -> Read:
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
    """Choose the delimiter that suits most rows, of those that give the header enough cells."""
    width = {delimiter: next(map(_cells, _records(lines, delimiter)), 0) for delimiter in DELIMITERS}
    likely = [delimiter for delimiter in DELIMITERS if width[delimiter] >= max(2, width[","])]
    if len(likely) < 2:
        return (likely or [","])[0]
    suited = {delimiter: [*map(_cells, _records(lines, delimiter))].count(width[delimiter]) for delimiter in likely}
    return max(likely, key=lambda delimiter: (suited[delimiter], width[delimiter]))


def _cells(record: tuple[int, list[str] | csv.Error]) -> int:
    return 0 if isinstance(record[1], csv.Error) else len(record[1])


SECONDS = 300.0  # for one part of the rows, and for what is read before the first one
PART = 500  # rows of one answer
Row = tuple[int, list[Any]]
_LIBRARIES = {".xlsx": "openpyxl", ".parquet": "pyarrow"}
_SCRIPT = r"""
sys.path[:] = opening["path"]
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("agent", opening["package"])  # by its place: a user's agent.py is not taken for it
sys.modules["agent"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from agent.task.input_files import TooMuch
from agent.task.tables import TableFile, limit_memory
limit_memory()
answer(True, "")
table = None
for line in pipe_in:
    is_full = False
    try:
        if table is None:
            table = TableFile(*json.loads(line))
            answer({"header": table.header, "sheets": table.sheets}, "")
        else:
            answer({"rows": table.part()}, "")
    except ImportError:
        answer({"error": "missing"}, "")
    except TooMuch as error:
        answer({"error": "limit", "what": str(error)}, "")
    except MemoryError:
        is_full = True
    except Exception as error:  # a library may fail in any way on a damaged file
        answer({"error": "damaged", "what": f"{type(error).__name__}: {str(error)[:200]}"}, "")
    if is_full:  # what the error held is free by now, so the answer has room
        table = None
        answer({"error": "memory"}, "")
"""


def _read_packed(data: bytes, suffix: str, where: str, sheet: str | None) -> DataFile:
    """Read a sheet ("": the first) or a table, with row numbers and notes. Raises ProblemsError."""
    if find_spec(_LIBRARIES[suffix]) is None:
        raise refused(where, 1, _worker_fault({"error": "missing"}, "", suffix))
    package = str(Path(__file__).parents[1] / "__init__.py")
    opening = {"path": [place for place in sys.path if place], "package": package}
    worker = Worker("the reader", _SCRIPT, opening, SECONDS, SECONDS)
    try:
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(data)
            file.flush()
            return _read_worker(worker, file.name, suffix, where, sheet)
    except OSError as error:
        raise refused(where, 1, f"cannot be unpacked ({error.strerror}); make room in the temp folder") from error
    finally:
        worker.close()


def _read_worker(worker: Worker, name: str, suffix: str, where: str, sheet: str | None) -> DataFile:
    rows: Rows = []

    def asked(question: Any) -> Any:
        found, why = worker.now(question)
        if wrong := _worker_fault(found, why, suffix):
            raise refused(where, rows[-1][0] + 1 if rows else 1, wrong)
        return found

    opened = asked([name, suffix, sheet or ""])
    header, sheets = opened["header"], opened["sheets"]
    if sheet and sheet not in sheets:
        raise refused(where, 1, f"no sheet {quoted(sheet)}{near(sheet, sheets)}")
    if twice := next((name for at, name in enumerate(header) if name in header[:at]), ""):
        raise refused(where, 1, f"two columns are called {quoted(twice)}; rename one")
    while part := asked("next")["rows"]:
        for number, cells in part:
            if any(isinstance(cell, str) and "\x00" in cell for cell in cells):
                raise refused(where, number, "holds a NUL character; remove it")
            rows.append((number, dict(zip(header, cells, strict=True))))
    if len(sheets) < 2:
        return DataFile(rows, [])
    name = sheet or sheets[0]
    others = listed(each for each in sheets if each != name)
    read = f'{where}: sheet "{printable(name)}" of {len(sheets)} was read'
    return DataFile(rows, [], (f"{read}; --sheet NAME reads another: {others}",))


def _worker_fault(found: Any, why: str, suffix: str) -> str:
    if found is None:
        return f"cannot be read as {suffix} ({why}); take fewer rows, or save it as CSV"
    match found.get("error"):
        case None:
            return ""
        case "missing":
            return f"{suffix} needs {_LIBRARIES[suffix]}, which is not installed; {command('tables')}"
        case "limit":
            return str(found["what"])
        case "memory":
            return f"takes more than {MEMORY >> 30} GB of memory; take fewer rows, or save it as CSV"
    return f"cannot be read as {suffix} ({found['what']}); save it anew"


# -- inside the child process ------------------------------------------------------------------------------------------


def limit_memory() -> None:
    """Bound the address space of this process to MEMORY, as far as the system does that."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class TableFile:
    """An open file: its header, and its rows with their numbers (the header is 1); `sheet`: "" for the first."""

    def __init__(self, path: str, suffix: str, sheet: str) -> None:
        self.sheets: list[str] = []
        self._meter = FileMeter()
        rows = self._workbook(path, sheet) if suffix == ".xlsx" else self._parquet(path)
        first = next(rows, (1, []))[1]
        width = max((at for at, cell in enumerate(first, start=1) if cell not in (None, "")), default=0)
        self.header = [str(plain_cell(cell)) for cell in first[:width]]
        self._meter.header(self.header)
        self._rows = self._filled(rows, width)

    def part(self) -> list[Row]:
        """The next rows; none at the end."""
        rows, length = list[Row](), 0
        for number, cells in islice(self._rows, PART):
            rows.append((number, cells))
            length += sum(len(cell) for cell in cells if isinstance(cell, str))
            if length > CELL_TEXT:
                break
        return rows

    def _filled(self, rows: Iterable[tuple[int, Sequence[Any]]], width: int) -> Iterator[Row]:
        for number, row in rows:
            cells = [plain_cell(cell) for cell in row[:width]]
            if all(cell == "" for cell in cells):
                continue
            cells += [""] * (width - len(cells))
            self._meter.row(sum(map(values_in, cells)))
            for cell in cells:
                if isinstance(cell, str):
                    self._meter.text(len(cell))
            yield number, cells

    def _workbook(self, path: str, name: str) -> Iterator[tuple[int, Sequence[Any]]]:
        import warnings

        import openpyxl

        with warnings.catch_warnings(action="ignore"):  # about styles and extensions, which hold no cells
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            self.sheets = [sheet.title for sheet in book.worksheets]
            if name and name not in self.sheets:
                return
            sheet = book.worksheets[self.sheets.index(name) if name else 0]
            sheet.reset_dimensions()  # some programs write a wrong size, and cells beyond it would be lost
            seen = 0
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                seen += len(row)
                if seen > POSITIONS or number > LINES:
                    what = f"more than {POSITIONS:,} cells or {LINES:,} rows, empty ones included"
                    raise TooMuch(f"{what}; take out cells far from the others")
                yield number, row

    def _parquet(self, path: str) -> Iterator[tuple[int, Sequence[Any]]]:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        names = [str(name) for name in file.schema_arrow.names]
        self._meter.header(names)
        if file.metadata.num_rows > ROWS:
            raise more_than(ROWS, "rows")
        if file.metadata.num_rows * len(names) > CELLS:
            raise more_than(CELLS, "cells", "take fewer rows or columns")
        yield 1, names
        number = 1
        for batch in file.iter_batches(PART, use_threads=False):
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield (number := number + 1), cells


def plain_cell(value: Any) -> Any:
    """A cell as JSON has it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(key): plain_cell(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_cell(part) for part in value]
    return str(value)
