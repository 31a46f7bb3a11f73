"""A sweep that was checked, to its result: cells run as child processes of this machine, or as tasks of a Ray cluster.

On a cluster this process asks and waits. A node or worker that dies takes its cell with it; Ray starts the cell again
elsewhere, where it continues from its ledger. So all nodes must see the folder of the sweep, with locks that hold
between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agent.cluster import RETRIES, join_cluster, leave_cluster
from agent.errors import InputError, Interrupted, error_lines
from agent.jobs.interrupts import Stop, catch_signals, run_blocking
from agent.jobs.observers import Watcher
from agent.jobs.session import fetch_weights
from agent.jobs.sweep.cells import Cell, Ended, carry_out, order_of, read_progress
from agent.jobs.sweep.figures import CellOutcome, read_outcome, summary
from agent.jobs.sweep.prepare import PreparedSweep
from agent.report.sweep_page import write_page
from agent.results.base import Result

LOOK_SECONDS = 0.1
"""Between two looks at whether cells have ended."""
SHOW_SECONDS = 0.5
"""Between two looks at the progress of those that run."""
LEFT = 3
"""Presses that end the sweep without waiting for its cells; what they bought is in their ledgers."""
_CHILD = "import promptassay; from agent.jobs.sweep.cells import main; main()"
_NOT_STARTED = Ended("was not started", True)


class SweepResult(Result):
    """What a sweep found.

    Args:
        name: of the sweep.
        folder: with a ledger for each cell.
        cells: each cell: its values, state, run, ledger, scores (0 to 1), lift, decision, cost, and why it has no
            result (`error`).
        groups: each task, model and strategy over its seeds: score with interval, lift (`p_holm`: corrected over all
            groups), cost, the best prompt's instruction.
        tasks: the best group of each task, which it is shown to beat, and all comparisons.
        cost_usd: US dollars of all cells; None where a price is not known.
        report: the page that was written; None: none was.
        report_error: why none could be written.
    """

    kind: Literal["sweep"] = "sweep"
    name: str = Field(serialization_alias="sweep")
    folder: Path
    cells: tuple[Mapping[str, Any], ...]
    groups: tuple[Mapping[str, Any], ...]
    tasks: tuple[Mapping[str, Any], ...]
    cost_usd: float | None
    report: Path | None = None
    report_error: str = ""

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The names of the cells without a result."""
        return tuple(cell["cell"] for cell in self.cells if cell["state"] != "finished")


# -- where cells run --------------------------------------------------------------------------------------------------


class Processes:
    """Runs cells as child processes, at most `jobs` at once."""

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[subprocess.Popen[str]] = set()
        self._changing = threading.Lock()
        self._stopped = False

    def submit(self, cell: Cell) -> Future[Ended]:
        return self._pool.submit(self._run, order_of(cell))

    def end_of(self, future: Future[Ended]) -> Ended:
        try:
            return future.result()
        except CancelledError:
            return _NOT_STARTED

    def interrupt(self) -> None:
        """At first let what is in flight land, the second time leave the cells at once; start none any more."""
        with self._changing:
            self._stopped = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in self._running:
                process.send_signal(signal.SIGINT)

    def close(self) -> None:
        with self._changing:
            self._stopped = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, order: str) -> Ended:
        end = _NOT_STARTED
        for _ in range(1 + RETRIES):
            with tempfile.TemporaryFile() as errors:
                with self._changing:
                    if self._stopped:
                        return end
                    process = subprocess.Popen(
                        [sys.executable, "-X", "utf8", "-c", _CHILD],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        encoding="utf-8",
                        start_new_session=True,  # a Ctrl-C of the terminal comes to us alone
                    )
                    self._running.add(process)
                with process:
                    assert process.stdin is not None
                    assert process.stdout is not None
                    with contextlib.suppress(BrokenPipeError):  # it has ended
                        process.stdin.write(f"{order}\n")
                        process.stdin.flush()
                    said = process.stdout.read()
                with self._changing:
                    self._running.remove(process)
                errors.seek(0)
                last = errors.read()[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
            with contextlib.suppress(ValueError):
                return Ended(**json.loads(said))
            end = Ended(
                f"its process ended with {process.returncode}{f': {last}' if last else ''}",
                self._stopped,
            )
            if process.returncode >= 0:
                break
        return end


class RayTasks:
    """Runs each cell as a task of the cluster at an address, such as "auto" or "local".

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        self._ray = join_cluster(address, "--ray")
        self._task = self._ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES)(carry_out)
        self._running: dict[Future[Ended], Any] = {}
        self._presses = 0

    def submit(self, cell: Cell) -> Future[Ended]:
        reference = self._task.options(name=cell.name).remote(order_of(cell))
        future: Future[Ended] = reference.future()
        self._running[future] = reference
        return future

    def end_of(self, future: Future[Ended]) -> Ended:
        del self._running[future]
        try:
            return future.result()
        except self._ray.exceptions.TaskCancelledError:
            return _NOT_STARTED
        except self._ray.exceptions.RayError as error:
            return Ended(f"its task failed: {error_lines(error)[0]}", self._presses > 0)

    def interrupt(self) -> None:
        self._presses += 1
        for reference in self._running.values():
            self._ray.cancel(reference, force=self._presses > 1)

    def close(self) -> None:
        leave_cluster(self._ray)


# -- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CellLine:
    """The progress of a cell, for a table: `state` in words, scores in [0, 1], US dollars (None: unknown)."""

    cell: Cell
    state: str
    calls: int | None = None
    planned: int | None = None
    best: float | None = None
    score: float | None = None
    usd: float | None = None


Show = Callable[[Sequence[CellLine]], None]


def run_sweep(
    prepared: PreparedSweep, show: Show = lambda lines: None, ray: str | None = None, jobs: int | None = None
) -> SweepResult:
    """Run the cells that have no result yet, and compare all of them.

    The first Ctrl-C (or SIGTERM) lets the calls in flight land, the second leaves at once.

    Args:
        show: is given the lines of all cells, again and again.
        ray: the address of a Ray cluster, "local" for one of this machine. None: processes of this machine.
        jobs: how many of them, at least 1. None: 1 where a model is embedded, else 4.

    Raises:
        InputError: there is no such cluster; nothing was called.
        Interrupted: the user stopped it; the same sweep continues where it was.
    """
    prepared.folder.mkdir(parents=True, exist_ok=True)
    done = {cell.name: cell for cell in prepared.cells if prepared.progress[cell.name].state == "finished"}
    table = _Table(prepared, {name: read_outcome(cell) for name, cell in done.items()})
    if len(done) < len(prepared.cells) and run_blocking(
        lambda stop: asyncio.run(_run(prepared, table, show, ray, jobs, stop or Stop()))
    ):
        raise Interrupted("the sweep was interrupted; the same command goes on with it, and nothing is bought twice")
    outcomes = [table.outcomes[cell.name] for cell in prepared.cells]
    cells = tuple(outcome.as_dict(table.errors.get(outcome.cell.name, "")) for outcome in outcomes)
    result = SweepResult(name=prepared.file.name, folder=prepared.folder, cells=cells, **summary(outcomes))
    try:
        return result.model_copy(update={"report": write_page(result.to_json())})
    except InputError as error:  # what was paid for is shown all the same
        return result.model_copy(update={"report_error": str(error)})


async def _run(
    prepared: PreparedSweep, table: _Table, show: Show, ray: str | None, jobs: int | None, stop: Stop
) -> int:
    """Run the cells without a result; return how often the user asked to stop."""
    presses, due, waiting = 0, 0.0, dict[Future[Ended], Cell]()
    executor: Processes | RayTasks
    if ray is not None:
        executor = RayTasks(ray, prepared.file.resources.num_cpus, prepared.file.resources.num_gpus)
    else:
        fetch_weights(prepared.models, Watcher().download)
        executor = Processes(jobs or prepared.jobs)

    def press() -> None:
        nonlocal presses
        presses += 1
        executor.interrupt()

    with contextlib.closing(executor), catch_signals((signal.SIGINT, signal.SIGTERM), stop):
        stop.attach(press, press)
        for cell in prepared.open_cells():
            waiting[executor.submit(cell)] = cell
        while waiting and presses < LEFT:
            await asyncio.sleep(LOOK_SECONDS)
            done = [future for future in waiting if future.done()]
            for future in done:
                cell, end = waiting.pop(future), executor.end_of(future)
                if end.error and not end.interrupted:
                    table.errors[cell.name] = end.error
                table.outcomes[cell.name] = read_outcome(cell)
            if done or time.monotonic() >= due:
                show(table.lines())
                due = time.monotonic() + SHOW_SECONDS
    return presses


@dataclass(slots=True)
class _Table:
    """What is known of the cells while they run."""

    prepared: PreparedSweep
    outcomes: dict[str, CellOutcome]
    errors: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[CellLine]:
        return [self._line(cell) for cell in self.prepared.cells]

    def _line(self, cell: Cell) -> CellLine:
        if outcome := self.outcomes.get(cell.name):
            result, state = outcome.result, outcome.progress.state
            if result is None:
                why = self.errors.get(cell.name)
                return CellLine(cell, f"{state}: {why}" if why else state, usd=outcome.usd)
            calls = sum(result.calls.values())
            return CellLine(cell, state, calls, calls, result.winner.dev, result.winner.test, outcome.usd)
        if now := read_progress(cell.db):
            return CellLine(cell, "running", **{name: now.get(name) for name in ("calls", "planned", "best", "usd")})
        before = self.prepared.progress[cell.name].state
        return CellLine(cell, "waits" if before == "not begun" else f"waits, {before}")
