"""Rows of `.xlsx` and `.parquet` files, by the libraries of the extra `tables`."""

from __future__ import annotations

import datetime
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from agent.errors import Problem
from agent.extras import command
from agent.task.words import problem, quoted

Rows = list[tuple[int, dict[str, Any]]]
MOST_UNPACKED = 1024 * 1024 * 1024
"""Bytes of the unpacked parts of a workbook, or of the rows of a Parquet file."""


def rows_of_binary(data: bytes, suffix: str, where: str) -> tuple[Rows, list[Problem]]:
    """The rows of the first sheet, or of the table, with their numbers (the header is 1); raises nothing.

    Cells are texts, numbers, true and false, or JSON; dates are ISO texts, and what is empty is "".
    """
    read, library = (_workbook, "openpyxl") if suffix == ".xlsx" else (_parquet, "pyarrow")
    try:
        header, rows = read(data)
    except ImportError:
        return [], [problem(where, 1, f"{suffix} needs {library}, which is not installed; {command('tables')}")]
    except Exception as error:  # a library may fail in any way on a damaged file
        return [], [
            problem(where, 1, f"cannot be read as {suffix} ({type(error).__name__}: {str(error)[:200]}); save it anew")
        ]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        return [], [problem(where, 1, f"two columns are called {quoted(twice[0])}; rename one")]
    made = [(number, [plain_cell(cell) for cell in row]) for number, row in enumerate(rows, start=2)]
    if bad := next((n for n, row in made if any(isinstance(cell, str) and "\x00" in cell for cell in row)), 0):
        return [], [problem(where, bad, "holds a NUL character; remove it")]
    return [(n, dict(zip(header, row, strict=False))) for n, row in made if any(cell != "" for cell in row)], []


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


def _workbook(data: bytes) -> tuple[list[str], Iterable[Sequence[Any]]]:
    import warnings
    import zipfile

    import openpyxl

    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        if sum(part.file_size for part in parts.infolist()) > MOST_UNPACKED:
            raise ValueError("its parts are larger than 1 GB")
    with warnings.catch_warnings(action="ignore"):  # about styles and extensions, which hold no cells
        sheet = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
        sheet.reset_dimensions()  # some programs write a wrong size, and cells beyond it would be lost
        first, *rows = list(sheet.iter_rows(values_only=True)) or [()]
    width = max((at for at, cell in enumerate(first, start=1) if cell is not None), default=0)
    blank = (None,) * width
    return [str(plain_cell(cell)) for cell in first[:width]], [(*row, *blank)[:width] for row in rows]


def _parquet(data: bytes) -> tuple[list[str], Iterable[Sequence[Any]]]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    groups = range(file.metadata.num_row_groups)
    if sum(file.metadata.row_group(number).total_byte_size for number in groups) > MOST_UNPACKED:
        raise ValueError("its rows are larger than 1 GB")
    table = file.read()
    header = [str(name) for name in table.column_names]
    return header, zip(*(column.to_pylist() for column in table.columns), strict=True)
