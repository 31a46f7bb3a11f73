"""A sweep before anything is spent: cells are checked as their runs would start, finished ones for changed files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError, InputError, Problem, RunRefused
from agent.jobs.arguments import OptimizeArguments, launch_of, require_none
from agent.jobs.launch import Estimate, Launch, estimate
from agent.jobs.locations import LEDGER, open_history
from agent.jobs.observers import Watcher
from agent.jobs.resume import prepare_resume, task_changes
from agent.jobs.sweep.cells import Cell, CellProgress, cells_of, progress_of, with_shares
from agent.jobs.sweep.file import SweepFile, read_sweep
from agent.jobs.tasks import task_of
from agent.ledger.query import started_with
from agent.models.hosted import HostedModel
from agent.models.model_registry import create_model, file_digest
from agent.options.jobs import ResumeOptions
from agent.types import LM, Task

HOSTED_JOBS = 4
"""Cells at once where no model runs in this machine's own processes."""
_NAMED = 3  # cells of one problem


@dataclass(frozen=True, slots=True)
class PreparedSweep:
    """A sweep that may start. `estimates`: by cell what a run takes at most, of those that have not begun."""

    file: SweepFile
    folder: Path
    cells: Sequence[Cell]
    progress: Mapping[str, CellProgress]
    estimates: Mapping[str, Estimate]
    models: Sequence[str]

    @property
    def jobs(self) -> int:
        """How many cells run at once on this machine by default."""
        return 1 if any(model.startswith("local/") for model in self.models) else HOSTED_JOBS

    def open_cells(self) -> list[Cell]:
        return [cell for cell in self.cells if self.progress[cell.name].state != "finished"]


def prepare_sweep(path: Path, folder: Path | None = None, check_keys: bool = True) -> PreparedSweep:
    """Read a sweep's file and check every cell of it as its run would start; call nothing.

    Args:
        folder: for the ledgers. None: runs/sweep-NAME.
        check_keys: whether the keys of providers must be here, where the cells run on this machine.

    Raises:
        ProblemsError: all that is wrong with the file, or with any cell.
    """
    file = read_sweep(path)
    folder = folder or LEDGER.parent / f"sweep-{file.name}"
    cells = cells_of(file, folder)
    problems: list[Problem] = []
    progress: dict[str, CellProgress] = {}
    for cell in cells:
        try:
            progress[cell.name] = found = progress_of(cell.db)
            if found.state == "running":
                problems.append(Problem(str(cell.db), "another process runs this cell; wait for it"))
        except AgentError as error:
            problems.append(Problem(cell.name, str(error)))
    require_none(problems)
    cells = with_shares(file, cells, progress)
    checking = _Checking(check_keys)
    estimates = {cell.name: plan for cell in cells if (plan := checking.estimate(cell, progress[cell.name]))}
    wrong = []
    for what, names in checking.wrong.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        wrong.append(Problem(f"{path}: {', '.join(names[:_NAMED])}{more}", what))
    for what, names in checking.stale.items():
        since = f"since {'this cell' if len(names) == 1 else 'these cells'} finished"
        fix = "put it back, or sweep into another folder (--folder)"
        wrong.append(Problem(f"{path}: {', '.join(names)}", f"{what} {since}; {fix}"))
    require_none(wrong)
    return PreparedSweep(file, folder, cells, progress, estimates, tuple(checking.models))


class _Checking:
    """Checks cells; runs that differ in their seed alone, and files, are checked once."""

    def __init__(self, keys: bool) -> None:
        self.models: dict[str, None] = {}
        self.wrong: dict[str, list[str]] = {}
        self.stale: dict[str, list[str]] = {}
        self._keys = keys
        self._seen: dict[str, Estimate | list[str]] = {}
        self._tasks: dict[str, Task] = {}
        self._digests: dict[str, str] = {}

    def estimate(self, cell: Cell, progress: CellProgress) -> Estimate | None:
        """What a cell that has not begun takes at most; None for another, and where something is wrong."""
        found: Estimate | list[str] = []
        try:
            if progress.state == "finished":
                for what in self._changes(cell.db, progress.run_id):
                    self.stale.setdefault(what, []).append(cell.name)
            elif progress.run_id:
                self._require(prepare_resume(progress.run_id, ResumeOptions(), cell.db))
            else:
                key = json.dumps([cell.point.task, {**cell.arguments, "seed": 0}], sort_keys=True, default=str)
                if key not in self._seen:
                    self._seen[key] = self._estimated(cell)
                found = self._seen[key]
        except AgentError as error:
            found = str(error).split("\n")
        if not isinstance(found, list):
            return found
        for line in found:
            self.wrong.setdefault(line, []).append(cell.name)
        return None

    def _estimated(self, cell: Cell) -> Estimate | list[str]:
        try:
            launch = launch_of(cell.point.task, OptimizeArguments.given(cell.arguments), cell.db, Watcher())
            found = estimate(launch)
            self._require(launch)
        except AgentError as error:
            return list(dict.fromkeys([*str(error).split("\n"), *self._wrong_models(cell)]))
        return found

    def _wrong_models(self, cell: Cell) -> Iterator[str]:
        judges = cell.options.get("judge", ())
        named = [cell.point.model, cell.options.get("proposer"), *([judges] if isinstance(judges, str) else judges)]
        for name in dict.fromkeys(each for each in named if each not in {None, "none"}):
            try:
                self._require_key(create_model(name))
            except AgentError as error:
                yield from str(error).split("\n")

    def _require(self, launch: Launch) -> None:
        self.models.update(dict.fromkeys(launch.models))
        for lm in launch.lms():
            self._require_key(lm)

    def _require_key(self, lm: LM) -> None:
        if self._keys and isinstance(lm, HostedModel):
            try:
                lm.check_key()
            except RunRefused as error:
                raise InputError(f"{lm.name}: {error}") from None

    def _changes(self, db: Path, run_id: str) -> list[str]:
        with closing(open_history(db)) as history:
            run = history.run(run_id)
        begun, model = started_with(run), run["model"]
        key = json.dumps({**begun.stored(), "model": None, "strategy": None}, sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = task_of(begun)
        if model not in self._digests:
            self._digests[model] = file_digest(model)
        is_other_file = begun.model_digest != self._digests[model]
        return task_changes(run, self._tasks[key]) + [f"the file behind {model} changed"] * is_other_file
