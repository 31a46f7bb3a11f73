"""The cells of a sweep: their state, their caps, and how one runs.

A running cell writes its progress into a small file next to its ledger and replaces it whole; the parent never opens
the ledger of a run in progress.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from agent.errors import AgentError, Interrupted, LedgerBusy, ProblemsError, message_of
from agent.jobs.arguments import OptimizeArguments, launch_of
from agent.jobs.interrupts import StopSignal
from agent.jobs.launch import search_of
from agent.jobs.locations import open_history
from agent.jobs.observers import LogWatcher, Snapshot
from agent.jobs.resume import prepare_resume
from agent.jobs.session import run_work
from agent.jobs.sweep.file import Point, SweepFile
from agent.ledger.connect import is_there
from agent.ledger.files import is_held, sibling
from agent.ledger.query import Row, released_file
from agent.options.run import ResumeOptions
from agent.release.result import RunResult, search_result

State = Literal["not begun", "partial", "running", "finished"]
FINISHED = ("complete", "budget")
"""Statuses of a run with a result."""
BUSY_SECONDS = 60.0
"""Wait of a cell for the process that held its ledger before."""
WRITE_SECONDS = 0.5
"""Interval between updates of the progress file."""
PROGRESS = ".progress.json"
"""Suffix of its name."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep; `max_cost`: its cap in US dollars, given or its share."""

    name: str
    point: Point
    options: Mapping[str, Any]
    db: Path
    max_cost: float | None = None

    @property
    def order(self) -> str:
        """The order for a process to run it, as a line of JSON."""
        return json.dumps(
            {"task": self.point.task, "options": self.arguments, "db": str(self.db), "folder": os.getcwd()}
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Options of its run, JSON-ready."""
        axes = {"model": self.point.model, "seed": self.point.seed, "strategy": self.point.strategy}
        given = {**self.options, **axes, "max_cost": self.max_cost}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """What the ledger of a cell says; without `run` it has not begun.

    `own`, `best`: the sealed scores in [0, 1], by row, of the user's own prompt and of the best found. `rows`: the hash
    of the sealed rows. `usd`: what was paid; None: a price is unknown.
    """

    cell: Cell
    state: State
    run: Row | None = None
    result: RunResult | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    rows: str = ""
    usd: float | None = None
    release: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a cell ended; `error`: "" when it has a result."""

    error: str = ""
    interrupted: bool = False


def cells_of(sweep: SweepFile, folder: Path) -> list[Cell]:
    """Return the cells of a sweep with ledgers in `folder`, without shares of the cap."""
    found = []
    for point in sweep.points:
        options = sweep.options_of(point)
        axes = [point.task, point.model, point.strategy, point.seed]
        digest = hashlib.sha256(json.dumps([axes, options], sort_keys=True).encode()).hexdigest()
        model = (point.model or "").split("@")[0].rpartition("/")[2]
        words = (Path(point.task).stem, model, point.strategy or "", f"s{point.seed}")
        slugs = [re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-")[:24] for word in words]
        name = ".".join([*filter(None, slugs), digest[:8]])
        found.append(Cell(name, point, options, folder / f"{name}.db", options.get("max_cost")))
    return found


def begun_run(db: Path) -> tuple[State, Row | None]:
    """Return the state of a cell's ledger and its run. Raises LedgerError if it is damaged."""
    if not is_there(db):
        return "not begun", None
    held = is_held(db)
    with closing(open_history(db)) as history:
        runs = [run for run in history.runs() if not (run["options"] or {}).get("command")]
    if not runs:
        return ("running" if held else "not begun"), None
    run = next((run for run in runs if run["status"] in FINISHED), runs[0])
    return ("finished" if run["status"] in FINISHED else "running" if held else "partial"), run


def read_outcome(cell: Cell) -> CellOutcome:
    """Read the ledger of a cell. Raises LedgerError if it is damaged."""
    state, run = begun_run(cell.db)
    if run is None or state == "running":
        return CellOutcome(cell, state, run)
    with closing(open_history(cell.db)) as history:
        usd = total_usd(row["cost_usd"] for row in history.costs(run["id"]))
        result = search_result(run["result"], cell.db)
        if result is None:
            return CellOutcome(cell, state, run, usd=usd)
        own = history.trials(run["id"], [0])[0]["candidate_id"]
        sides = (history.outcomes(run["id"], candidate, "test") for candidate in (own, result.winner.candidate_id))
        yours, best = ({row["example_id"]: row["value"] for row in side if row["value"] is not None} for side in sides)
        rows, release = str((run["hashes"] or {}).get("test", "")), str(released_file(run, cell.db) or "")
        return CellOutcome(cell, state, run, result, yours, best, rows, usd, release)


def total_usd(costs: Iterable[float | None]) -> float | None:
    """Add costs; None if one is unknown."""
    known = list(costs)
    return None if None in known else sum(usd or 0.0 for usd in known)


def with_shares(sweep: SweepFile, cells: Sequence[Cell], begun: Mapping[str, CellOutcome]) -> list[Cell]:
    """Give every cell a cap, together at most the sweep's `max_cost`. Raises ProblemsError where none exist.

    A cell that has begun keeps its run's cap, one with its own `max_cost` keeps that, and the others share the rest
    equally: a cap is part of a run's plan, so it may not depend on the order of cells.
    """
    if sweep.max_cost is None:
        return list(cells)
    runs = {name: found.run for name, found in begun.items() if found.run}
    caps = {
        cell.name: ((run["options"] or {}) if (run := runs.get(cell.name)) else cell.options).get("max_cost")
        for cell in cells
    }
    sharing = [name for name, cap in caps.items() if cap is None]
    uncapped, taken = [name for name in sharing if name in runs], sum(cap for cap in caps.values() if cap is not None)
    left, what = sweep.max_cost - taken, ""
    if uncapped:
        what = f"max_cost: {uncapped[0]} started without a cap; leave max_cost out"
    elif left < -1e-9 * max(1.0, taken) or (sharing and sweep.max_cost > 0 and left <= 1e-9 * taken):
        what = f"max_cost = {sweep.max_cost:g}: cells have caps of {taken:g} US dollars together; raise it"
    if what:
        raise ProblemsError((sweep.problem("max_cost", what),))
    share = max(0.0, left) / len(sharing) if sharing else 0.0
    return [replace(cell, max_cost=share if caps[cell.name] is None else caps[cell.name]) for cell in cells]


# -- running one ------------------------------------------------------------------------------------------------------


def read_progress(db: Path) -> dict[str, Any]:
    """Read the progress file (calls, planned, best, usd, seconds); {} without one."""
    try:
        found = json.loads(sibling(db, PROGRESS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class CellWatcher(LogWatcher):
    """Writes the progress file at most twice a second; ignores failures to write."""

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, db: Path) -> None:
        super().__init__(None)
        self._path, self._written = sibling(db, PROGRESS), 0.0

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        account = snapshot.account
        said = {
            "calls": account.total_used.calls,
            "planned": snapshot.plan.calls,
            "best": snapshot.best[0] if snapshot.best else None,
            "usd": None if account.unpriced else account.total_paid.usd,
            "seconds": account.seconds,
        }
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            new.write_text(json.dumps(said), "utf-8")
            os.replace(new, self._path)
        except OSError:
            new.unlink(missing_ok=True)


def run_cell(task: str, options: Mapping[str, Any], db: Path, stop: StopSignal | None = None) -> None:
    """Run or continue a cell; skip a finished one. Raises AgentError."""
    watcher = CellWatcher(db)
    try:
        state, run = begun_run(db)
        if state == "finished":
            return
        if run is None:
            launch = launch_of(task, OptimizeArguments.given(options), db, watcher)
        else:
            launch = prepare_resume(run["id"], ResumeOptions(), db, watcher)
        run_work(search_of(launch), db, watcher, stop)
    finally:
        sibling(db, PROGRESS).unlink(missing_ok=True)


def carry_out(order: str, stop: StopSignal | None = None) -> Ended:
    """Run the cell of an order."""
    asked = json.loads(order)
    os.chdir(asked["folder"])
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            run_cell(asked["task"], asked["options"], Path(asked["db"]), stop)
            return Ended()
        except LedgerBusy as error:
            if time.monotonic() >= end:
                return Ended(str(error))
            time.sleep(WRITE_SECONDS)
        except (AgentError, KeyboardInterrupt, OSError) as error:
            return Ended(message_of(error), isinstance(error, Interrupted | KeyboardInterrupt))


def main() -> None:
    """Read an order from stdin, run it, and print its end as JSON.

    When stdin closes, as when the parent dies, calls in flight finish, and the run can be resumed.
    """
    stop, out = StopSignal(), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of user code must not mix with the answer
    order = sys.stdin.readline()

    def land_at_end() -> None:
        while sys.stdin.readline():
            pass
        stop.land()

    threading.Thread(target=land_at_end, daemon=True).start()
    out.write(json.dumps(asdict(carry_out(order, stop))) + "\n")
    out.flush()
    os._exit(0)  # the thread waits for a pipe
