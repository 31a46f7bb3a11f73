"""sweep.toml: which tasks, models, strategies and seeds are crossed, and with which options. Reads, calls nothing.

Every problem of the file is found in one pass, at its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import InputError, Problem, ProblemsError
from agent.options.jobs import RunOptions
from agent.search.registered import STRATEGIES
from agent.task.input_files import KeyPath, TomlLines, decode, parse_toml, read_bytes
from agent.task.words import near, problem, quoted, shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MOST_CELLS = 10_000
_TEXT, _NUMBER = (str,), (int, float)
AXES = ("task", "model", "strategy", "seed")
OPTIONS = tuple(name for name in RunOptions.declared() if name not in AXES)
"""The options of a cell: those of a run that are no axis."""
_TOP: Mapping[str, tuple[type, ...]] = {
    "name": _TEXT,
    "tasks": (list,),
    "models": (list,),
    "strategies": (list,),
    "seeds": (list,),
    "max_cost": _NUMBER,
    "options": (dict,),
    "cells": (list,),
    "resources": (dict,),
}
_RESOURCES: Mapping[str, tuple[type, ...]] = {"num_cpus": _NUMBER, "num_gpus": _NUMBER}
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of the axes. None: as the task says."""

    task: str
    model: str | None
    strategy: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Override:
    """A table of [[cells]]: its options hold for the points that have all values of `where`."""

    where: Mapping[str, Any]
    options: Mapping[str, Any]

    def holds(self, point: Point) -> bool:
        """Whether it is about this point."""
        return all(getattr(point, axis) == value for axis, value in self.where.items())


@dataclass(frozen=True, slots=True)
class SweepFile:
    """A sweep as its file says it.

    Args:
        path: the file.
        name: of the sweep, and of its folder.
        points: every combination, tasks first.
        options: those of every cell, as `OPTIONS`.
        overrides: options of some cells; a later one stands above an earlier one.
        max_cost: the cap in US dollars over all cells, at least 0; None: none.
        num_cpus, num_gpus: what a cell takes of a Ray node, at least 0.
    """

    path: Path
    name: str
    points: tuple[Point, ...]
    options: Mapping[str, Any]
    overrides: tuple[Override, ...] = ()
    max_cost: float | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    lines: Mapping[str, int] = field(default_factory=dict)
    """The lines of the keys at the top, for problems that are seen later."""

    def options_of(self, point: Point) -> dict[str, Any]:
        """The options of one cell."""
        options = dict(self.options)
        for override in self.overrides:
            if override.holds(point):
                options |= override.options
        return options

    def problem(self, key: str, what: str) -> Problem:
        """A problem at the line of a key at the top."""
        return problem(shown(self.path), self.lines.get(key, 1), what)


def read_sweep(path: Path) -> SweepFile:
    """Reads a sweep's file.

    Args:
        path: a TOML file of at most 1,000,000 characters.

    Returns:
        The sweep.

    Raises:
        ProblemsError: all that is wrong with the file, each at `file:line`.
    """
    where = shown(path)
    lines, problems = decode(read_bytes(path), where)
    if problems:
        raise ProblemsError(tuple(problems))
    text = "\n".join(line or "" for line in lines)
    return _Reading(path, parse_toml(text, where), TomlLines(text)).sweep()


class _Reading:
    def __init__(self, path: Path, raw: Mapping[str, Any], lines: TomlLines) -> None:
        self._path, self._raw, self._lines = path, raw, lines
        self._where = shown(path)
        self._problems: list[Problem] = []

    def sweep(self) -> SweepFile:
        raw = self._table((), self._raw, _TOP)
        name = raw.get("name", re.sub(r"[^A-Za-z0-9_-]+", "-", self._path.stem).strip("-") or "sweep")
        if not NAME.fullmatch(name):
            self._refuse(("name",), f"name = {quoted(name)}: write at most 64 letters, digits, _ and -")
        points = tuple(self._points(raw))
        options = self._options(("options",), raw.get("options", {}))
        overrides = tuple(self._overrides(raw.get("cells", []), points))
        cost = raw.get("max_cost")
        if cost is not None and not 0 <= cost < float("inf"):
            self._refuse(("max_cost",), f"max_cost = {quoted(cost)}: write a number of US dollars")
        resources = self._table(("resources",), raw.get("resources", {}), _RESOURCES)
        for key, value in resources.items():
            if not 0 <= value < float("inf"):
                self._refuse(("resources", key), f"{key} = {quoted(value)}: write a number of at least 0")
        if self._problems:
            raise ProblemsError(tuple(self._problems))
        places = {key: self._lines.of((key,)) for key in self._raw}
        return SweepFile(self._path, name, points, options, overrides, cost, **resources, lines=places)

    def _refuse(self, key: KeyPath, what: str) -> None:
        self._problems.append(problem(self._where, self._lines.of(key), what))

    def _table(self, at: KeyPath, raw: Any, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
        """The keys of a table whose values are of a kind that they may be; any other is a problem."""
        if not isinstance(raw, Mapping):
            self._refuse(at, f"{'.'.join(map(str, at))}: write a table")
            return {}
        kept = {}
        for key, value in raw.items():
            if key not in known:
                self._refuse((*at, key), f"unknown key {quoted(key)}{near(key, known)}")
            elif not isinstance(value, known[key]) or (isinstance(value, bool) and bool not in known[key]):
                kinds = " or ".join(_KINDS[kind] for kind in known[key])
                self._refuse((*at, key), f"{key} = {quoted(value)}: write {kinds}")
            else:
                kept[key] = value
        return kept

    def _points(self, raw: Mapping[str, Any]) -> Iterator[Point]:
        if not raw.get("tasks") and "tasks" not in self._problem_keys():
            self._refuse(("tasks",), "tasks: is missing or empty; list task folders, their names or data files")
        axes: dict[str, Sequence[Any]] = {
            "tasks": self._axis(raw, "tasks", str, []),
            "models": self._axis(raw, "models", str, [None]),
            "strategies": self._axis(raw, "strategies", str, [None]),
            "seeds": self._axis(raw, "seeds", int, [0]),
        }
        for seed in axes["seeds"]:
            if not 0 <= seed < 2**31:
                self._refuse(("seeds",), f"seeds: {seed} is out of range; write whole numbers from 0 to 2**31 - 1")
        for strategy in axes["strategies"]:
            if strategy is not None:
                self._strategy(("strategies",), strategy)
        if (
            count := len(axes["tasks"]) * len(axes["models"]) * len(axes["strategies"]) * len(axes["seeds"])
        ) > MOST_CELLS:
            self._refuse((), f"{count:,} cells; a sweep has at most {MOST_CELLS:,}: make several")
            return
        for task in axes["tasks"]:
            for model in axes["models"]:
                for strategy in axes["strategies"]:
                    yield from (Point(task, model, strategy, seed) for seed in axes["seeds"])

    def _problem_keys(self) -> set[str]:
        return {key for key in self._raw if key in _TOP and not isinstance(self._raw[key], _TOP[key])}

    def _axis(self, raw: Mapping[str, Any], key: str, kind: type, without: list[Any]) -> list[Any]:
        """The values of an axis, each once."""
        values = raw.get(key)
        if not values:
            return without
        kept: dict[Any, Any] = {}  # by the place of a task, by itself of anything else
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool) or value == "":
                self._refuse((key,), f"{key}: {quoted(value)}: write {_KINDS[kind]}")
                continue
            what = _place(str(value)) if key == "tasks" else value
            if what in kept:
                also = "" if kept[what] == value else f", also as {quoted(kept[what])}"
                self._refuse((key,), f"{key}: {quoted(value)} stands twice{also}; keep one")
            else:
                kept[what] = value
        return list(kept.values())

    def _strategy(self, at: KeyPath, name: str) -> None:
        try:
            STRATEGIES.get(name)
        except InputError as error:
            self._refuse(at, f"{at[-1]}: {error}")

    def _options(self, at: KeyPath, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            self._refuse(at, f"{'.'.join(map(str, at))}: write a table")
            return {}
        for key in raw.keys() - set(OPTIONS):
            self._refuse((*at, key), f"unknown key {quoted(key)}{near(key, OPTIONS)}")
        options = {key: value for key, value in raw.items() if key in OPTIONS}
        wrong = RunOptions.problems(options)
        for key, what in wrong.items():
            self._refuse((*at, key), f"{key} = {what}")
        return options

    def _overrides(self, tables: Sequence[Any], points: Sequence[Point]) -> Iterator[Override]:
        for number, table in enumerate(tables):
            at = ("cells", number)
            if not isinstance(table, Mapping):
                self._refuse(at, "cells: write each as a table [[cells]]")
                continue
            where = self._table(at, {k: v for k, v in table.items() if k in AXES}, dict.fromkeys(AXES, (str, int)))
            options = self._options(at, {key: value for key, value in table.items() if key not in AXES})
            made = Override(where, options)
            if not where or not options:
                self._refuse(at, f"[[cells]]: name cells by {', '.join(AXES)}, and give options for them")
            elif points and not any(map(made.holds, points)):
                said = ", ".join(f"{key} {quoted(value)}" for key, value in where.items())
                self._refuse(at, f"[[cells]]: no cell has {said}; write the values as above")
            else:
                yield made


def _place(task: str) -> str:
    """Where a task or data file lies, however it is written."""
    return os.path.abspath(task if os.path.exists(task) else os.path.join("tasks", task))
