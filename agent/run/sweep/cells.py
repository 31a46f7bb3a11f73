"""The cells of a sweep: what each runs, where its ledger lies, how far it is, and what it may spend. Calls nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.errors import Problem
from agent.ledger.connect import is_there
from agent.ledger.files import is_held
from agent.run.locations import open_history
from agent.run.sweep.file import Point, SweepFile
from agent.task.words import counted

State = Literal["not begun", "partial", "running", "finished"]
FINISHED = ("complete", "budget")
"""The status of a run that has its result."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep.

    Args:
        max_cost: its cap in US dollars: its own, or its share. None: none.
    """

    name: str
    point: Point
    options: Mapping[str, Any]
    db: Path
    max_cost: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The options of its run, JSON-ready."""
        axes = {"model": self.point.model, "seed": self.point.seed, "strategy": self.point.strategy}
        given = {**self.options, **axes, "max_cost": self.max_cost}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class CellProgress:
    """How far a cell is, as its ledger says. `running`: a process writes it now. `max_cost`: the cap of its run."""

    state: State
    run_id: str = ""
    status: str = ""
    error: str = ""
    max_cost: float | None = None


def cells_of(sweep: SweepFile, folder: Path) -> list[Cell]:
    """The cells of a sweep whose ledgers lie in `folder`, in the order of the file; no shares are given yet."""
    found = []
    for point in sweep.points:
        options = sweep.options_of(point)
        name = _name(point, options)
        found.append(Cell(name, point, options, folder / f"{name}.db", options.get("max_cost")))
    return found


def _name(point: Point, options: Mapping[str, Any]) -> str:
    axes = [point.task, point.model, point.strategy, point.seed]
    digest = hashlib.sha256(json.dumps([axes, options], sort_keys=True).encode()).hexdigest()
    model = (point.model or "").split("@")[0].rpartition("/")[2]
    words = (Path(point.task).stem, model, point.strategy or "", f"s{point.seed}")
    slugs = [re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-")[:24] for word in words]
    return ".".join([*filter(None, slugs), digest[:8]])


def progress_of(db: Path) -> CellProgress:
    """How far the cell with this ledger is. Raises LedgerError for a file that is damaged."""
    if not is_there(db):
        return CellProgress("not begun")
    held = is_held(db)
    with closing(open_history(db)) as history:
        runs = [run for run in history.runs() if not (run["options"] or {}).get("command")]
    if not runs:
        return CellProgress("running" if held else "not begun")
    run = next((run for run in runs if run["status"] in FINISHED), runs[0])
    state: State = "finished" if run["status"] in FINISHED else "running" if held else "partial"
    return CellProgress(state, run["id"], run["status"], run["error"] or "", (run["options"] or {}).get("max_cost"))


def with_shares(
    sweep: SweepFile, cells: Sequence[Cell], begun: Mapping[str, CellProgress]
) -> tuple[list[Cell], list[Problem]]:
    """The cells with their caps, so that all caps together are within that of the sweep, and what is wrong with it.

    A cell that has begun keeps the cap that its run has, one with its own `max_cost` has that, and the others
    share alike what is left: a cap is in the plan of a run, so it may not depend on which cell came first."""
    if sweep.max_cost is None:
        return list(cells), []
    caps = {
        cell.name: begun[cell.name].max_cost if begun[cell.name].run_id else cell.options.get("max_cost")
        for cell in cells
    }
    if uncapped := [name for name, cap in caps.items() if cap is None and begun[name].run_id]:
        return list(cells), [
            sweep.problem("max_cost", f"max_cost: {uncapped[0]} was begun without a cap; leave it out")
        ]
    taken = sum(cap for cap in caps.values() if cap is not None)
    sharing = [name for name, cap in caps.items() if cap is None]
    left = sweep.max_cost - taken
    cap = f"max_cost = {sweep.max_cost:g}"
    if left < -1e-9 * max(1.0, taken):
        what = f"{cap} is less than what single cells may spend, {taken:g} US dollars; raise it"
        return list(cells), [sweep.problem("max_cost", what)]
    if sharing and sweep.max_cost > 0 and left <= 1e-9 * taken:
        whom = counted(len(sharing), "cell")
        what = f"{cap} leaves nothing for {whom} without a cap: the others may spend {taken:g} US dollars; raise it"
        return list(cells), [sweep.problem("max_cost", what)]
    share = max(0.0, left) / len(sharing) if sharing else 0.0
    return [replace(cell, max_cost=share if caps[cell.name] is None else caps[cell.name]) for cell in cells], []
