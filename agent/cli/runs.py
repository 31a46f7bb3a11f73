"""`optimize runs`, `show`, `history`: the runs of the ledger, one run, its trials, and a search in all texts."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from importlib import import_module
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, ledger_options, plain, print_json, short
from agent.cli.terminal_tables import Column, print_table, say, say_diff, so_far, sparkline, whisker
from agent.errors import InputError
from agent.release.result import search_result
from agent.report import change_facts
from agent.report.facts import (
    amount,
    baseline_words,
    decision,
    gain,
    instead_of_result,
    points,
    prompt_text,
    without_result,
)
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
TRIALS = (
    Column("trial"),
    Column("round", rank=10),
    Column("state"),
    Column("score"),
    Column("0    dev    100", rank=2, drawn=True),
    Column("rows"),
    Column("technique", rank=1, floor=9),
    Column("format", rank=5, floor=8),
    Column("demos", rank=1),
    Column("operator", rank=3, floor=11),
    Column("calls", rank=7),
    Column("tokens", rank=8),
    Column("$", rank=9),
    Column("instruction", rank=4, floor=16),
    Column("reason", rank=6, floor=16),
)
PROPOSALS = tuple(
    Column(name, rank=rank, floor=floor)
    for name, rank, floor in zip(change_facts.PROPOSALS, (0, 0, 0, 3, 2, 1, 0), (0, 0, 24, 8, 0, 0, 12), strict=True)
)
DEMOS = (Column(""), Column("row"), Column("input", floor=20), Column("output", floor=12))
COSTS = (
    Column("role"),
    Column("model", floor=12),
    Column("state"),
    Column("calls"),
    Column("prompt tokens"),
    Column("of them cached", rank=2),
    Column("completion tokens", rank=1),
    Column("$"),
    Column("model seconds", rank=3),
)
OUTCOMES = (Column("row"), Column("score"), Column("reply", floor=16), Column("why", floor=16))
HITS = (
    Column("what"),
    Column("run", rank=1),
    Column("trial"),
    Column("row", rank=2, floor=8),
    Column("split", rank=3),
    Column("score"),
    Column("text", floor=24),
)
REPORTS = {
    "apply": ("agent.cli.apply", "apply_report"),
    "check": ("agent.cli.check", "check_report"),
    "customize": ("agent.cli.customize", "customize_report"),
    "playground": ("agent.cli.report", "playground_report"),
    "bless": ("agent.cli.check", "bless_report"),
    "transfer": ("agent.cli.rerun", "transfer_report"),
    "judge_calibration": ("agent.cli.judge", "calibration_report"),
    "draft": ("agent.cli.inventory", "draft_report"),
    "label_answers": ("agent.cli.label", "asked_report"),
}
"""The function that makes text of the result of a run that is no search, by kind."""
AXIS = len(TRIALS[4].head)


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
        ended = (decision(run["result"] or {}), sparkline(best, len(RUNS[-1].head)))
        rows.append((*itemgetter("id", "task", "model", "seed", "status")(run), *tests, lift, *ended))
    print_table("runs", RUNS, rows)
    for run in runs:
        _say_error(run)


def _say_error(run: dict[str, Any]) -> None:
    """Prints why a run failed, if it did."""
    if run["error"]:
        say(f"{run['id']} {run['status']}: {run['error']}")


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@ledger_options
def show_command(run: str, db: Path, as_json: bool) -> None:
    """Show RUN (default: the latest): the winner, its demos, the diff to your prompt, and what each part cost."""
    from agent.cli.result import report
    from agent.ledger.trail import promoted_since
    from agent.report.excerpts import excerpts
    from agent.report.tool_facts import compared_texts

    history = open_history(db)
    row = history.run(run)
    if row["result"] is None:
        if as_json:
            print_json({"run_id": row["id"], "status": row["status"], "error": row["error"], "result": None})
        raise InputError(f"{row['id']}: {without_result(row)}, so there is nothing to show; {instead_of_result(row)}")
    result = search_result(row["result"], db)
    if result is None:
        if as_json:
            print_json({"result": row["result"]})
        else:
            module, name = REPORTS[row["result"]["kind"]]
            click.echo(getattr(import_module(module), name)(row["result"]))
        return
    winner = history.candidate(result.winner.candidate_id)
    base = history.candidate(next(t["candidate_id"] for t in history.trials(row["id"]) if t["number"] == 0))
    costs, promoted = history.costs(row["id"]), promoted_since(history, row["id"])
    if as_json:
        shown = {"result": result.to_json(), "promoted": promoted, "winner": winner, "baseline": base}
        print_json({**shown, "costs": costs, "plan": row["plan"]})
        return
    click.echo(f"run {row['id']}  {row['task']}  {row['model']}  seed {row['seed']}  {row['started_utc'][:19]} UTC")
    click.echo(report(result, db, promoted, excerpts(history, row, result)))
    say("\n== the winner's prompt (demos shown below) ==", "bold")
    click.echo(plain(prompt_text(winner)))
    if winner["demos"]:
        rows = []
        for demo in winner["demos"]:
            inputs, outputs = (" | ".join(demo[side].values()) for side in ("inputs", "outputs"))
            rows.append((demo["position"] + 1, demo["example_id"], short(inputs, 80), short(outputs, 40)))
        print_table(f"{len(rows)} demos", DEMOS, rows)
    own = baseline_words(row)
    say(f"\n== diff to {own.phrase} ==", "bold")
    before, after = (text.splitlines() for text in compared_texts(base, winner))
    diff = difflib.unified_diff(before, after, own.name, "winner", lineterm="", n=2)
    say_diff(list(diff) or ["(the same)"])
    click.echo("")
    names = ("role", "model", "state", "calls", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    spent = [(*itemgetter(*names)(one), amount(one["cost_usd"]), f"{one['seconds'] or 0:.0f}") for one in costs]
    print_table("what it cost", COSTS, spent)


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
    """Show each trial of RUN (default: the latest): which instruction, demos and technique, its score and its cost. Of
    a run that is done also each proposal: what was asked for, why, for which rows, and what became of it.

    With --search: where words stand in prompts, in the reasons of proposals and in replies.
    """
    from agent.ledger.trail import claims

    history = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        _show_hits(history, search, history.run(run)["id"] if run else "", limit, as_json)
        return
    row = history.run(run)
    trials = history.trials(row["id"])
    if trial is not None:
        _show_trial(history, row["id"], trials, trial, as_json)
        return
    rejected = history.rejected(row["id"])
    result = search_result(row["result"], history.path)
    proposals = change_facts.proposals(result, claims(history, row["id"]))
    if as_json:
        state = {"status": row["status"], "error": row["error"]}
        use = result.proposer if result is not None else None
        made = [asdict(each) for each in use.proposals] if use else []
        print_json({"run_id": row["id"], **state, "trials": trials, "rejected": rejected, "proposals": made})
        return
    rows = []
    for one in trials:
        mean = (points(one["mean"]), whisker(one["mean"], one["low"], one["high"], AXIS))
        design = itemgetter("n", "technique", "format", "n_demos", "operator")(one)
        cost = (one["calls"] + one["cached"], one["tokens"], amount(one["cost_usd"]))
        texts = (short(one["instruction"], 50), short(one["reason"], 60))
        rows.append((one["number"], one["round"], one["state"], *mean, *design, *cost, *texts))
    print_table(f"trials of {row['id']}", TRIALS, rows, quiet=lambda cells: cells[2] != "complete")
    if proposals:
        print_table(
            "what the proposer was asked for", PROPOSALS, [tuple(short(cell, 120) for cell in p) for p in proposals]
        )
    for gone in rejected:
        say(f"rejected {gone['candidate_id']} ({gone['operator']}): {gone['rejected']}")
    _say_error(row)


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


def _show_trial(history: Any, run_id: str, trials: list[dict[str, Any]], number: int, as_json: bool) -> None:
    trial = next((t for t in trials if t["number"] == number), None)
    if trial is None:
        raise InputError(f"{run_id}: no trial {number}; there are {len(trials)}, from 0")
    candidate = history.candidate(trial["candidate_id"])
    outcomes = {split: history.outcomes(run_id, trial["candidate_id"], split) for split in ("dev", "test")}
    if as_json:
        print_json({"trial": trial, "candidate": candidate, "outcomes": outcomes})
        return
    click.echo(
        f"trial {number}: {trial['state']}, {points(trial['mean'])} on {trial['n']} rows; {plain(trial['reason'])}"
    )
    for message in candidate["template"]:
        click.echo(plain(f"[{message['role']}]\n{message['content']}"))
    for split, outcomes_of_split in outcomes.items():
        rows = []
        for row in outcomes_of_split:
            why = row["error"] or "; ".join(reason for _, _, reason in row["scores"])
            rows.append((row["example_id"], points(row["value"]), short(row["reply"], 60), short(why, 80)))
        if rows:
            print_table(split, OUTCOMES, rows)
