"""The limits of every file that rows are read from, and a meter that checks them while a file is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

COLUMNS = 1_000
"""Columns, also of all JSON rows together."""
ROWS = 1_000_000
LINES = 2_000_000
"""Lines of a text file; a cell may span several."""
CELLS = 5_000_000
"""Cells of all rows, and values inside of JSON."""
CELL_TEXT = 1_000_000
"""Characters of one cell, or of one text inside of JSON."""
TEXT = 100_000_000
"""Characters of all cells of a workbook or Parquet file, which are packed."""
POSITIONS = 50_000_000
"""Cells of a sheet, empty ones to the left of others included."""
FILE = 200 * 1024 * 1024
"""Bytes of a file."""
LINE = 64 * 1024 * 1024
"""Bytes of a line, and of a .json file, which is read as a whole."""
YAML = 4 * 1024 * 1024
"""Bytes of a YAML file, whose reader is slow."""
YAML_NODES = 50_000
"""Names, values and lists in it."""
MEMORY = 1024 * 1024 * 1024
"""Bytes of memory of the process that reads a workbook or Parquet file."""


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
