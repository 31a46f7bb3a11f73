"""`optimize runs`, `show`, `history`: the runs of the ledger, one run, its trials, and a search in all texts."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json, short
from agent.cli.terminal_tables import Column, print_table, say, say_diff, so_far, sparkline, whisker
from agent.errors import InputError
from agent.release.result import search_result
from agent.report.facts import amount, decision, gain, instead_of_result, points, prompt_text, without_result
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
    "check": ("agent.cli.check", "check_report"),
    "bless": ("agent.cli.check", "bless_report"),
    "transfer": ("agent.cli.run", "transfer_report"),
    "judge_calibration": ("agent.cli.judge", "calibration_report"),
}
"""The function that makes text of the result of a run that is no search, by kind."""
AXIS = len(TRIALS[4].head)


@click.command(context_settings=SETTINGS)
@db_option
@json_option
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
        rows.append(
            (
                run["id"],
                run["task"],
                run["model"],
                run["seed"],
                run["status"],
                points(result.baseline.test if result else None),
                points(result.winner.test if result else None),
                gain(result.lift.diff) if result else "",
                decision(run["result"] or {}),
                sparkline(so_far(means.get(run["id"], [])), len(RUNS[-1].head)),
            )
        )
    print_table("runs", RUNS, rows)
    for run in runs:
        _say_error(run)


def _say_error(run: dict[str, Any]) -> None:
    """Prints why a run failed, if it did."""
    if run["error"]:
        say(f"{run['id']} {run['status']}: {run['error']}")


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@db_option
@json_option
def show_command(run: str, db: Path, as_json: bool) -> None:
    """Show RUN (default: the latest): the winner, its demos, the diff to your prompt, and what each part cost."""
    from agent.cli.result import report
    from agent.ledger.trail import promoted_since

    history = open_history(db)
    found = history.run(run)
    if found["result"] is None:
        if as_json:
            print_json({"run_id": found["id"], "status": found["status"], "error": found["error"], "result": None})
        raise InputError(
            f"{found['id']}: {without_result(found)}, so there is nothing to show; {instead_of_result(found)}"
        )
    result = search_result(found["result"], db)
    if result is None:
        if as_json:
            print_json({"result": found["result"]})
        else:
            module, name = REPORTS[found["result"]["kind"]]
            click.echo(getattr(import_module(module), name)(found["result"]))
        return
    winner = history.candidate(result.winner.candidate_id)
    base = history.candidate(next(t["candidate_id"] for t in history.trials(found["id"]) if t["number"] == 0))
    costs, promoted = history.costs(found["id"]), promoted_since(history, found["id"])
    if as_json:
        shown = {"result": result.to_json(), "promoted": promoted, "winner": winner, "baseline": base}
        print_json({**shown, "costs": costs, "plan": found["plan"]})
        return
    click.echo(
        f"run {found['id']}  {found['task']}  {found['model']}  seed {found['seed']}  {found['started_utc'][:19]} UTC"
    )
    click.echo(report(result, db, promoted))
    say("\n== the winner's prompt (demos shown below) ==", "bold")
    click.echo(plain(prompt_text(winner)))
    if winner["demos"]:
        print_table(
            f"{len(winner['demos'])} demos",
            DEMOS,
            [
                (
                    demo["position"] + 1,
                    demo["example_id"],
                    short(_join(demo["inputs"]), 80),
                    short(_join(demo["outputs"]), 40),
                )
                for demo in winner["demos"]
            ],
        )
    say("\n== diff to your prompt ==", "bold")
    diff = difflib.unified_diff(
        prompt_text(base).splitlines(), prompt_text(winner).splitlines(), "your prompt", "winner", lineterm="", n=2
    )
    say_diff(list(diff) or ["(the same)"])
    click.echo("")
    print_table(
        "what it cost",
        COSTS,
        [
            (
                c["role"],
                c["model"],
                c["state"],
                c["calls"],
                c["prompt_tokens"],
                c["cached_prompt_tokens"],
                c["completion_tokens"],
                amount(c["cost_usd"]),
                f"{c['seconds'] or 0:.0f}",
            )
            for c in costs
        ],
    )


def _join(fields: dict[str, str]) -> str:
    return " | ".join(fields.values())


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
@db_option
@json_option
def history_command(run: str, trial: int | None, search: str | None, limit: int, db: Path, as_json: bool) -> None:
    """Show each trial of RUN (default: the latest): which instruction, demos and technique, its score and its cost.

    With --search: where words stand in prompts, in the reasons of proposals and in replies.
    """
    history = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        _show_hits(history, search, history.run(run)["id"] if run else "", limit, as_json)
        return
    found = history.run(run)
    trials = history.trials(found["id"])
    if trial is not None:
        _show_trial(history, found["id"], trials, trial, as_json)
        return
    rejected = history.rejected(found["id"])
    if as_json:
        state = {"status": found["status"], "error": found["error"]}
        print_json({"run_id": found["id"], **state, "trials": trials, "rejected": rejected})
        return
    print_table(
        f"trials of {found['id']}",
        TRIALS,
        [
            (
                t["number"],
                t["round"],
                t["state"],
                points(t["mean"]),
                whisker(t["mean"], t["low"], t["high"], AXIS),
                t["n"],
                t["technique"],
                t["format"],
                t["n_demos"],
                t["operator"],
                t["calls"] + t["cached"],
                t["tokens"],
                amount(t["cost_usd"]),
                short(t["instruction"], 50),
                short(t["reason"], 60),
            )
            for t in trials
        ],
        quiet=lambda row: row[2] != "complete",
    )
    for row in rejected:
        say(f"rejected {row['candidate_id']} ({row['operator']}): {row['rejected']}")
    _say_error(found)


def _show_hits(history: Any, words: str, run_id: str, limit: int, as_json: bool) -> None:
    from dataclasses import asdict

    from agent.ledger.texts import search

    found = search(history, words, run_id, limit)
    if as_json:
        print_json({"search": words, "run_id": run_id or None, **asdict(found)})
        return
    if found.hits:
        print_table(
            "",
            HITS,
            [
                (hit.what, hit.run, hit.trial, hit.row, hit.split, points(hit.score), short(hit.snippet, 300))
                for hit in found.hits
            ],
        )
    shown = f"the best {limit} of them above; --limit shows more" if found.matches > limit else ""
    say("; ".join(filter(None, (f"{found.matches:,} of {found.texts:,} texts hold it", shown))))


def _show_trial(history: Any, run_id: str, trials: list[dict[str, Any]], number: int, as_json: bool) -> None:
    found = next((t for t in trials if t["number"] == number), None)
    if found is None:
        raise InputError(f"{run_id}: no trial {number}; there are {len(trials)}, from 0")
    candidate = history.candidate(found["candidate_id"])
    outcomes = {split: history.outcomes(run_id, found["candidate_id"], split) for split in ("dev", "test")}
    if as_json:
        print_json({"trial": found, "candidate": candidate, "outcomes": outcomes})
        return
    click.echo(
        f"trial {number}: {found['state']}, {points(found['mean'])} on {found['n']} rows; {plain(found['reason'])}"
    )
    for message in candidate["template"]:
        click.echo(plain(f"[{message['role']}]\n{message['content']}"))
    for split, rows in outcomes.items():
        if rows:
            print_table(
                split,
                OUTCOMES,
                [
                    (
                        r["example_id"],
                        points(r["value"]),
                        short(r["reply"], 60),
                        short(r["error"] or "; ".join(s[2] for s in r["scores"]), 80),
                    )
                    for r in rows
                ],
            )
