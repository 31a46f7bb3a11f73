"""`optimize reproduce`: makes a run again from the replies in the ledger, in a copy, and compares. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.errors import AgentError, InputError
from agent.report.facts import without_result
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.cli.replay import ReplayLedger
    from agent.ledger.query import History
    from agent.run.launch import Launch


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--offline", is_flag=True, default=True, help="From stored replies only; there is no other way yet.")
@db_option
@json_option
def reproduce_command(run: str, offline: bool, db: Path, as_json: bool) -> None:
    """Make RUN (default: the latest) again from the stored replies, without a request, and report what drifted.

    Compared are every trial, the score of every row, the result and the released prompt. Ends with 0 when all are the
    same, with 1 otherwise. Refuses when the task, its rows or the program changed since.
    """
    from agent.cli.replay import Records, ReplayLedger, drift
    from agent.ledger.query import started_with
    from agent.run.launch import prepare
    from agent.run.resume import changes_since

    history = open_history(db)
    found = history.run(run)
    begun = started_with(found)
    if found["result"] is None:
        raise InputError(f"{found['id']}: {without_result(found)}, so there is nothing to compare with")
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        copy = Path(folder) / "ledger.db"
        launch = prepare(begun, copy)
        if changed := changes_since(found, launch):
            told = [f"{found['id']}: {what}" for what in changed]
            raise InputError("\n".join([*told, "put it back to reproduce it"]))
        _copy(db, copy)
        records = Records.of(history, found["id"])
        ledger = ReplayLedger(copy, records)
        try:
            result, stop = _run_again(found, launch, ledger)
        finally:
            ledger.close()
        lines = [*([f"it stopped: {stop}"] if stop else []), *drift(history, found, ledger, result)]
        lines += _release_drift(history, found, result)
    if as_json:
        counts = {"trials": len(ledger.trials), "outcomes": len(ledger.outcomes)}
        print_json({"run_id": found["id"], "same": not lines, "requests": 0, **counts, "drift": lines})
    else:
        click.echo("".join(f"{plain(line)}\n" for line in lines), nl=False)
        things = f"{len(lines)} thing{'s' * (len(lines) > 1)} drifted" if lines else "the same"
        click.echo(f"{found['id']}: {things}: {len(ledger.trials)} trials, {len(ledger.outcomes)} scores, 0 requests")
    if lines:
        raise SystemExit(1)


def _copy(db: Path, copy: Path) -> None:
    from agent.ledger.connect import reader

    with contextlib.closing(reader(db)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
        old.backup(new)


def _run_again(found: dict[str, Any], launch: Launch, ledger: ReplayLedger) -> tuple[dict[str, Any] | None, str]:
    """The result, or None and what stopped it."""
    from agent.cli.replay import Offline
    from agent.run.optimize import Resumed, Run
    from agent.search.plan import Plan

    models = {id(lm): Offline(lm) for lm in launch.lms()}
    author = None if launch.author is None else models[id(launch.author)]
    plan = Plan.restored(found["plan"])
    resumed = Resumed(found["id"], plan)
    settings = replace(launch.settings, use_cache=True)  # the copy itself knows which replies the run took
    judges = [models[id(lm)] for lm in launch.judges]
    target = models[id(launch.target)]
    again = Run(launch.task, target, author, ledger, settings, resumed=resumed, judges=judges)

    async def execute() -> dict[str, Any]:
        try:
            return (await again.execute()).to_json()
        finally:
            for model in models.values():
                await model.close()

    try:
        return asyncio.run(execute()), ""
    except AgentError as error:
        return None, str(error)


def _release_drift(history: History, run: dict[str, Any], now: dict[str, Any] | None) -> Iterator[str]:
    """Whether the prompt that was released would be released again. One whose file is gone is not compared.

    Where an override put the winner there since, the run's own record counts.
    """
    from agent.ledger.query import released_file
    from agent.ledger.trail import facts_of
    from agent.release.runtime import load_prompt

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
