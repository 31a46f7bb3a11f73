"""Lines of a log as a production writes them: keys that nobody asks for are ignored, and lines that cannot be read are
left out and listed once, with their number; a log of which half cannot be read is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import Problem, ProblemsError
from agent.task.tables import read_rows
from agent.task.words import near, problem, quoted, shown

T = TypeVar("T")
MISSING = object()
MILLISECONDS_FROM = 1e11
"""A time since 1970 from here on is one in milliseconds: in seconds it would be the year 5138."""
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
_SEVERAL = re.compile(r"[:;,({\[]")


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of the key `name`, or of one inside another by its dotted name; or MISSING.

    >>> value_of({"response": {"text": "billing"}}, "response.text")
    'billing'
    """
    if name in row:
        return row[name]
    part: Any = row
    for key in name.split("."):
        if not isinstance(part, Mapping) or key not in part:
            return MISSING
        part = part[key]
    return part


def required(row: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    """The value of `what`, whose key `columns` may name. Raises ValueError."""
    name = columns.get(what, what)
    value = value_of(row, name)
    if value is MISSING:
        raise ValueError(f"{what}: no key {quoted(name)}{near(name, row)}; name its key with --{what}-column")
    return value


def optional(row: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    """The value of `what`, or None, as for an empty cell."""
    value = value_of(row, columns.get(what, what))
    return None if value is MISSING or value == "" else value


def time_of(value: Any) -> str:
    """A time in ISO 8601: such a text as it is, or seconds or milliseconds since 1970. Raises ValueError."""
    if value is None:
        return ""
    try:
        if isinstance(value, str) and not value.isdecimal():
            datetime.fromisoformat(value)
            return value
        seconds = float(value)
        seconds = seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, TypeError, OverflowError, OSError):
        raise ValueError(f"time: {quoted(value)} is no time; write 2026-11-25T08:00:00Z") from None


def read_lines(
    path: Path, read: Callable[[Mapping[str, Any]], T], example: str
) -> tuple[list[tuple[int, T]], tuple[str, ...]]:
    """What `read` makes of each row of a .jsonl or .csv file, with its line, and notes on what was left out.

    Args:
        path: The file.
        read: Raises ValueError for a row that it cannot read.
        example: A row, for whoever has none.

    Raises:
        ProblemsError: No row, or half of them or more, can be read.
    """
    rows, problems = read_rows(path)
    where = shown(path)
    found = []
    for line, row in rows:
        try:
            found.append((line, read(row)))
        except ValueError as error:
            problems.append(problem(where, line, str(error)))
    if not rows and not problems:
        problems = [Problem(f"{where}:1", f"no rows; write one object per line, {example}")]
    once = list(listed_once(problems))
    if problems and len(problems) >= len(found):
        raise ProblemsError(tuple(once))
    return found, tuple(f"{each}; left out" for each in once)


def listed_once(problems: Iterable[Problem]) -> Iterable[Problem]:
    """Each kind of problem at its first line, and in how many more lines it is; what is in most lines first."""
    kinds: dict[str, list[Problem]] = {}
    for each in problems:
        kinds.setdefault(_SEVERAL.split(_VALUES.sub("", each.what), maxsplit=1)[0], []).append(each)
    for first, *more in sorted(kinds.values(), key=len, reverse=True):
        lines = f" (and so in {len(more)} more line{'s' * (len(more) > 1)})" if more else ""
        yield Problem(first.where, first.what + lines)
