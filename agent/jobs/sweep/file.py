"""sweep.toml: the tasks, models, strategies and seeds to cross, and the options of their runs.

One pass finds every problem of the file, at its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError

from agent.errors import InputError, Problem, ProblemsError
from agent.options.run import RunOptions
from agent.safe_data import KeyPath, TomlLines, parse_toml
from agent.safe_file import decoded, read_bytes
from agent.safe_text import near, problem, quoted, shown
from agent.search.registered import STRATEGIES

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
MOST_CELLS = 10_000
AXES = ("task", "model", "strategy", "seed")
OPTIONS = tuple(name for name in RunOptions.declared() if name not in AXES)
"""Options of a cell: those of a run except the axes."""


class Point(NamedTuple):
    """One combination of the axes; None: the task's default."""

    task: str
    model: str | None
    strategy: str | None
    seed: int


def _place(task: Any) -> str:
    return os.path.abspath(task if os.path.exists(task) else os.path.join("tasks", task))


def _once(values: list[Any], same: Callable[[Any], Any] = str) -> list[Any]:
    kept: dict[Any, Any] = {}
    for value in values:
        if (what := same(value)) in kept:
            also = "" if kept[what] == value else f", also as {quoted(kept[what])}"
            raise ValueError(f"{quoted(value)} is listed twice{also}; keep one")
        kept[what] = value
    return values


def _known_strategy(name: str) -> str:
    try:
        STRATEGIES.get(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


Word = Annotated[str, StringConstraints(min_length=1)]
Once = AfterValidator(_once)
Amount = Annotated[float, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NodeShare(_Table):
    """Resources of a Ray node for one cell."""

    num_cpus: Amount = 1.0
    num_gpus: Amount = 0.0


class SweepFile(_Table):
    """A sweep file; a table of `cells` gives options to the points that match its axes."""

    name: Annotated[str, Field(pattern=NAME)]
    tasks: Annotated[list[Word], Field(min_length=1), AfterValidator(partial(_once, same=_place))]
    models: Annotated[list[Word], Once] = []
    strategies: Annotated[list[Annotated[str, AfterValidator(_known_strategy)]], Once] = []
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Once] = []
    max_cost: Amount | None = None
    options: dict[str, Any] = {}
    cells: list[dict[str, Any]] = []
    resources: NodeShare = NodeShare()
    _path: Path = PrivateAttr()
    _lines: TomlLines = PrivateAttr()

    @property
    def points(self) -> list[Point]:
        """Every combination, tasks first."""
        axes: list[list[Any]] = [self.tasks, self.models or [None], self.strategies or [None], self.seeds or [0]]
        return [Point(*values) for values in islice(product(*axes), MOST_CELLS + 1)]

    def options_of(self, point: Point) -> dict[str, Any]:
        """Return the options of a cell; later tables of `cells` override earlier ones."""
        options = dict(self.options)
        for table in self.cells:
            if _holds(table, point):
                options |= {name: value for name, value in table.items() if name not in AXES}
        return options

    def problem(self, key: str, what: str) -> Problem:
        """Return a problem at the line of a top-level key."""
        return problem(shown(self._path), self._lines.of((key,)), what)


def _holds(table: Mapping[str, Any], point: Point) -> bool:
    return all(getattr(point, axis) == table[axis] for axis in AXES if axis in table)


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep.toml. Raises ProblemsError with all its problems."""
    where = shown(path)
    text = decoded(read_bytes(path), where)
    raw, lines = parse_toml(text, where), TomlLines(text)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or "sweep"
    sweep, faults = None, dict[KeyPath, str]()
    try:
        sweep = SweepFile.model_validate({"name": name, **raw})
    except ValidationError as error:
        for each in error.errors():
            faults.setdefault(each["loc"], _said(each["type"], each["msg"], each["loc"], each["input"]))
    for key, what in [*_wrong_options(raw), *(_wrong_cells(sweep) if sweep else ())]:
        faults.setdefault(key, what)
    if faults or sweep is None:
        raise ProblemsError(tuple(problem(where, lines.of(key), what) for key, what in faults.items()))
    sweep._path, sweep._lines = path, lines
    return sweep


def _said(kind: str, message: str, loc: KeyPath, value: Any) -> str:
    names = [str(part) for part in loc if isinstance(part, str)]
    if kind == "missing" or (kind == "too_short" and loc == ("tasks",)):
        return "tasks: missing or empty; list task folders, their names or data files"
    if kind == "extra_forbidden":
        table = NodeShare if loc[0] == "resources" else SweepFile
        return f"unknown key {quoted(names[-1])}{near(names[-1], table.model_fields)}"
    if kind == "value_error":
        return f"{names[-1]}: {message.removeprefix('Value error, ')}"
    what = "should be at most 64 letters, digits, _ and -" if loc == ("name",) else message.removeprefix("Input ")
    return f"{'.'.join(names)} = {quoted(value)}: {what}"


def _wrong_options(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    cells = raw.get("cells")
    tables = [(("cells", at), table) for at, table in enumerate(cells)] if isinstance(cells, list) else []
    for at, table in [(("options",), raw.get("options")), *tables]:
        if not isinstance(table, Mapping):
            continue
        given = {key: value for key, value in table.items() if at == ("options",) or key not in AXES}
        for key in given.keys() - set(OPTIONS):
            yield (*at, key), f"unknown key {quoted(key)}{near(key, OPTIONS)}"
        for key, what in RunOptions.problems({key: given[key] for key in given if key in OPTIONS}).items():
            yield (*at, key), f"{key} = {what}"


def _wrong_cells(sweep: SweepFile) -> Iterator[tuple[KeyPath, str]]:
    points = sweep.points
    if len(points) > MOST_CELLS:
        yield (), f"more than {MOST_CELLS:,} cells; divide the sweep"
        return
    for at, table in enumerate(sweep.cells):
        where = {key: value for key, value in table.items() if key in AXES}
        if not where or len(where) == len(table):
            yield ("cells", at), f"[[cells]]: name cells by {', '.join(AXES)}, and give options for them"
        elif not any(_holds(table, point) for point in points):
            said = ", ".join(f"{key} {quoted(value)}" for key, value in where.items())
            yield ("cells", at), f"[[cells]]: no cell has {said}; write the values as above"
