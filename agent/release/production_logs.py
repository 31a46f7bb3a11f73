"""Readers of production logs: lines of answers, and the outcomes of an A/B test.

    answers:  {"reply": "...", "inputs": {...}, "time": "2026-11-25T08:00:00Z", "score": 0.8, "confidence": 0.9}
    outcomes: {"unit": "user-17", "arm": "A", "outcome": 1}        in order of arrival

Only the reply of an answer is required. Other keys are ignored, and keys may be renamed. Unreadable lines are left out
and listed once; a log with half of its lines unreadable is refused.

A unit (a user, a session) of an A/B test is bucketed once and counts once: its outcomes are not independent. A
second one is refused, or left out by `first`; averaging would change earlier counts, and with them every earlier look.
A unit in two arms is always refused: its bucketing failed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import InputError, Problem, ProblemsError
from agent.safe_text import listed, near, problem, quoted, shown
from agent.task.tables import DataFile

AS_THEY_ARE: Mapping[str, str] = {}
"""No key is renamed."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An A/B test. `arms`: the control first. `outcomes`: (arm 0 or 1, outcome in [0, 1]), in order.

    `left_out` counts repeated outcomes of a unit; `notes` list unreadable lines.
    """

    arms: tuple[str, str]
    outcomes: tuple[tuple[int, float], ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def read_outcomes(
    path: Path, control: str | None, *, first: bool = False, columns: Mapping[str, str] = AS_THEY_ARE
) -> Experiment:
    """Read an A/B test's outcomes from .jsonl or .csv, in order of arrival.

    `control`: the arm that the other is compared with; None: the first by name. `first`: leave out repeated outcomes of
    a unit; otherwise they are refused. `columns`: custom key names, by ours. Raises ProblemsError or InputError.
    """
    found, notes = read_lines(path, lambda row: _outcome(row, columns), '{"unit": ..., "arm": ..., "outcome": ...}')
    where = shown(path)
    problems = []
    kept: list[tuple[str, float]] = []
    bucket: dict[str, tuple[str, int]] = {}
    left_out = 0
    for line, (unit, arm, outcome) in found:
        known = bucket.setdefault(unit, (arm, line))
        if known[0] != arm:
            what = f"the unit {quoted(unit)} is in arm {quoted(arm)}, on line {known[1]} in {quoted(known[0])}"
            problems.append(problem(where, line, what))
        elif known[1] == line:
            kept.append((arm, outcome))
        elif first:
            left_out += 1
        else:
            fix = "a unit counts once; remove these rows, or use --several first"
            what = f"the unit {quoted(unit)} has an outcome on line {known[1]}; {fix}"
            problems.append(problem(where, line, what))
    if problems:
        raise ProblemsError(tuple(listed_once(problems)))
    arms = sorted({arm for arm, _ in kept})
    if len(arms) != 2:
        raise InputError(f"{where}:1: {len(arms)} arms ({listed(arms) or 'none'}); an A/B test compares two")
    if control is not None and control not in arms:
        raise InputError(f"--control {control}: the arms are {', '.join(arms)}")
    if control == arms[1]:
        arms.reverse()
    counted = tuple((arms.index(arm), outcome) for arm, outcome in kept)
    return Experiment((arms[0], arms[1]), counted, left_out, notes)


def _outcome(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, str, float]:
    names = []
    for key in ("unit", "arm"):
        value = required(row, key, columns)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(f"{key}: {quoted(value)} is not a name; write a text")
        names.append(str(value))
    return names[0], names[1], fraction("outcome", required(row, "outcome", columns))


# -- lines of a log ----------------------------------------------------------------------------------------------------

T = TypeVar("T")
MISSING = object()
MILLISECONDS_FROM = 1e11
"""Times since 1970 from here on are in milliseconds: in seconds it would be the year 5138."""
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
_SEVERAL = re.compile(r"[:;,({\[]")


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a key, or of a dotted name; else MISSING.

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
    """Return the value of `what`, whose key `columns` may rename. Raises ValueError."""
    name = columns.get(what, what)
    value = value_of(row, name)
    if value is MISSING:
        raise ValueError(f"{what}: no key {quoted(name)}{near(name, row)}; name its key with --{what}-column")
    return value


def optional(row: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    """Return the value of `what`; None if it is missing or an empty cell."""
    value = value_of(row, columns.get(what, what))
    return None if value is MISSING or value == "" else value


def time_of(value: Any) -> str:
    """Return a time as ISO 8601; "" for None. It may be such a text, or seconds or milliseconds since 1970."""
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
        raise ValueError(f"time: {quoted(value)} is not a time; write 2026-11-25T08:00:00Z") from None


def read_lines(
    path: Path, read: Callable[[Mapping[str, Any]], T], example: str
) -> tuple[list[tuple[int, T]], tuple[str, ...]]:
    """Parse each row; return (line, parsed row) pairs and notes on skipped rows.

    `read` raises ValueError. Raises ProblemsError if there are no rows (with an `example`), or half are unreadable.
    """
    file, found = DataFile(path), []
    for line, row in file.rows:
        with file.at(line):
            found.append((line, read(row)))
    if not file.rows and not file.problems:
        file.note(1, f"no rows; write one object per line, {example}")
    once = list(listed_once(file.problems))
    if file.problems and len(file.problems) >= len(found):
        raise ProblemsError(tuple(once))
    return found, tuple(f"{each}; left out" for each in once)


def listed_once(problems: Iterable[Problem]) -> Iterable[Problem]:
    """Group problems by kind, most frequent first: first line and number of others."""
    kinds: dict[str, list[Problem]] = {}
    for each in problems:
        kinds.setdefault(_SEVERAL.split(_VALUES.sub("", each.what), maxsplit=1)[0], []).append(each)
    for first, *more in sorted(kinds.values(), key=len, reverse=True):
        lines = f" (and so in {len(more)} more line{'s' * (len(more) > 1)})" if more else ""
        yield Problem(first.where, first.what + lines)


def fraction(name: str, value: Any) -> float:
    """Return a number from 0 to 1. Raises ValueError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: {quoted(value)} is not a number from 0 to 1")
    return number
