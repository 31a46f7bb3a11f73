"""The report of a run as a page: what `optimize report` writes to a file, without its style element."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.report.html import Chart, report_values
from agent.report.view import RunView
from agent.report.web.drawing import CHART, without_style
from agent.report.web.page_request import PageRequest


def report(request: PageRequest) -> dict[str, Any]:
    """The run and its result. Raises InputError for a run that is no search."""
    run = request.history.search(request.names["run"])
    return {
        "run": {name: run[name] for name in ("id", "task", "model", "started_utc", "status")},
        "result": run["result"],
    }


def drawn(request: PageRequest) -> dict[str, Any]:
    """What report_body.html shows, its charts without what the page's policy refuses."""
    from markupsafe import Markup

    with CHART:
        values = report_values(RunView(request.history, request.names["run"]))
    own = {
        name: replace(value, svg=Markup(without_style(value.svg)))
        for name, value in values.items()
        if isinstance(value, Chart)
    }
    return {**values, **own}
