"""`optimize sweep`: runs every combination of a file and compares the results."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agent.errors import InputError, Interrupted, Problem
from agent.jobs.interrupts import StopSignal, catch_signals, run_blocking
from agent.jobs.models import fetch_weights
from agent.jobs.observers import CellLine, Watcher
from agent.jobs.registry import Printed, job
from agent.jobs.sweep.cells import Cell, CellOutcome, Ended, read_outcome, read_progress, total_usd
from agent.jobs.sweep.executors import CellExecutor, Processes, RayTasks
from agent.jobs.sweep.figures import described, summary
from agent.jobs.sweep.prepare import PreparedSweep, prepare_sweep
from agent.options.kinds import File
from agent.options.option import JobOptions, option
from agent.report.blocks import Block, Column, table, text
from agent.report.sweep_page import best_of_task, groups_table, model_names, write_page
from agent.report.wording import dollars
from agent.results.base import Result

HOSTED_JOBS = 4
"""Parallel cells when no model is embedded."""
LOOK_SECONDS = 0.1
"""Interval between checks for finished cells."""
SHOW_SECONDS = 0.5
"""Interval between updates of the display."""
LEFT = 3
"""Interrupts that end the sweep without waiting for its cells; their ledgers keep the replies."""
PLAN = (
    Column("cell", floor=16),
    Column("state"),
    Column("calls"),
    Column("tokens"),
    Column("cap, $"),
    Column("$ at most"),
)


class SweepOptions(JobOptions):
    """Where the cells of a sweep run."""

    ray: str | None = option(None, "Run the cells on a Ray cluster: its address, auto, or local.", metavar="ADDRESS")
    jobs: int | None = option(
        None,
        "Parallel cells on this machine. Default: 1 with an embedded model, else 4. Not with {ray}.",
        short="-J",
        metavar="N",
        ge=1,
    )
    folder: File = option(None, "For ledgers and report. Default: runs/sweep-NAME.", metavar="PATH")
    dry_run: bool = option(False, "Print each cell with its state and priced plan; call nothing.")

    def conflicts(self) -> list[Problem]:
        if self.ray is not None and self.jobs is not None:
            what = "applies to this machine; with {ray}, use [resources] of the file"
            return [Problem("jobs", what), *super().conflicts()]
        return super().conflicts()


class SweepResult(Result):
    """Results of a sweep.

    Args:
        folder: with a ledger for each cell.
        cells: each cell: its values, state, run, ledger, scores (0 to 1), lift, decision, cost, and why it has no
            result (`error`).
        groups: each task, model and strategy over its seeds: score with interval, lift (`p_holm`: corrected over all
            groups), cost, how many cells promote, the best prompt's instruction.
        tasks: the best group of each task, the groups it significantly beats, and all comparisons.
        cost_usd: US dollars of all cells; None: a price is unknown.
        report: the page; None: not written, for the reason `report_error`.
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
        """Names of the cells without a result."""
        return tuple(cell["cell"] for cell in self.cells if cell["state"] != "finished")

    def blocks(self) -> Iterator[Block]:
        names = model_names(self.groups)
        yield replace(groups_table(self.groups, names), title=f"sweep {self.name}, sealed test", tabbed=True)
        yield text(*(best_of_task(task, names) for task in self.tasks))
        page = [str(self.report)] if self.report else []
        yield text("; ".join([f"{len(self.cells)} cells, {dollars(self.cost_usd)}", *page]))


@job("sweep")
def sweep(file: Path, options: SweepOptions, *, observer: Watcher) -> Printed[SweepResult] | SweepPlan:
    """Run every combination of tasks, models, strategies and seeds that a sweep.toml lists.

    FILE is the sweep.toml. Each combination is a cell: a run with its ledger in runs/sweep-NAME/. All cells are checked
    before anything is spent. Run the same command again to continue: cells with a result are skipped, the others
    resume, and nothing is bought twice. Ctrl-C finishes the calls in flight.
    At the end: sealed scores by task, model and strategy, and the best of each task, corrected by Holm.
    Exit codes: 0 all cells have a result, 1 some have none, 2 usage, 3 budget too small, 130 interrupted.

    Returns:
        Scores, gains and costs of all cells; `unfinished` names those without a result.

    Raises:
        InputError: all problems of the file at once; nothing was called.
        Interrupted: Ctrl-C.

    Example:
        >>> result = pa.sweep("sweep.toml", jobs=2)  # doctest: +SKIP
        >>> [(group["model"], group["score"]) for group in result.groups]  # doctest: +SKIP
    """
    prepared = prepare_sweep(Path(file), options.folder, check_keys=options.ray is None and not options.dry_run)
    if options.dry_run:
        return _plan(prepared)
    result = run_sweep(prepared, observer, options.ray, options.jobs)
    notes = [f"no page: {result.report_error}; run the same command to write it"] if result.report_error else []
    wrong = [f"{cell['cell']}: {cell['error'] or cell['state']}" for cell in result.cells if cell["error"]]
    if left := len(result.unfinished):
        wrong.append(f"{left} of {len(result.cells)} cells have no result; run the same command to retry")
    return Printed(result, 1 if left else 0, notes=notes, errors=wrong if left else ())


class PlannedCell(Result):
    """A cell with its state and maximum usage; None: unknown, or no cap."""

    cell: str
    state: str
    run_id: str | None
    ledger: str
    max_cost: float | None
    calls: int | None
    tokens_at_most: int | None
    cost_usd_at_most: float | None


class SweepPlan(Result):
    """What a sweep would run."""

    sweep: str
    folder: str
    cells: tuple[PlannedCell, ...]
    cost_usd_at_most: float | None

    def blocks(self) -> Iterator[Block]:
        rows = [(c.cell, c.state, c.calls, c.tokens_at_most, c.max_cost, c.cost_usd_at_most) for c in self.cells]
        yield table(self.sweep, PLAN, rows, tabbed=True)
        states = [cell.state for cell in self.cells]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        cost = f"those not begun cost at most {dollars(self.cost_usd_at_most, digits=2)}; nothing was called"
        yield text(f"{len(states)} cells: {counted}; {cost}")


def _plan(prepared: PreparedSweep) -> SweepPlan:
    found = []
    for cell in prepared.cells:
        plan, before = prepared.estimates.get(cell.name), prepared.before[cell.name]
        found.append(
            PlannedCell(
                cell=cell.name,
                state=before.state,
                run_id=before.run["id"] if before.run else None,
                ledger=str(cell.db),
                max_cost=cell.max_cost,
                calls=None if plan is None else sum(role.calls for role in plan.roles.values()),
                tokens_at_most=None if plan is None else plan.tokens_at_most,
                cost_usd_at_most=None if plan is None else plan.cost_usd_at_most,
            )
        )
    most = total_usd(plan.cost_usd_at_most for plan in prepared.estimates.values())
    return SweepPlan(sweep=prepared.file.name, folder=str(prepared.folder), cells=tuple(found), cost_usd_at_most=most)


def run_sweep(
    prepared: PreparedSweep, watcher: Watcher, ray: str | None = None, jobs: int | None = None
) -> SweepResult:
    """Run the cells without a result, and compare all; `ray` and `jobs` as of `SweepOptions`.

    The first Ctrl-C (or SIGTERM) finishes the calls in flight, the second stops at once; both raise Interrupted.
    Raises InputError where no such cluster exists.
    """
    prepared.folder.mkdir(parents=True, exist_ok=True)
    outcomes = {name: found for name, found in prepared.before.items() if found.state == "finished"}
    errors: dict[str, str] = {}

    def show() -> None:
        watcher.on_cells([_line(prepared, cell, outcomes.get(cell.name), errors) for cell in prepared.cells])

    def executor_of_cells() -> CellExecutor:
        if ray is not None:
            return RayTasks(ray, prepared.file.resources.num_cpus, prepared.file.resources.num_gpus)
        fetch_weights(prepared.models, Watcher().download)
        has_embedded = any(model.startswith("local/") for model in prepared.models)
        return Processes(jobs or (1 if has_embedded else HOSTED_JOBS))

    async def run(stop: StopSignal) -> int:
        """Run the cells without a result; return how often the user asked to stop."""
        presses, due, waiting = 0, 0.0, dict[Future[Ended], Cell]()
        executor = executor_of_cells()

        def press() -> None:
            nonlocal presses
            presses += 1
            executor.interrupt()

        with contextlib.closing(executor), catch_signals((signal.SIGINT, signal.SIGTERM), stop):
            stop.attach(press, press)
            for cell in prepared.cells:
                if cell.name not in outcomes:
                    waiting[executor.submit(cell)] = cell
            while waiting and presses < LEFT:
                await asyncio.sleep(LOOK_SECONDS)
                done = [future for future in waiting if future.done()]
                for future in done:
                    cell, end = waiting.pop(future), executor.end_of(future)
                    if end.error and not end.interrupted:
                        errors[cell.name] = end.error
                    outcomes[cell.name] = read_outcome(cell)
                if done or time.monotonic() >= due:
                    show()
                    due = time.monotonic() + SHOW_SECONDS
        return presses

    is_open = any(cell.name not in outcomes for cell in prepared.cells)
    if is_open and run_blocking(lambda stop: asyncio.run(run(stop or StopSignal()))):
        raise Interrupted("the sweep was interrupted; run the same command to continue it")
    found = [replace(outcomes[cell.name], cell=cell) for cell in prepared.cells]
    cells = tuple(described(outcome, errors.get(outcome.cell.name, "")) for outcome in found)
    result = SweepResult(name=prepared.file.name, folder=prepared.folder, cells=cells, **summary(found))
    try:
        return result.model_copy(update={"report": write_page(result.to_json())})
    except InputError as error:  # paid results are shown anyway
        return result.model_copy(update={"report_error": str(error)})


def _line(prepared: PreparedSweep, cell: Cell, outcome: CellOutcome | None, errors: Mapping[str, str]) -> CellLine:
    if outcome is not None and (result := outcome.result) is not None:
        calls = sum(result.calls.values())
        scores = (result.winner.dev, result.winner.test)
        return CellLine(cell.name, outcome.state, calls, calls, *scores, outcome.usd)
    if outcome is not None:
        why = errors.get(cell.name)
        return CellLine(cell.name, f"{outcome.state}: {why}" if why else outcome.state, usd=outcome.usd)
    if now := read_progress(cell.db):
        return CellLine(cell.name, "running", **{name: now.get(name) for name in ("calls", "planned", "best", "usd")})
    before = prepared.before[cell.name].state
    return CellLine(cell.name, "waits" if before == "not begun" else f"waits, {before}")
