"""An interrupted, killed or stopped run: which one, whether it can continue, and what changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.jobs.launch import Launch, prepare
from agent.jobs.locations import open_history
from agent.jobs.tasks import source_of
from agent.ledger.provenance import tool_version
from agent.ledger.query import started_with
from agent.observer import NO_OBSERVER, Observer
from agent.options.run import ResumeOptions
from agent.safe_text import counted
from agent.search.plan import Plan
from agent.types import Task

UNFINISHED = ("running", "interrupted", "killed", "failed")


def prepare_resume(run: str, changes: ResumeOptions, db: Path, observer: Observer = NO_OBSERVER) -> Launch:
    """Load a run as it was started, and check that it can continue. "": the latest unfinished one."""
    with closing(open_history(db)) as history:
        row = history.run(run) if run else unfinished(history.runs(), db)
        costs = history.costs(row["id"])
    paid = [cost for cost in costs if cost["state"] != "cached"]
    begun, fork, model = started_with(row), changes.fork, changes.model
    if row["status"] not in UNFINISHED and not fork:
        raise InputError(
            f"{row['id']}: this run is {row['status']}; use --fork to start a new one that reuses its calls"
        )
    if model and model != row["model"] and not fork:
        raise InputError(f"{row['id']}: another model makes another run; add --fork")
    given = {name: value for name, value in changes if name != "fork" and value is not None}
    if not fork:
        _require_above(given, paid, row["id"])
    launch = prepare(begun.model_copy(update=given), db, observer, is_new=fork)
    if fork:
        return replace(launch, parent=row["id"], note=f"forking {row['id']} ({row['status']})")
    require_unchanged(row, launch, "put it back, or start a new run with --fork")
    plan = Plan.restored(row["plan"]) if row["plan"] else launch.plan()
    short = _short_of_plan(plan, launch.calls_each, costs, launch.options.max_calls)
    reused = sum(cost["calls"] for cost in costs if cost["state"] == "ok")
    start = f"resuming {row['id']} ({row['status']}), with the replies of its {counted(reused, 'call')}"
    note = f"{start}\n{short}".rstrip()
    return replace(launch, run_id=row["id"], made_with=plan, note=note)


def _require_above(given: Mapping[str, Any], paid: Sequence[Mapping[str, Any]], run_id: str) -> None:
    spent = {
        "max_calls": sum(row["calls"] for row in paid),
        "max_tokens": sum(row["prompt_tokens"] + row["completion_tokens"] for row in paid),
        "max_cost": sum(row["cost_usd"] or 0.0 for row in paid),
    }
    below = [
        f"{run_id}: --{name.replace('_', '-')} {given[name]:g} is below what was paid, {used:.6g}; give more, or leave "
        "it out"
        for name, used in spent.items()
        if name in given and given[name] < used
    ]
    if below:
        raise InputError("\n".join(below))


def _short_of_plan(plan: Plan, per_row: int, costs: Sequence[Mapping[str, Any]], most: int | None) -> str:
    paid = sum(row["calls"] for row in costs if row["state"] != "cached")
    used = sum(row["calls"] for row in costs if row["state"] in ("ok", "cached"))
    missing = plan.calls * per_row - used
    if most is None or most - paid >= missing - plan.slack * per_row:
        return ""
    lost = sum(row["calls"] for row in costs if row["state"] not in ("ok", "cached"))
    why = f"{lost} of the {paid} calls so far brought nothing"
    if most < plan.calls * per_row:
        why = f"{most} calls are fewer than the {plan.calls * per_row} that it was planned with"
    return f"{why}, so the search will end earlier than planned; --max-calls {paid + missing} pays the whole of it"


def unfinished(runs: Sequence[dict[str, Any]], db: Path) -> dict[str, Any]:
    """Return the latest unfinished search. Raises InputError without one."""
    for run in runs:
        if run["status"] in UNFINISHED and not (run["options"] or {}).get("command"):
            return run
    raise InputError(
        f"{db}: no run is unfinished; `optimize runs` lists them, `optimize resume RUN --fork` starts a new one"
    )


def changes_since(run: dict[str, Any], launch: Launch, proposes: bool = True) -> list[str]:
    """Return what changed since the run began, a line each. `proposes`: a changed proposer counts, too."""
    changed = task_changes(run, launch.task)
    if run["model"] != launch.model.name:
        changed.append(f"the model is {launch.model.name}, it was {run['model']}")
    if started_with(run).model_digest != launch.asked.model_digest:
        changed.append(f"the file behind {launch.model.name} changed")
    proposer = launch.proposer.name if launch.proposer else ""
    if proposes and run["proposer"] != proposer:
        changed.append(f"the proposer is {proposer or 'none'}, it was {run['proposer'] or 'none'}")
    if run["tool"] != tool_version():
        changed.append(f"this is version {tool_version()}, the run was made with {run['tool']}")
    return changed


def require_unchanged(run: dict[str, Any], launch: Launch, fix: str) -> None:
    """Raise InputError with everything that changed since the run began, and what to do."""
    if changed := changes_since(run, launch):
        raise InputError("\n".join([*(f"{run['id']}: {what}" for what in changed), fix]))


def task_changes(run: dict[str, Any], task: Task) -> list[str]:
    """Return which files of a task changed since the run began, a line each."""
    then, now = run["hashes"], dict(task.hashes)
    parts = [(name, "changed" if name in now else "is gone") for name in then if then[name] != now.get(name)]
    parts += [(name, "is new") for name in now if name not in then]
    options = started_with(run)
    return list(dict.fromkeys(f"{source_of(name, options)} {what}" for name, what in parts))
