"""`optimize runs`, `show` and `history`: the runs of the ledger, one run, its trials, and text search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.jobs import JOBS
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.ledger.query import History
from agent.ledger.texts import TextHit
from agent.ledger.texts import search as search_texts
from agent.ledger.trail import claims
from agent.options.option import option
from agent.registry import OURS
from agent.report import run_tables
from agent.report.blocks import Block, Column, filled, plain_section, short, table, text
from agent.report.job_blocks import job_result, sections_of
from agent.report.run_blocks import screen_sections
from agent.report.run_list import RunsResult, listed
from agent.report.view import RunView
from agent.report.wording import instead_of_result, points, without_result
from agent.results.base import Result, absent
from agent.results.recorded import RecordedCost, RecordedOutcome, RecordedPrompt, RecordedTrial, RejectedCandidate
from agent.results.run_parts import ProposalFate

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
def runs(*, db: Path = DB) -> RunsResult:
    """List the runs, newest first."""
    history = open_history(db)
    return listed(history.runs(), history)


# -- one run ----------------------------------------------------------------------------------------------------------


class ShowResult(Result):
    """A search: its `result`, both prompts, the promotion of a rejected winner, and the cost of each part."""

    result: Mapping[str, Any]
    promoted: Mapping[str, Any] | None
    winner: RecordedPrompt | None
    baseline: RecordedPrompt | None
    costs: tuple[RecordedCost, ...]
    plan: Mapping[str, Any] | None


class StoredResult(Result):
    """A run of another kind: the `result` of its command; None: `error` may say why."""

    run_id: str | None = absent()
    status: str | None = absent()
    error: str | None = absent()
    result: Mapping[str, Any] | None


@job("show")
def show(run: str = "", *, db: Path = DB) -> Printed[ShowResult | StoredResult]:
    """Show RUN (default: the latest): winner, examples, the diff to your prompt, and costs."""
    view = RunView(open_history(db), run)
    row = view.run
    if row["result"] is None:
        why = f"{row['id']}: {without_result(row)}, so there is nothing to show; {instead_of_result(row)}"
        found = StoredResult(run_id=row["id"], status=row["status"], error=row["error"], result=None)
        return Printed(found, error=InputError(why))
    result = view.result
    if result is None:
        kind = str(row["result"].get("kind"))
        own = JOBS.get(kind).result if kind in JOBS and JOBS.origin(kind) != OURS else None
        stored = job_result(row["result"]) if own is None else own.from_json(row["result"])
        return Printed(StoredResult(result=row["result"]), sections=sections_of(stored))
    head = f"run {row['id']}  {row['task']}  {row['model']}  seed {row['seed']}  {row['started_utc'][:19]} UTC"
    parts = {name: getattr(view, name) for name in ("promoted", "winner", "baseline", "costs")}
    whole = ShowResult.model_validate({"result": result.to_json(), **parts, "plan": row["plan"]})
    return Printed(whole, sections=[plain_section(text(head, exact=True)), *screen_sections(result, view)])


# -- its trials -------------------------------------------------------------------------------------------------------


class HistoryResult(Result):
    """The trials of a run, the rejected candidates, and the proposer's proposals."""

    run_id: str
    status: str
    error: str
    trials: tuple[RecordedTrial, ...]
    rejected: tuple[RejectedCandidate, ...]
    proposals: tuple[ProposalFate, ...]


class SearchHits(Result):
    """The best text matches: `matches` of `texts` hold the words."""

    search: str
    run_id: str | None
    texts: int
    matches: int
    hits: tuple[TextHit, ...]

    def blocks(self) -> Iterator[Block]:
        rows = [
            (hit.what, hit.run, hit.trial, hit.row, hit.split, points(hit.score), short(hit.snippet, 300))
            for hit in self.hits
        ]
        if rows:
            yield table("", HITS, rows, tabbed=True)
        more = f"; the best {len(rows)} of them above; --limit shows more" if self.matches > len(rows) else ""
        yield text(f"{self.matches:,} of {self.texts:,} texts hold it{more}")


class TrialResult(Result):
    """A trial: its prompt, and each row's outcome by split."""

    trial: RecordedTrial
    candidate: RecordedPrompt
    outcomes: Mapping[str, tuple[RecordedOutcome, ...]]

    def blocks(self) -> Iterator[Block]:
        trial = self.trial
        yield text(f"trial {trial.number}: {trial.state}, {points(trial.mean)} on {trial.n} rows; {trial.reason}")
        yield run_tables.messages(self.candidate.template)
        for split, rows in self.outcomes.items():
            if rows:
                yield run_tables.outcomes(split, rows)


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
) -> Printed[HistoryResult] | SearchHits | TrialResult:
    """Show the trials of RUN (default: the latest): instruction, examples, technique, score and cost.

    Of a finished run also each proposal: what was requested, why, for which rows, and its outcome.

    With --search: where words occur in prompts, in the reasons of proposals and in replies.
    """
    ledger = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        return _hits(ledger, search, ledger.run(run)["id"] if run else "", limit)
    view = RunView(ledger, run)
    if trial is not None:
        return _trial(view, trial)
    use = view.result.proposer if view.result is not None else None
    trials = replace(run_tables.trials(view, is_whole=True), title=f"trials of {view.id}", tabbed=True)
    proposals = run_tables.proposals(view.result, claims(ledger, view.id), letters=120)
    rows = {"trials": ledger.trials(view.id), "rejected": ledger.rejected(view.id)}
    state = {"run_id": view.id, "status": view.run["status"], "error": view.run["error"]}
    found = HistoryResult.model_validate({**state, **rows, "proposals": use.proposals if use else ()})
    rejected = text(*(f"rejected {one.candidate_id} ({one.operator}): {one.rejected}" for one in found.rejected))
    ended = text(f"{view.id} {found.status}: {found.error}" if found.error else "")
    blocks = (trials, *filled(replace(proposals, tabbed=bool(proposals.rows))), rejected, ended)
    return Printed(found, sections=[plain_section(*blocks)])


def _hits(ledger: History, words: str, run_id: str, limit: int) -> SearchHits:
    found = search_texts(ledger, words, run_id, limit)
    return SearchHits(search=words, run_id=run_id or None, texts=found.texts, matches=found.matches, hits=found.hits)


def _trial(view: RunView, number: int) -> TrialResult:
    trial, history = view.numbered(number), view.history
    name = trial["candidate_id"]
    outcomes = {split: history.outcomes(view.id, name, split) for split in ("dev", "test")}
    return TrialResult.model_validate({"trial": trial, "candidate": history.candidate(name), "outcomes": outcomes})
