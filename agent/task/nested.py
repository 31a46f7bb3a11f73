"""Columns out of JSON objects in a table, by dotted names: `label.queue` is the key `queue` of the column `label`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.errors import InputError
from agent.task.answers import parse_object
from agent.task.limits import COLUMNS
from agent.task.words import quoted

Rows = list[dict[str, Any]]


def expanded(table: Sequence[Mapping[str, Any]], wanted: Iterable[str]) -> tuple[Rows, frozenset[str]]:
    """The table with a column for each key of the objects that `wanted` dotted names lead through, in the place of the
    object's own column; and the names of these columns.

    A column whose own name has the dots comes first, and a name that leads nowhere changes nothing.
    """
    rows, made = [dict(row) for row in table], set[str]()
    for name in wanted:
        while "." in name and not any(name in row for row in rows):
            names = {column for row in rows for column in row if name.startswith(f"{column}.")}
            parent = max(names, key=len, default="")
            if not parent or not (opened := _opened(rows, parent)):
                break
            rows, new = opened
            made = (made - {parent}) | new
    return rows, frozenset(made)


def _opened(rows: Rows, parent: str) -> tuple[Rows, set[str]] | None:
    """The rows with the keys of the column `parent` in its place; None where it holds no object."""
    objects = [_object(row.get(parent)) for row in rows]
    keys = list(dict.fromkeys(key for value in objects for key in value or ()))
    if len(keys) > COLUMNS:
        what = f"its objects have more than {COLUMNS:,} different keys"
        raise InputError(f"the column {quoted(parent)}: {what}; write those that are needed as columns")
    if not keys or any(f"{parent}.{key}" in row for key in keys for row in rows):
        return None
    opened: Rows = []
    for row, value in zip(rows, objects, strict=True):
        made: dict[str, Any] = {}
        for column, cell in row.items():
            if column == parent:
                made |= {f"{parent}.{key}": (value or {}).get(key) for key in keys}
            else:
                made[column] = cell
        opened.append(made)
    return opened, {f"{parent}.{key}" for key in keys}


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return None
    try:
        return parse_object(value)
    except ValueError:
        return None
