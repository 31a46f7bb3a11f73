"""`optimize transfer`: do a run's best prompts hold on other models?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    SEED,
    SETTINGS,
    db_option,
    json_option,
    plain,
    print_json,
    score,
    short,
)
from agent.cli.errands import cost_line, run_job, spending_options
from agent.errors import InputError
from agent.release.gate import shown
from agent.run.launch import budget_of, silence, source_of, task_of
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.ledger.query import History, Row
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.run.job import Means
    from agent.run.transfer import Entrant, Transfer
    from agent.types import Task


@click.command(context_settings=SETTINGS)
@click.argument("run")
@click.option("--models", required=True, help="The models to try, as a,b,c.")
@click.option("--top", type=click.IntRange(1, 50), default=3, show_default=True, help="How many of the best prompts.")
@click.option("--limit", type=click.IntRange(1), help="Take the first so many dev rows.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="For tests and intervals.")
@spending_options
@db_option
@json_option
def transfer_command(
    run: str, models: str, top: int, limit: int | None, db: Path, as_json: bool, **options: Any
) -> None:
    """Score the best prompts of RUN, and your own, on other models over the same dev rows, and show the matrix.

    Only candidates that saw the whole of dev take part. The run's own model comes first, with the scores of the run;
    these prompts were chosen by them, so they flatter. Calls that the ledger holds are not made again. The sealed test
    is not touched.
    """
    from agent.models.model_registry import create_model
    from agent.run.transfer import Transfer

    silence()
    history = open_history(db)
    try:
        found = history.search(run)
        task, entrants = _seen(history, found, _task(found), top, limit)
    finally:
        history.close()
    names = [name.strip() for name in models.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--models {models}: write each model once, a,b,c")
    if found["model"] in names:
        raise InputError(f"--models: {found['model']} is the run's own model, whose scores are in the ledger")
    known = {name: create_model(name) for name in dict.fromkeys([*names, *task.judges])}
    lms, judges = [known[name] for name in names], [known[name] for name in task.judges]
    if not judges and task.is_judged:
        judges = [create_model(found["model"])]
    planned = Transfer.calls(task, len(entrants), len(lms))
    budget = budget_of(options, planned)

    def make(means: Means) -> Transfer:
        return Transfer(task, entrants, found["model"], found["id"], lms, judges, means)

    quiet = bool(options["quiet"] or as_json)
    every = [*lms, *(judge for judge in judges if judge not in lms)]
    told = run_job(make, every, list(known), budget, options, db, quiet=quiet)
    if as_json:
        print_json(told)
    else:
        click.echo(report(told))


def _task(found: Row) -> Task:
    from agent.ledger.query import started_with
    from agent.release.rescore import SCORED_BY
    from agent.scoring.function_metric import require_all

    options = started_with(found)
    task = task_of(options)
    if task.program:
        raise InputError(f"{found['id']}: a program of your own; only prompts can be tried on other models")
    for name in SCORED_BY:
        if found["hashes"].get(name) != task.hashes.get(name):
            what = source_of(name, options) + (f" of {task.folder}" if task.folder else "")
            raise InputError(f"{found['id']}: {what} changed since; put it back, or run the task again")
    require_all(task)
    return replace(task, judges=tuple(options.get("judge") or task.judges) if task.is_judged else ())


def _seen(history: History, found: Row, task: Task, top: int, limit: int | None) -> tuple[Task, list[Entrant]]:
    """The task with the first `limit` dev rows that the run scored; the baseline, and the best that saw all of them."""
    from agent.run.transfer import Entrant

    trials = [trial for trial in history.trials(found["id"]) if trial["state"] == "complete"]
    base = [trial for trial in trials if trial["number"] == 0]
    if not base:
        raise InputError(f"{found['id']}: this run is {found['status']} and has not scored its baseline")
    scored = {outcome["example_id"] for outcome in history.outcomes(found["id"], base[0]["candidate_id"], "dev")}
    task = replace(task, dev=tuple(row for row in task.dev if row.id in scored)[:limit])
    whole = [trial for trial in trials if trial["number"] and trial["mean"] is not None]
    best = sorted(whole, key=lambda trial: (-trial["mean"], trial["number"]))[:top]
    entrants = []
    for trial in [*base, *best]:
        outcomes = history.outcomes(found["id"], trial["candidate_id"], "dev")
        seen = {outcome["example_id"]: outcome["value"] for outcome in outcomes}
        scores = tuple(seen.get(row.id) for row in task.dev)
        entrants.append(Entrant(trial["number"], _candidate(history.candidate(trial["candidate_id"])), scores))
    return task, entrants


def _candidate(row: Mapping[str, Any]) -> PromptCandidate:
    """A candidate out of the ledger; it must have the id that it was written under."""
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Demo

    demos = tuple(
        Demo(demo["example_id"], demo["inputs"], demo["outputs"], demo["rationale"], demo["source"])
        for demo in row["demos"]
    )
    candidate = PromptCandidate(row["technique"], row["format"], row["instruction"], row["role"], demos)
    if candidate.id != row["id"]:
        raise InputError(f"{row['id']}: parts of this prompt were erased from the ledger, so it cannot be tried again")
    return candidate


def report(told: dict[str, Any]) -> str:
    """The matrix for people: prompts down, models across; each cell score, interval and rank."""
    names = [f"{model['model']}{' (own)' if model['own'] else ''}" for model in told["models"]]
    lines = ["", plain(f"{told['task']}: run {told['of_run']} on {told['rows']} dev rows")]
    for number, name in enumerate(names):
        lines.append(plain(f"  [{number + 1}] {name}"))
    cells = [[_cell(model["scores"][at]) for model in told["models"]] for at in range(len(told["candidates"]))]
    width = max(len(cell) for row in cells for cell in row)
    head = "".join(f"  {f'[{number + 1}]':<{width}}" for number in range(len(names)))
    lines += ["", f"{'trial':>5}{head}  prompt"]
    for candidate, row in zip(told["candidates"], cells, strict=True):
        about = f"{candidate['technique']}, {candidate['format']}, {candidate['n_demos']} demos"
        about = "your prompt" if candidate["trial"] == 0 else about
        lines.append(f"{candidate['trial']:>5}{''.join(f'  {cell:<{width}}' for cell in row)}  {short(about, 60)}")
    lines += [
        "",
        "score [95 % CI] #rank; + or - where it differs from your prompt there (p < 0.05 by Holm over all cells);",
        "on the run's own model nothing is tested: these scores chose the prompts",
    ]
    if told["status"] == "budget":
        lines.append("the budget ended it early; cells that were not finished have no score")
        lines.append("the same command with a larger cap, or --limit ROWS, goes on from the calls that were made")
    return "\n".join([*lines, cost_line(told)])


def _cell(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    low, high = found["ci95"]
    mark = _mark(found["lift"] or {})
    return f"{score(found['mean'])} [{100 * low:.0f}, {100 * high:.0f}] #{found['rank']}{mark}"


def _mark(lift: Mapping[str, Any]) -> str:
    """Where test and interval both say it, as in a promotion; a transfer of an older version was not corrected."""
    if (p_value := lift.get("p_holm")) is None:
        return ""
    return ("", "+", "-")[shown({**lift, "p_value": p_value})]
