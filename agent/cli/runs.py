"""`optimize runs`, `show`, `history`: the runs of the ledger, one run, its trials, and a search in all texts."""

from __future__ import annotations

from dataclasses import asdict, replace
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, ledger_options, plain, print_json, short
from agent.errors import InputError
from agent.release.result import search_result
from agent.report import run_tables
from agent.report.blocks import Column
from agent.report.facts import decision, gain, instead_of_result, points, without_result
from agent.report.terminal import print_listing, print_table, say, show, show_sections, so_far, sparkline
from agent.report.view import RunView
from agent.run.locations import open_history

RUNS = (
    Column("run"),
    Column("task", rank=1, floor=10),
    Column("model", rank=6, floor=12),
    Column("seed", rank=7),
    Column("status", rank=3),
    Column("baseline", rank=2),
    Column("winner"),
    Column("lift", gain=True),
    Column("decision", rank=5),
    Column("best dev", rank=4, drawn=True),
)
HITS = (
    Column("what"),
    Column("run", rank=1),
    Column("trial"),
    Column("row", rank=2, floor=8),
    Column("split", rank=3),
    Column("score"),
    Column("text", floor=24),
)


@click.command(context_settings=SETTINGS)
@ledger_options
def runs_command(db: Path, as_json: bool) -> None:
    """List the runs, newest first."""
    history = open_history(db)
    runs = history.runs()
    if as_json:
        print_json({"runs": runs})
        return
    means = history.dev_means()
    rows = []
    for run in runs:
        result = search_result(run["result"])
        tests = (points(result.baseline.test), points(result.winner.test)) if result else ("-", "-")
        lift, best = gain(result.lift.diff) if result else "", so_far(means.get(run["id"], []))
        ended = (decision(run["result"] or {}), sparkline(best, len(RUNS[-1].name)))
        rows.append((*itemgetter("id", "task", "model", "seed", "status")(run), *tests, lift, *ended))
    print_table("runs", RUNS, rows)
    for run in runs:
        _say_error(run)


def _say_error(run: dict[str, Any]) -> None:
    if run["error"]:
        say(f"{run['id']} {run['status']}: {run['error']}")


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@ledger_options
def show_command(run: str, db: Path, as_json: bool) -> None:
    """Show RUN (default: the latest): the winner, its examples, the diff to your prompt, and what each part cost."""
    from agent.report.job_blocks import stored_sections
    from agent.report.run_blocks import screen_lines

    view = RunView(open_history(db), run)
    row = view.run
    if row["result"] is None:
        if as_json:
            print_json({"run_id": row["id"], "status": row["status"], "error": row["error"], "result": None})
        raise InputError(f"{row['id']}: {without_result(row)}, so there is nothing to show; {instead_of_result(row)}")
    result = view.result
    if result is None:
        if as_json:
            print_json({"result": row["result"]})
        else:
            show_sections(stored_sections(row["result"]))
        return
    if as_json:
        shown = {"result": result.to_json(), "promoted": view.promoted, "winner": view.winner}
        print_json({**shown, "baseline": view.baseline, "costs": view.costs, "plan": row["plan"]})
        return
    click.echo(
        plain(f"run {row['id']}  {row['task']}  {row['model']}  seed {row['seed']}  {row['started_utc'][:19]} UTC")
    )
    click.echo("\n".join(screen_lines(result, view)))


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--trial", type=int, help="One trial whole: its prompt and each row's outcome.")
@click.option(
    "--search",
    metavar="WORDS",
    help='Prompts, reasons and replies that hold the words, best first, of RUN or else of all runs: WORDS, "A PHRASE", '
    "A OR B, A NOT B, BEGIN*.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="With --search: how many.")
@ledger_options
def history_command(run: str, trial: int | None, search: str | None, limit: int, db: Path, as_json: bool) -> None:
    """Show each trial of RUN (default: the latest): which instruction, examples and technique, its score and its cost.
    Of a run that is done also each proposal: what was asked for, why, for which rows, and what became of it.

    With --search: where words stand in prompts, in the reasons of proposals and in replies.
    """
    history = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        _show_hits(history, search, history.run(run)["id"] if run else "", limit, as_json)
        return
    view = RunView(history, run)
    if trial is not None:
        _show_trial(view, trial, as_json)
        return
    rejected = history.rejected(view.id)
    if as_json:
        use = view.result.proposer if view.result is not None else None
        made = [each.to_json() for each in use.proposals] if use else []
        state = {"status": view.run["status"], "error": view.run["error"], "trials": history.trials(view.id)}
        print_json({"run_id": view.id, **state, "rejected": rejected, "proposals": made})
        return
    print_listing(replace(run_tables.trials(view, is_whole=True), title=f"trials of {view.id}"))
    if (proposals := run_tables.proposals(view, letters=120)).rows:
        print_listing(proposals)
    for gone in rejected:
        say(f"rejected {gone['candidate_id']} ({gone['operator']}): {gone['rejected']}")
    _say_error(view.run)


def _show_hits(history: Any, words: str, run_id: str, limit: int, as_json: bool) -> None:
    from agent.ledger.texts import search

    result = search(history, words, run_id, limit)
    if as_json:
        print_json({"search": words, "run_id": run_id or None, **asdict(result)})
        return
    if result.hits:
        place = attrgetter("what", "run", "trial", "row", "split")
        print_table("", HITS, [(*place(hit), points(hit.score), short(hit.snippet, 300)) for hit in result.hits])
    shown = f"the best {limit} of them above; --limit shows more" if result.matches > limit else ""
    say("; ".join(filter(None, (f"{result.matches:,} of {result.texts:,} texts hold it", shown))))


def _show_trial(view: RunView, number: int, as_json: bool) -> None:
    trial = view.numbered(number)
    candidate = view.history.candidate(trial["candidate_id"])
    outcomes = {split: view.history.outcomes(view.id, candidate["id"], split) for split in ("dev", "test")}
    if as_json:
        print_json({"trial": trial, "candidate": candidate, "outcomes": outcomes})
        return
    say(f"trial {number}: {trial['state']}, {points(trial['mean'])} on {trial['n']} rows; {trial['reason']}")
    show(run_tables.messages(candidate))
    for split, rows in outcomes.items():
        if rows:
            print_listing(run_tables.outcomes(split, rows))
