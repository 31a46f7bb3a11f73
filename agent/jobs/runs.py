"""`optimize runs`, `history` and `compare`: the runs of the ledger, their trials, and text search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from agent.errors import InputError
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.ledger.texts import TextHit
from agent.ledger.texts import search as search_texts
from agent.ledger.trail import claims
from agent.options.option import option
from agent.report import run_tables, trial_tables
from agent.report.blocks import Block, Column, filled, plain_section, short, table, text
from agent.report.compare import CompareResult, compared_prompt
from agent.report.compare import compare as compared
from agent.report.run_list import RunsResult, listed
from agent.report.trail import TrialTrail, trial_trail
from agent.report.view import RunView
from agent.results.base import Result
from agent.results.recorded import RecordedTrial, RejectedCandidate
from agent.results.run_parts import ProposalFate, ProposerUse
from agent.stats.figures import points

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


@job("history")
def history(
    run: str = "",
    *,
    trial: int | None = option(None, "Show one trial in full: its prompt and each row's outcome.", metavar="NUMBER"),
    search: str | None = option(
        None,
        'Search prompts, reasons, replies (default: all runs), best first: WORDS, "A PHRASE", A OR B, A NOT B, BEGIN*.',
        metavar="WORDS",
    ),
    limit: int = option(50, "With {search}: how many to show.", metavar="N", ge=1, le=10_000),
    db: Path = DB,
) -> Printed[HistoryResult] | SearchHits | TrialTrail:
    """Show the trials of RUN (default: the latest): instruction, examples, technique, score and cost.

    For a finished run also each proposal: what was requested, why, for which rows, and its outcome.

    With --search: where words occur in prompts, in the reasons of proposals and in replies.
    """
    ledger = open_history(db)
    if search is not None:
        if trial is not None:
            raise InputError("--search looks through all trials; leave out --trial")
        run_id = ledger.run(run)["id"] if run else ""
        hits = search_texts(ledger, search, run_id, limit)
        where = run_id or None
        return SearchHits(search=search, run_id=where, texts=hits.texts, matches=hits.matches, hits=hits.hits)
    view = RunView(ledger, run)
    if trial is not None:
        return trial_trail(view, trial)
    use = view.result.proposer if view.result is not None else None
    rows = {"trials": view.recorded_trials, "rejected": ledger.rejected(view.id)}
    state = {"run_id": view.id, "status": view.run["status"], "error": view.run["error"]}
    found = HistoryResult.model_validate({**state, **rows, "proposals": use.proposals if use else ()})
    return Printed(found, sections=lambda: [plain_section(*_history_blocks(view, found, use))])


def _history_blocks(view: RunView, found: HistoryResult, use: ProposerUse | None) -> Iterator[Block]:
    yield replace(trial_tables.trials(view, is_whole=True), title=f"trials of {view.id}", tabbed=True)
    proposals = run_tables.proposals(use, claims(view.history, view.id))
    yield from filled(replace(proposals, tabbed=bool(proposals.rows)))
    yield text(*(f"rejected {one.candidate_id} ({one.operator}): {one.rejected}" for one in found.rejected))
    yield text(f"{view.id} {found.status}: {found.error}" if found.error else "")


@job("compare")
def compare(a: Annotated[str, "A"], b: Annotated[str, "B"], *, db: Path = DB) -> CompareResult:
    """Compare A and B: two runs by their winners, or two trials as RUN:NUMBER.

    Shows the options that differ, data, scores, cost and the text of both prompts. If both were scored on the same rows
    of the same data, by the same metrics and judges, B minus A is tested pairwise. A gain on dev proves nothing:
    prompts were chosen on it.
    """
    history = open_history(db)
    return compared(compared_prompt(history, a), compared_prompt(history, b))
