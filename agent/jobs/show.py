"""`optimize show` and `report`: a run on the screen and as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.jobs import JOBS
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.options.kinds import File
from agent.options.option import option
from agent.options.shared import JsonOption
from agent.registry import OURS
from agent.report.blocks import plain_section, text
from agent.report.html import report_html, write_report
from agent.report.job_blocks import job_result, sections_of
from agent.report.run_blocks import screen_sections
from agent.report.view import RunView
from agent.report.wording import continued, without_result
from agent.results.base import Result, absent
from agent.results.recorded import RecordedCost, RecordedPrompt


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
        return Printed(StoredResult(result=row["result"]), sections=lambda: sections_of(stored))
    head = f"run {row['id']}  {row['task']}  {row['model']}  seed {row['seed']}  {row['started_utc'][:19]} UTC"
    parts = {name: getattr(view, name) for name in ("promoted", "winner", "baseline", "costs")}
    whole = ShowResult.model_validate({"result": result.to_json(), **parts, "plan": row["plan"]})
    return Printed(whole, sections=lambda: [plain_section(text(head, exact=True)), *screen_sections(result, view)])


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
