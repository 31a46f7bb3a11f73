"""`optimize report` and `compare`: a run as one file, and two runs or trials side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from agent.errors import InputError
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.options.kinds import File
from agent.options.option import option
from agent.options.shared import JsonOption
from agent.report.compare import CompareResult, compared_prompt
from agent.report.compare import compare as compared
from agent.report.html import report_html, write_report
from agent.report.view import RunView
from agent.results.base import Result


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
    """Write RUN (default: the latest) as one HTML file: verdict, scores, prompt, changed rows, cost, origin.

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
