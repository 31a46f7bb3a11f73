"""The checks of a released prompt over time as a page: what `optimize check --history --page` writes to a file."""

from __future__ import annotations

from typing import Any

from agent.errors import InputError
from agent.report.checks import CheckPoint, checks_chart, checks_of
from agent.report.html import DrawnChart
from agent.report.html import drawn as drawn_chart
from agent.report.web.drawing import CHART, bare
from agent.report.web.page_request import PageRequest


def checks(request: PageRequest) -> dict[str, Any]:
    """The finished checks of the prompt that the address names. Raises InputError without one."""
    name = request.names["name"]
    points = checks_named(request, name)
    if not points:
        raise InputError(f"{name}: no finished check of a prompt of this name; `optimize check PROMPT` makes one")
    return {"name": name, "checks": [point.as_dict() for point in points]}


def drawn(request: PageRequest) -> dict[str, Any]:
    """The chart of these checks, without what the page's policy refuses."""
    name = request.names["name"]

    def draw() -> DrawnChart:
        with CHART:
            return bare(drawn_chart(checks_chart(name, checks_named(request, name))))

    return {"chart": request.cached("checks chart", name, draw)}


def checks_named(request: PageRequest, name: str) -> list[CheckPoint]:
    """The finished checks of a prompt, the oldest first."""
    return request.cached("checks", name, lambda: checks_of(request.history, name))
