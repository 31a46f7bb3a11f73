"""The checks of a released prompt over time: which there were, by version and model, and their chart and page."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.ledger.query import History
from agent.report.blocks import ChartBlock, Column, plain, table
from agent.report.html import drawn, render, style
from agent.task.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "check"
NAME_WIDTH, NAME_LINES = 60, 4
"""Letters of a line, and lines, of a name in the legend."""


COLUMNS = (
    Column("when (UTC)"),
    Column("version"),
    Column("model", "long", floor=12),
    Column("gate"),
    *(Column(name, "number") for name in ("score", "reference", "flipped")),
    Column("p", "number", on="page"),
    Column("run", on="page"),
)


@dataclass(frozen=True, slots=True)
class CheckPoint:
    """One finished check of a released prompt.

    Args:
        score, reference: mean scores in [0, 1], now and as recorded, over the rows that both have; None without any.
        flipped, rows: answers that changed, of how many.
        p_value: of so many flips by repeat noise alone.
    """

    run_id: str
    utc: str
    name: str
    version: str
    model: str
    gate: str
    score: float | None
    reference: float | None
    flipped: int
    rows: int
    p_value: float

    @property
    def series(self) -> str:
        """The prompt's version and its model, which are looked at over time."""
        return f"{self.version} on {self.model}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def checks_of(history: History, name: str, version: str = "", model: str = "") -> list[CheckPoint]:
    """The finished checks of a released prompt, the oldest first; `version`, `model`: only those of this one."""
    found = []
    for run in reversed(history.runs()):
        result = run["result"] or {}
        if run["status"] != "complete" or result.get("kind") != KIND or result.get("name") != name:
            continue
        if (not version or result["version"] == version) and (not model or result["model"] == model):
            found.append(_point(run["started_utc"], result))
    return found


def _point(utc: str, result: Mapping[str, Any]) -> CheckPoint:
    score, flips = result["score"], result["flip_test"]
    return CheckPoint(
        result["run_id"],
        utc,
        result["name"],
        result["version"],
        result["model"],
        result["gate"],
        score["now"]["mean"],
        score["was"]["mean"],
        flips["flipped"],
        result["compared"],
        flips["p_value"],
    )


def time_of(point: CheckPoint) -> datetime:
    """When a check began."""
    found = datetime.fromisoformat(point.utc)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def over_time(points: Sequence[CheckPoint]) -> Figure:
    """Scores (0 to 100) of checks against their time, a line for each version and model; a cross where the gate failed,
    and the reference of each check as a dashed line."""
    from agent.report.charts import BAD, BASE, GOOD, INK, SOFT, WIDTH, canvas, styled

    series: dict[str, list[CheckPoint]] = {}
    for point in points:
        if point.score is not None:
            series.setdefault(point.series, []).append(point)
    names = [_wrapped(name) for name in series]
    with styled():
        figure = canvas(WIDTH, 2.4 + 0.16 * sum(name.count("\n") + 1 for name in names))
        axes = figure.add_subplot()
        for name, of, colour in zip(names, series.values(), itertools.cycle((BASE, GOOD, INK, SOFT)), strict=False):
            times: list[Any] = [time_of(point) for point in of]
            scores = [100 * (point.score or 0.0) for point in of]
            axes.plot(times, scores, "o-", color=colour, markersize=4, linewidth=1, label=name)
            failed = [at for at, point in enumerate(of) if point.gate != "passed"]
            axes.plot([times[at] for at in failed], [scores[at] for at in failed], "x", color=BAD, markersize=8)
            was = [math.nan if point.reference is None else 100 * point.reference for point in of]
            axes.plot(times, was, "_--", color=colour, alpha=0.6, linewidth=1, markersize=9, drawstyle="steps-mid")
        axes.set(ylabel="score on the suite", ylim=(-2, 102))
        axes.tick_params(axis="x", rotation=30)
        if series:  # outside: a long name takes no room from the plot
            figure.legend(loc="outside upper left", fontsize=8)
        return figure


def _wrapped(name: str) -> str:
    """The name of a series in lines that the width of a chart holds, and in no more than the legend has room for."""
    return "\n".join(textwrap.wrap(plain(name), NAME_WIDTH, max_lines=NAME_LINES, placeholder=" ..."))


def checks_page(name: str, points: Sequence[CheckPoint]) -> str:
    """A page without script that shows the checks of a prompt: their chart, and a table."""
    return render("checks.html", name=name, chart=drawn(checks_chart(name, points)), style=style())


def checks_chart(name: str, points: Sequence[CheckPoint]) -> ChartBlock:
    """The chart of the checks of a prompt, and the table that all surfaces show."""
    from agent.report import facts

    rows = [
        (
            p.utc[:16].replace("T", " "),
            *(p.version, p.model, p.gate, facts.points(p.score), facts.points(p.reference)),
            *(f"{p.flipped} of {p.rows}", f"{p.p_value:.2g}", p.run_id),
        )
        for p in points
    ]
    made = table(
        f"{counted(len(points), 'check')} of {name}",
        COLUMNS,
        rows,
        explained="Dashed: the reference of each check. A cross: its gate failed; each gate is the test of its own "
        "check. p: of so many changed answers by repeat noise alone.",
    )
    return ChartBlock("checks", f"Scores of {name} over time", partial(over_time, points), made, is_open=True)
