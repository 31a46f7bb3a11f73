"""A sweep that was checked, to its result: cells run where an executor has room."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError, Interrupted
from agent.report.sweep_page import write_page
from agent.run.observers import Watcher
from agent.run.session import fetch_weights
from agent.run.sweep.cell import read_progress
from agent.run.sweep.cells import Cell
from agent.run.sweep.executors import Executor, Processes, RayTasks
from agent.run.sweep.figures import CellOutcome, read_outcome, summary
from agent.run.sweep.prepare import PreparedSweep

LOOK_SECONDS = 0.1
"""Between two looks at whether cells have ended."""
SHOW_SECONDS = 0.5
"""Between two looks at how far those that run are."""
LEFT = 3
"""So many presses end the sweep without a word of its cells; what they bought is in their ledgers."""


@dataclass(frozen=True, slots=True)
class CellLine:
    """How far a cell is, for a table: `state` in words, scores in [0, 1], US dollars (None: unknown or none yet)."""

    cell: Cell
    state: str
    calls: int | None = None
    planned: int | None = None
    best: float | None = None
    score: float | None = None
    usd: float | None = None


Show = Callable[[Sequence[CellLine]], None]


@dataclass(slots=True)
class Presses:
    """How often the user asked to stop."""

    count: int = 0

    def press(self, *_: object) -> None:
        self.count += 1

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """While it lasts Ctrl-C and SIGTERM are counted; outside the main thread nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.press) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep came to; `to_json` has all of it.

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

    name: str
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

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize sweep --json`."""
        return {
            "kind": "sweep",
            "sweep": self.name,
            "folder": str(self.folder),
            "cells": [dict(cell) for cell in self.cells],
            "groups": [dict(group) for group in self.groups],
            "tasks": [dict(task) for task in self.tasks],
            "cost_usd": self.cost_usd,
            "report": None if self.report is None else str(self.report),
            "report_error": self.report_error,
        }


# -- the run ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Board:
    """What is known of the cells while they run."""

    prepared: PreparedSweep
    outcomes: dict[str, CellOutcome] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def read(self, cell: Cell) -> None:
        self.outcomes[cell.name] = read_outcome(cell)

    def lines(self) -> list[CellLine]:
        return [self._line(cell) for cell in self.prepared.cells]

    def _line(self, cell: Cell) -> CellLine:
        outcome = self.outcomes.get(cell.name)
        if outcome is not None:
            result, state = outcome.result, outcome.progress.state
            if result is None and self.errors.get(cell.name):
                state_words = f"{state}: {self.errors[cell.name]}"
                return CellLine(cell, state_words, usd=outcome.usd)
            if result is None:
                return CellLine(cell, state, usd=outcome.usd)
            calls = sum(result.calls.values())
            return CellLine(cell, state, calls, calls, result.winner.dev, result.winner.test, outcome.usd)
        if now := read_progress(cell.db):
            return CellLine(
                cell, "running", now.get("calls"), now.get("planned"), now.get("best"), None, now.get("usd")
            )
        before = self.prepared.progress[cell.name].state
        return CellLine(cell, "waits" if before == "not begun" else f"waits, {before}")


def run_sweep(
    prepared: PreparedSweep, show: Show = lambda lines: None, ray: str | None = None, jobs: int | None = None
) -> SweepResult:
    """Runs the cells that have no result yet, and says what all of them came to.

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
    board, presses = _Board(prepared), Presses()
    todo = {cell.name: cell for cell in prepared.open_cells()}
    for cell in prepared.cells:
        if cell.name not in todo:
            board.read(cell)
    if todo:
        with presses.caught(), contextlib.closing(_executor(prepared, ray, jobs)) as executor:
            _run(todo, executor, board, presses, show)
    if presses.count:
        raise Interrupted("the sweep was interrupted; the same command goes on with it, and nothing is bought twice")
    outcomes = [board.outcomes[cell.name] for cell in prepared.cells]
    cells = tuple(outcome.as_dict(board.errors.get(outcome.cell.name, "")) for outcome in outcomes)
    found = summary(outcomes)
    groups, tasks = tuple(found["groups"]), tuple(found["tasks"])
    result = SweepResult(prepared.file.name, prepared.folder, cells, groups, tasks, found["cost_usd"])
    try:
        return replace(result, report=write_page(result.to_json()))
    except InputError as error:  # what was paid for is shown all the same
        return replace(result, report_error=str(error))


def _executor(prepared: PreparedSweep, ray: str | None, jobs: int | None) -> Executor:
    if ray is not None:
        return RayTasks(ray, prepared.file.num_cpus, prepared.file.num_gpus)
    fetch_weights(prepared.models, Watcher().download)
    return Processes(jobs or prepared.jobs)


def _run(todo: Mapping[str, Cell], executor: Executor, board: _Board, presses: Presses, show: Show) -> None:
    waiting, heard, due = dict(todo), 0, 0.0
    for cell in todo.values():
        if not presses.count:
            executor.submit(cell)
    while waiting and presses.count < LEFT:
        if presses.count > heard:
            heard += 1
            executor.interrupt()
        ended = executor.ended()
        for end in ended:
            cell = waiting.pop(end.name)
            if end.error and not end.interrupted:
                board.errors[end.name] = end.error
            board.read(cell)
        if ended or time.monotonic() >= due:
            show(board.lines())
            due = time.monotonic() + SHOW_SECONDS
        if waiting:
            time.sleep(LOOK_SECONDS)
