"""Checks a sweep before it spends anything: new cells as runs, finished ones for changed files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.errors import AgentError, InputError, Problem, RunRefused
from agent.jobs.arguments import OptimizeArguments, launch_of, require_none
from agent.jobs.launch import Launch
from agent.jobs.locations import LEDGER
from agent.jobs.observers import Watcher
from agent.jobs.resume import prepare_resume, task_changes
from agent.jobs.sweep.cells import Cell, CellOutcome, cells_of, read_outcome, with_shares
from agent.jobs.sweep.file import SweepFile, read_sweep
from agent.jobs.tasks import task_of
from agent.ledger.query import Row, started_with
from agent.models.hosted import HostedModel
from agent.models.model_registry import create_model, file_digest
from agent.options.run import ResumeOptions
from agent.results.planned_run import PlannedRun
from agent.types import LM, Task

_NAMED = 3  # cells of one problem
_PUT_BACK = "put it back, or sweep into another folder (--folder)"


@dataclass(frozen=True, slots=True)
class PreparedSweep:
    """A sweep ready to start; `estimates`: maximum usage of cells that have not begun."""

    file: SweepFile
    folder: Path
    cells: Sequence[Cell]
    before: Mapping[str, CellOutcome]
    estimates: Mapping[str, PlannedRun]
    models: Sequence[str]


def prepare_sweep(path: Path, folder: Path | None = None, check_keys: bool = True) -> PreparedSweep:
    """Read a sweep file and check every cell as its run would start. Raises ProblemsError with all problems."""
    file = read_sweep(path)
    folder = folder or LEDGER.parent / f"sweep-{file.name}"
    cells = cells_of(file, folder)
    problems, before = list[Problem](), dict[str, CellOutcome]()
    for cell in cells:
        try:
            before[cell.name] = read_outcome(cell)
            if before[cell.name].state == "running":
                problems.append(Problem(str(cell.db), "another process is running this cell; wait for it"))
        except AgentError as error:
            problems.append(Problem(cell.name, str(error)))
    require_none(problems)
    cells = with_shares(file, cells, before)
    checking, estimates = _Checking(check_keys), dict[str, PlannedRun]()
    wrong = defaultdict[str, list[str]](list)
    for cell in cells:
        found = before[cell.name]
        try:
            if found.state == "finished" and found.run:
                for what in checking.changes(found.run):
                    wrong[f"{what} since this cell finished; {_PUT_BACK}"].append(cell.name)
            elif found.run:
                checking.require(prepare_resume(found.run["id"], ResumeOptions(), cell.db))
            else:
                estimates[cell.name] = checking.estimate(cell)
        except AgentError as error:
            for line in str(error).split("\n"):
                wrong[line].append(cell.name)
    for what, names in wrong.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        problems.append(Problem(f"{path}: {', '.join(names[:_NAMED])}{more}", what))
    require_none(problems)
    return PreparedSweep(file, folder, cells, before, estimates, tuple(checking.models))


class _Checking:
    """Checks cells; checks files, and runs that differ only in their seed, once."""

    def __init__(self, keys: bool) -> None:
        self.models: dict[str, None] = {}
        self._keys = keys
        self._seen: dict[str, PlannedRun | InputError] = {}
        self._tasks: dict[str, Task] = {}
        self._digest = cache(file_digest)

    def estimate(self, cell: Cell) -> PlannedRun:
        """Return the maximum usage of a cell. Raises InputError with all its problems."""
        key = json.dumps([cell.point.task, {**cell.arguments, "seed": 0}], sort_keys=True, default=str)
        if key not in self._seen:
            try:
                launch = launch_of(cell.point.task, OptimizeArguments.given(cell.arguments), cell.db, Watcher())
                self._seen[key] = launch.planned()
                self.require(launch)
            except AgentError as error:
                lines = dict.fromkeys([*str(error).split("\n"), *self._wrong_models(cell)])
                self._seen[key] = InputError("\n".join(lines))
        if isinstance(found := self._seen[key], InputError):
            raise found
        return found

    def _wrong_models(self, cell: Cell) -> list[str]:
        judges, lines = cell.options.get("judge", ()), list[str]()
        named = [cell.point.model, cell.options.get("proposer"), *([judges] if isinstance(judges, str) else judges)]
        for name in dict.fromkeys(each for each in named if each not in {None, "none"}):
            try:
                self._require_key(create_model(name))
            except AgentError as error:
                lines += str(error).split("\n")
        return lines

    def require(self, launch: Launch) -> None:
        """Record the models of a run. Raises InputError for a missing key."""
        self.models.update(dict.fromkeys(launch.models))
        for lm in launch.lms():
            self._require_key(lm)

    def _require_key(self, lm: LM) -> None:
        if self._keys and isinstance(lm, HostedModel):
            try:
                lm.check_key()
            except RunRefused as error:
                raise InputError(f"{lm.name}: {error}") from None

    def changes(self, run: Row) -> list[str]:
        """Return what changed since a run finished."""
        begun, model = started_with(run), run["model"]
        key = json.dumps({**begun.stored(), "model": None, "strategy": None}, sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = task_of(begun)
        is_other_file = begun.model_digest != self._digest(model)
        return task_changes(run, self._tasks[key]) + [f"the file behind {model} changed"] * is_other_file
