"""`optimize resume`: goes on with a run that was interrupted, killed or stopped, from where it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, open_history, plain
from agent.cli.launch import Launch, execute, fetch_weights, prepare, source_of
from agent.cli.progress import Progress
from agent.cli.run import finish, opening
from agent.errors import InputError

if TYPE_CHECKING:
    from agent.search.plan import Plan

UNFINISHED = ("running", "interrupted", "killed", "failed")


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--fork", is_flag=True, help="Start a new run from it, with the task as it is now.")
@click.option("-m", "--model", help="Another model; only with --fork.")
@click.option("--max-calls", type=click.IntRange(1), help="A new cap on model calls; what was paid before counts.")
@click.option("--max-tokens", type=click.IntRange(1), help="A new cap on tokens.")
@click.option("--max-cost", type=click.FloatRange(0), help="A new cap in US dollars.")
@click.option("--time-limit", help="A new cap on wall time: 90, 5m or 1h30m.")
@click.option("-j", "--max-concurrency", type=click.IntRange(1), help="Calls in flight at once.")
@click.option("--max-wait", help="Longest wait for a provider that is down or asks to wait: 90, 5m.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@db_option
@json_option
def resume_command(
    run: str, fork: bool, model: str | None, quiet: bool, db: Path, as_json: bool, **changes: Any
) -> None:
    """Go on with RUN (default: the latest that did not finish). Nothing that was paid for is bought again.

    Refuses when the task, its data or metrics, the model or the program changed since, naming what changed; --fork
    starts a new run with what is there now, which still takes every call that it shares from the ledger.
    """
    from agent.ledger.query import started_with
    from agent.optimize import Resumed
    from agent.search.plan import Plan

    history = open_history(db)
    found = history.run(run) if run else _latest(history.runs(), db)
    costs = history.costs(found["id"])
    paid = [row for row in costs if row["state"] != "cached"]
    history.close()
    begun = started_with(found)
    if found["status"] not in UNFINISHED and not fork:
        raise InputError(
            f"{found['id']}: this run is {found['status']} and has its result; --fork starts a new one, "
            "with larger caps if you give them, and takes what this one bought from the ledger"
        )
    if model and model != found["model"] and not fork:
        raise InputError(f"{found['id']}: another model makes another run; add --fork")
    given = {name: value for name, value in changes.items() if value is not None}
    if not fork:
        require_above(given, paid, found["id"])
    options = {**begun, **given, **({"model": model} if model else {})}
    launch = prepare(options, db, quiet or as_json)
    changed = [] if fork else changes_since(found, launch)
    if changed:
        raise InputError(
            "\n".join([f"{found['id']}: {what}" for what in changed] + ["put it back, or start a new run with --fork"])
        )
    resumed = None
    if fork:
        from dataclasses import replace

        launch = replace(launch, settings=replace(launch.settings, parent=found["id"]))
    else:
        plan = Plan.restored(found["plan"]) if found["plan"] else launch.plan()
        resumed = Resumed(found["id"], plan)
    with Progress(quiet) as progress:
        fetch_weights(launch, progress)
        if not quiet:
            click.echo(f"{'forking' if fork else 'resuming'} {found['id']} ({found['status']})", err=True)
            plan = resumed.plan if resumed else launch.plan()
            click.echo(plain(opening(launch, plan)), err=True)
            if resumed and (short := short_of_plan(plan, launch.calls_each, costs, launch.settings.budget.max_calls)):
                click.echo(short, err=True)
        result = execute(launch, db, progress, resumed)
    finish(result, db, as_json)


def require_above(given: Mapping[str, Any], paid: Sequence[Mapping[str, Any]], run_id: str) -> None:
    """Raises InputError for caps that are below what the run has paid: what was spent cannot be held back any more."""
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


def short_of_plan(plan: Plan, per_row: int, costs: Sequence[Mapping[str, Any]], most: int | None) -> str:
    """What is said when `most` calls no longer carry the plan, which counts `per_row` calls as one, since more of them
    brought nothing than were spare; else ""."""
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


def _latest(runs: list[dict[str, Any]], db: Path) -> dict[str, Any]:
    for run in runs:
        if run["status"] in UNFINISHED and not (run["options"] or {}).get("command"):
            return run
    raise InputError(
        f"{db}: no run is unfinished; `optimize runs` lists them, `optimize resume RUN --fork` starts anew"
    )


def changes_since(run: dict[str, Any], launch: Launch) -> list[str]:
    """What is not as it was when the run began, a line each."""
    from agent.ledger.origin import tool_version

    then, now = run["hashes"], dict(launch.task.hashes)
    parts = [(name, "changed" if name in now else "is gone") for name in then if then[name] != now.get(name)]
    parts += [(name, "is new") for name in now if name not in then]
    changed = list(dict.fromkeys(f"{source_of(name, run['options'])} {what}" for name, what in parts))
    if run["model"] != launch.target.name:
        changed.append(f"the model is {launch.target.name}, it was {run['model']}")
    if run["options"].get("model_digest", "") != launch.digest:
        changed.append(f"the file behind {launch.target.name} changed")
    proposer = launch.author.name if launch.author else ""
    if run["proposer"] != proposer:
        changed.append(f"the proposer is {proposer or 'none'}, it was {run['proposer'] or 'none'}")
    if run["tool"] != tool_version():
        changed.append(f"this is version {tool_version()}, the run was made with {run['tool']}")
    return changed
