"""Read a workbook or Parquet file inside a child process, whose memory is limited, a part of the rows at a time.

Their libraries unpack what they read: a small file may fill the memory before there is a row to count.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import resource
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from agent.task.limits import CELL_TEXT, CELLS, LINES, MEMORY, POSITIONS, ROWS, FileMeter, TooMuch, more_than, values_in

PART = 500
"""Rows of one answer."""
Row = tuple[int, list[Any]]


def limit_memory() -> None:
    """Bound the address space of this process to MEMORY, as far as the system does that."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class TableFile:
    """An open file: its header, and its rows with their numbers (the header is 1).

    Args:
        path: of the file.
        suffix: .xlsx or .parquet.
        sheet: by its name; "" for the first.
    """

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
        """The rows that hold something, as wide as the header."""
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
