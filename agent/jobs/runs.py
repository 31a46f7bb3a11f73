"""`optimize runs`, `show`, `history`, `report` and `compare`: the runs of the ledger, and text search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from agent.errors import InputError
from agent.jobs import JOBS
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.ledger.texts import TextHit
from agent.ledger.texts import search as search_texts
from agent.ledger.trail import claims
from agent.options.kinds import File
from agent.options.option import option
from agent.options.shared import JsonOption
from agent.registry import OURS
from agent.report import run_tables, trial_tables
from agent.report.blocks import Block, Column, filled, plain_section, short, table, text
from agent.report.compare import CompareResult, compared_prompt
from agent.report.compare import compare as compared
from agent.report.html import report_html, write_report
from agent.report.job_blocks import job_result, sections_of
from agent.report.run_blocks import screen_sections
from agent.report.run_list import RunsResult, listed
from agent.report.trail import TrialTrail, trial_trail
from agent.report.view import RunView
from agent.report.wording import continued, without_result
from agent.results.base import Result, absent
from agent.results.recorded import RecordedCost, RecordedPrompt, RecordedTrial, RejectedCandidate
from agent.results.run_parts import ProposalFate
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
        why = f"{row['id']}: {without_result(row)}, so there is nothing to show; {continued(row)}"
        found = StoredResult(run_id=row["id"], status=row["status"], error=row["error"], result=None)
        return Printed(found, error=InputError(why))
    result = view.result
    if result is None:
        kind = str(row["result"].get("kind"))
        own = JOBS.get(kind).results if kind in JOBS and JOBS.origin(kind) != OURS else []
        stored = own[0].from_json(row["result"]) if own else job_result(row["result"])
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
    trials = replace(trial_tables.trials(view, is_whole=True), title=f"trials of {view.id}", tabbed=True)
    proposals = run_tables.proposals(use, claims(ledger, view.id))
    rows = {"trials": ledger.trials(view.id), "rejected": ledger.rejected(view.id)}
    state = {"run_id": view.id, "status": view.run["status"], "error": view.run["error"]}
    found = HistoryResult.model_validate({**state, **rows, "proposals": use.proposals if use else ()})
    rejected = text(*(f"rejected {one.candidate_id} ({one.operator}): {one.rejected}" for one in found.rejected))
    ended = text(f"{view.id} {found.status}: {found.error}" if found.error else "")
    blocks = (trials, *filled(replace(proposals, tabbed=bool(proposals.rows))), rejected, ended)
    return Printed(found, sections=[plain_section(*blocks)])


# -- as a file, and two of them ---------------------------------------------------------------------------------------


class ReportResult(Result):
    """The file of a report, and its size."""

    run_id: str
    file: Path
    bytes: int


@job("report")
def report(
    run: str = "",
    *,
    output: File = option(
        None, "The file; - for standard output. Default: runs/RUN/report.html next to the ledger.", short="-o"
    ),
    db: Path = DB,
    form: JsonOption,
) -> Printed[ReportResult | None]:
    """Write RUN (default: the latest) as an HTML file: verdict, scores, prompt, rows, cost.

    For a comparison (`optimize customize`): advice, arms, score against cost, training losses.

    The file works offline, loads nothing and has no script. It shows rows, replies and prompts: share it with care.
    """
    to_stdout = output == Path("-")
    if to_stdout and form.as_json:
        raise InputError("-o - prints the page and --json an object; leave out one of them")
    view = RunView(open_history(db), run)
    if to_stdout:
        return Printed(None, exact=report_html(view))
    path, size = write_report(view, output)
    wrote = [] if form.as_json else [f"wrote {path}"]
    return Printed(ReportResult(run_id=view.id, file=path, bytes=size), exact="", notes=wrote)


@job("compare")
def compare(a: Annotated[str, "A"], b: Annotated[str, "B"], *, db: Path = DB) -> CompareResult:
    """Compare A and B: two runs by their winners, or two trials as RUN:NUMBER.

    Shows the options that differ, data, scores, cost and the text of both prompts. If both were scored on the same rows
    of the same data, by the same metrics and judges, B minus A is tested pairwise. A gain on dev proves nothing:
    prompts were chosen on it.
    """
    history = open_history(db)
    return compared(compared_prompt(history, a), compared_prompt(history, b))
