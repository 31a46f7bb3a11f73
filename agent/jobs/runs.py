"""`optimize runs`, `show`, `history`: the runs of the ledger, one run, its trials, and a search in all texts."""

from __future__ import annotations

from dataclasses import asdict, replace
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.jobs import JOBS
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job, show_result
from agent.ledger.query import History
from agent.ledger.texts import search as search_texts
from agent.ledger.trail import claims
from agent.options.option import option
from agent.registry import OURS
from agent.release.result import search_result
from agent.report import run_tables
from agent.report.blocks import Column, short, text
from agent.report.facts import decision, gain, instead_of_result, points, without_result
from agent.report.job_blocks import job_result
from agent.report.run_blocks import screen_lines
from agent.report.terminal import print_listing, print_table, say, so_far, sparkline
from agent.report.terminal import show as show_blocks
from agent.report.view import RunView

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


@job("runs")
def runs(*, db: Path = DB) -> Printed:
    """List the runs, newest first."""
    history = open_history(db)
    found = history.runs()

    def tables() -> None:
        means, rows = history.dev_means(), []
        for run in found:
            result = search_result(run["result"])
            tests = (points(result.baseline.test), points(result.winner.test)) if result else ("-", "-")
            lift, best = gain(result.lift.diff) if result else "", so_far(means.get(run["id"], []))
            ended = (decision(run["result"] or {}), sparkline(best, len(RUNS[-1].name)))
            rows.append((*itemgetter("id", "task", "model", "seed", "status")(run), *tests, lift, *ended))
        print_table("runs", RUNS, rows)
        for run in found:
            _say_error(run)

    return Printed({"runs": found}, tables)


def _say_error(run: dict[str, Any]) -> None:
    if run["error"]:
        say(f"{run['id']} {run['status']}: {run['error']}")


@job("show")
def show(run: str = "", *, db: Path = DB) -> Printed:
    """Show RUN (default: the latest): the winner, its examples, the diff to your prompt, and what each part cost."""
    view = RunView(open_history(db), run)
    row = view.run
    if row["result"] is None:
        why = f"{row['id']}: {without_result(row)}, so there is nothing to show; {instead_of_result(row)}"
        found = {"run_id": row["id"], "status": row["status"], "error": row["error"], "result": None}
        return Printed(found, error=InputError(why))
    result = view.result
    if result is None:
        kind = str(row["result"].get("kind"))
        own = JOBS.get(kind).result if kind in JOBS and JOBS.origin(kind) != OURS else None
        stored = job_result(row["result"]) if own is None else own.from_json(row["result"])
        return Printed({"result": row["result"]}, lambda: show_result(stored))
    head = f"run {row['id']}  {row['task']}  {row['model']}  seed {row['seed']}  {row['started_utc'][:19]} UTC"
    found = {"result": result.to_json(), "promoted": view.promoted, "winner": view.winner}
    found |= {"baseline": view.baseline, "costs": view.costs, "plan": row["plan"]}

    def lines() -> None:
        show_blocks(text(head, exact=True))
        print("\n".join(screen_lines(result, view)))

    return Printed(found, lines)


@job("history")
def history(
    run: str = "",
    *,
    trial: int | None = option(None, "One trial whole: its prompt and each row's outcome.", metavar="NUMBER"),
    search: str | None = option(
        None,
        'Prompts, reasons and replies that hold the words, best first, of RUN or else of all runs: WORDS, "A PHRASE", '
        "A OR B, A NOT B, BEGIN*.",
        metavar="WORDS",
    ),
    limit: int = option(50, "With {search}: how many.", metavar="N", ge=1, le=10_000),
    db: Path = DB,
) -> Printed:
    """Show each trial of RUN (default: the latest): which instruction, examples and technique, its score and its cost.
    Of a run that is done also each proposal: what was asked for, why, for which rows, and what became of it.

    With --search: where words stand in prompts, in the reasons of proposals and in replies.
    """
    ledger = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        return _hits(ledger, search, ledger.run(run)["id"] if run else "", limit)
    view = RunView(ledger, run)
    if trial is not None:
        return _trial(view, trial)
    rejected, use = ledger.rejected(view.id), view.result.proposer if view.result is not None else None
    made = [each.to_json() for each in use.proposals] if use else []
    state = {"status": view.run["status"], "error": view.run["error"], "trials": ledger.trials(view.id)}

    def tables() -> None:
        print_listing(replace(run_tables.trials(view, is_whole=True), title=f"trials of {view.id}"))
        if (proposals := run_tables.proposals(view.result, claims(ledger, view.id), letters=120)).rows:
            print_listing(proposals)
        for gone in rejected:
            say(f"rejected {gone['candidate_id']} ({gone['operator']}): {gone['rejected']}")
        _say_error(view.run)

    return Printed({"run_id": view.id, **state, "rejected": rejected, "proposals": made}, tables)


def _hits(ledger: History, words: str, run_id: str, limit: int) -> Printed:
    result = search_texts(ledger, words, run_id, limit)

    def tables() -> None:
        if result.hits:
            place = attrgetter("what", "run", "trial", "row", "split")
            print_table("", HITS, [(*place(hit), points(hit.score), short(hit.snippet, 300)) for hit in result.hits])
        shown = f"the best {limit} of them above; --limit shows more" if result.matches > limit else ""
        say("; ".join(filter(None, (f"{result.matches:,} of {result.texts:,} texts hold it", shown))))

    return Printed({"search": words, "run_id": run_id or None, **asdict(result)}, tables)


def _trial(view: RunView, number: int) -> Printed:
    trial = view.numbered(number)
    candidate = view.history.candidate(trial["candidate_id"])
    outcomes = {split: view.history.outcomes(view.id, candidate["id"], split) for split in ("dev", "test")}

    def tables() -> None:
        say(f"trial {number}: {trial['state']}, {points(trial['mean'])} on {trial['n']} rows; {trial['reason']}")
        show_blocks(run_tables.messages(candidate))
        for split, rows in outcomes.items():
            if rows:
                print_listing(run_tables.outcomes(split, rows))

    return Printed({"trial": trial, "candidate": candidate, "outcomes": outcomes}, tables)
