"""`optimize audit check`: did a run measure what it says, on rows that no prompt had seen, with books that add up?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, print_json
from agent.cli.tables import print_table
from agent.errors import AgentError
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.ledger.checks import Check
    from agent.ledger.query import History
    from agent.types import Task

SHOWN = 5  # findings of one check that the table has


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@db_option
@json_option
def check_command(run: str, db: Path, as_json: bool) -> None:
    """Check RUN (default: the latest) for contamination, and whether its books add up.

    Contamination: demos or instructions that hold dev or test rows, a test that was opened twice. Books: scores without
    a reply, means, charges and caps that do not follow from the calls. Ends with 1 when anything does not hold. What
    needs the rows is left out (-) when the task is gone or its rows changed since.
    """
    from agent.ledger.checks import consistency_checks

    history = open_history(db)
    found = history.run(run)
    done = [*_contamination(history, found), *consistency_checks(history, found)]
    holds = all(check.ok is not False for check in done)
    if as_json:
        listed = [{"check": check.name, "ok": check.ok, "found": list(check.found)} for check in done]
        print_json({"run_id": found["id"], "holds": holds, "checks": listed})
    else:
        words = {True: "ok", False: "PROBLEM", None: "-"}
        print_table(
            f"checks of {found['id']}",
            ("check", "ok", "found"),
            [(check.name, words[check.ok], _lines(check.found)) for check in done],
        )
    if not holds:
        raise SystemExit(1)


def _lines(found: tuple[str, ...]) -> str:
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])


def _contamination(history: History, run: dict[str, Any]) -> list[Check]:
    from agent.ledger.checks import HELD_OUT, Check, copied_answers, demo_ids, demo_texts

    tried = history.select("SELECT candidate_id FROM proposals WHERE run_id = ? AND rejected = ''", run["id"])
    candidates = [history.candidate(row["candidate_id"]) for row in tried]
    rows = history.select(
        "SELECT DISTINCT example_id, split FROM outcomes WHERE run_id = ? AND split IN ('dev', 'test')", run["id"]
    )
    held_out = {row["example_id"]: row["split"] for row in rows}
    task, why = _task(run)
    if task is None:
        names = ("no demo reads like a dev or test row", "no instruction holds words of a dev or test row")
        return [demo_ids(candidates, held_out), *(Check(name, None, (why,)) for name in names)]
    held_out |= {example.id: split for split in HELD_OUT for example in getattr(task, split)}
    return [demo_ids(candidates, held_out), demo_texts(candidates, task), copied_answers(candidates, task)]


def _task(run: dict[str, Any]) -> tuple[Task | None, str]:
    """The run's task with the rows that it had, or why these are not at hand."""
    from agent.ledger.query import started_with
    from agent.run.launch import source_of, task_of

    if command := (run["options"] or {}).get("command"):
        return None, f"a run of `optimize {command}`, which made no prompts"
    try:
        task = task_of(started_with(run))
    except AgentError as error:
        return None, f"the task is not at hand: {str(error).splitlines()[0]}"
    parts = [name for name in ("train", "dev", "test") if task.hashes.get(name) != run["hashes"].get(name)]
    changed = dict.fromkeys(source_of(name, run["options"]) for name in parts)
    return (None, f"the rows changed since: {', '.join(changed)}") if changed else (task, "")
