"""Makes a run again from the replies in the ledger, in a copy of it, and compares. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import AgentError, InputError
from agent.ledger.connect import reader
from agent.ledger.query import History, Row, released_file, started_with
from agent.ledger.trail import facts_of
from agent.release.runtime import load_prompt
from agent.report.facts import without_result
from agent.run.launch import Launch, prepare
from agent.run.locations import open_history
from agent.run.optimize import Resumed, Run
from agent.run.replay import Offline, Records, ReplayLedger, drift
from agent.run.resume import changes_since
from agent.search.plan import Plan


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it: `trials` and `scores` that were made again, and `drift`, what came out differently, a line
    each."""

    run_id: str
    trials: int
    scores: int
    drift: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize reproduce --json`."""
        return {
            "run_id": self.run_id,
            "same": not self.drift,
            "requests": 0,
            "trials": self.trials,
            "outcomes": self.scores,
            "drift": list(self.drift),
        }


def reproduce(run: str, db: Path) -> Reproduction:
    """Makes a run again and compares every trial, the score of every row, the result and the released prompt.

    Args:
        run: its id, or the unique start of it. "": the latest.
        db: the ledger; it is read and not written.

    Raises:
        InputError: the run has no result, or the task, its rows or the program changed since.
    """
    history = open_history(db)
    found = history.run(run)
    begun = started_with(found)
    if found["result"] is None:
        raise InputError(f"{found['id']}: {without_result(found)}, so there is nothing to compare with")
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        copy = Path(folder) / "ledger.db"
        launch = prepare(begun, copy)
        if changed := changes_since(found, launch):
            lines = [f"{found['id']}: {what}" for what in changed]
            raise InputError("\n".join([*lines, "put it back to reproduce it"]))
        _copy(db, copy)
        ledger = ReplayLedger(copy, Records.of(history, found["id"]))
        try:
            result, stop = _run_again(found, launch, ledger)
        finally:
            ledger.close()
        lines = [*([f"it stopped: {stop}"] if stop else []), *drift(history, found, ledger, result)]
        lines += _release_drift(history, found, result)
    return Reproduction(found["id"], len(ledger.trials), len(ledger.outcomes), tuple(lines))


def _copy(db: Path, copy: Path) -> None:
    with contextlib.closing(reader(db)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
        old.backup(new)


def _run_again(found: Row, launch: Launch, ledger: ReplayLedger) -> tuple[Row | None, str]:
    """The result, or None and what stopped it."""
    models = {id(lm): Offline(lm) for lm in launch.lms()}
    author = None if launch.author is None else models[id(launch.author)]
    plan = Plan.restored(found["plan"])
    resumed = Resumed(found["id"], plan)
    settings = replace(launch.settings, use_cache=True)  # the copy itself knows which replies the run took
    judges = [models[id(lm)] for lm in launch.judges]
    target = models[id(launch.target)]
    again = Run(launch.task, target, author, ledger, settings, resumed=resumed, judges=judges)

    async def execute() -> Row:
        try:
            return (await again.execute()).to_json()
        finally:
            for model in models.values():
                await model.close()

    try:
        return asyncio.run(execute()), ""
    except AgentError as error:
        return None, str(error)


def _release_drift(history: History, run: Row, now: Row | None) -> Iterator[str]:
    """Whether the prompt that was released would be released again. One whose file is gone is not compared.

    Where an override put the winner there since, the run's own record counts.
    """
    released = released_file(run, history.path)
    if now is None or released is None:
        return
    try:
        before = load_prompt(released).version
    except AgentError:
        return
    if before in {event["body"]["version"] for event in facts_of(history, run["id"], "promoted")}:
        before = facts_of(history, run["id"], "released")[-1]["body"]["version"]
    after = load_prompt(now["release"]).version
    if after != before:
        yield f"the released prompt is {after}, it was {before}"
