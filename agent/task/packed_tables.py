"""Rows of .xlsx and Parquet files, read in a child process with limits on time and memory."""

from __future__ import annotations

import contextlib
import datetime
import math
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from agent.extras import command
from agent.safe_data import CELL_TEXT, CELLS, LINES, MEMORY, POSITIONS, ROWS, more_than
from agent.safe_file import OutsideFile
from agent.safe_text import listed, near, printable, quoted
from agent.task.tables import FileMeter, Rows, values_in
from agent.worker import Worker

SECONDS = 300.0  # for each part of the rows, and for opening the file
PART = 500  # rows of one part
Row = tuple[int, list[Any]]
_LIBRARIES = {".xlsx": "openpyxl", ".parquet": "pyarrow"}
_SCRIPT = r"""
sys.path[:] = opening["path"]
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("agent", opening["package"])  # by path, so that a user's agent.py is not imported
sys.modules["agent"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from agent.safe_data import TooMuch
from agent.task.packed_tables import TableFile, limit_memory
limit_memory()
answer(True, "")
table = None
for line in pipe_in:
    is_full = False
    try:
        if table is None:
            name, suffix, sheet = json.loads(line)
            table = TableFile(name, suffix, sheet)
            answer({"header": table.header, "sheets": table.sheets}, "")
        else:
            answer({"rows": table.part()}, "")
    except TooMuch as error:
        answer({"wrong": str(error)}, "")
    except MemoryError:
        is_full = True
    except Exception as error:  # a library may fail in any way on a damaged file
        what = f"cannot be read as {suffix} ({type(error).__name__}: {str(error)[:200]})"
        answer({"wrong": f"{what}; save it again"}, "")
    if is_full:  # after the except block, as the error holds memory
        table = None
        answer({"wrong": "takes more memory than a file may; take fewer rows, or save it as CSV"}, "")
"""


def read_packed(source: OutsideFile, sheet: str | None) -> tuple[Rows, tuple[str, ...]]:
    """Read a sheet (default: the first) or table, with notes. Raises ProblemsError."""
    if find_spec(_LIBRARIES[source.suffix]) is None:
        library = _LIBRARIES[source.suffix]
        raise source.refusal(1, f"{source.suffix} needs {library}, which is not installed; {command('tables')}")
    package = str(Path(__file__).parents[1] / "__init__.py")
    opening = {"path": [place for place in sys.path if place], "package": package}
    worker = Worker("the reader", _SCRIPT, opening, SECONDS, SECONDS)
    try:
        with tempfile.NamedTemporaryFile(suffix=source.suffix) as file:
            file.write(source.data)
            file.flush()
            return _read(worker, file.name, source, sheet)
    except OSError as error:
        raise source.refusal(1, f"cannot be unpacked ({error.strerror}); make room in the temp folder") from error
    finally:
        worker.close()


def _read(worker: Worker, name: str, source: OutsideFile, sheet: str | None) -> tuple[Rows, tuple[str, ...]]:
    rows: Rows = []

    def asked(question: Any) -> Any:
        found, why = worker.now(question)
        found = found or {"wrong": f"cannot be read as {source.suffix} ({why}); take fewer rows, or save it as CSV"}
        if "wrong" in found:
            raise source.refusal(rows[-1][0] + 1 if rows else 1, found["wrong"])
        return found

    opened = asked([name, source.suffix, sheet or ""])
    header, sheets = opened["header"], opened["sheets"]
    if sheet and sheet not in sheets:
        raise source.refusal(1, f"no sheet {quoted(sheet)}{near(sheet, sheets)}")
    if twice := next((name for at, name in enumerate(header) if name in header[:at]), ""):
        raise source.refusal(1, f"two columns are called {quoted(twice)}; rename one")
    while part := asked("next")["rows"]:
        for number, cells in part:
            if any(isinstance(cell, str) and "\x00" in cell for cell in cells):
                raise source.refusal(number, "holds a NUL character; remove it")
            rows.append((number, dict(zip(header, cells, strict=True))))
    if len(sheets) < 2:
        return rows, ()
    name = sheet or sheets[0]
    others = listed(each for each in sheets if each != name)
    read = f'{source.where}: sheet "{printable(name)}" of {len(sheets)} was read'
    return rows, (f"{read}; --sheet NAME reads another: {others}",)


# -- inside the child process ------------------------------------------------------------------------------------------


def limit_memory() -> None:
    """Limit the address space of this process, where the system supports it."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit exists
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class TableFile:
    """An open file with its header and numbered rows (the header is 1)."""

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

        import openpyxl

        with warnings.catch_warnings(action="ignore"):  # about styles and extensions
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            self.sheets = [sheet.title for sheet in book.worksheets]
            if name and name not in self.sheets:
                return
            sheet = book.worksheets[self.sheets.index(name) if name else 0]
            sheet.reset_dimensions()  # some programs write a wrong size, which would cut off cells
            seen = 0
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                seen += len(row)
                if seen > POSITIONS or number > LINES:
                    raise more_than(POSITIONS, "cells, empty ones included", "take out cells far from the others")
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
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime.datetime):
        return (value.date() if value.time() == datetime.time() else value).isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(key): plain_cell(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_cell(part) for part in value]
    return str(value)
