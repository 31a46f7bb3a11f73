"""Checks of a released prompt over time, by version and model, with their chart and page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from agent.ledger.query import History
from agent.report import charts
from agent.report.blocks import Block, ChartBlock, Column, PageCell, PageSection, listing, text
from agent.report.html import standalone
from agent.results.base import Result
from agent.safe_text import counted
from agent.stats import figures

KIND = "check"


class CheckPoint(Result):
    """One finished check of a released prompt: mean scores in [0, 1], now and recorded, and the flips of all compared
    `rows`.

    `p_value`: probability of this many flips by repeat noise.
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
        """Version and model, which make one series."""
        return f"{self.version} on {self.model}"

    @property
    def began(self) -> datetime:
        found = datetime.fromisoformat(self.utc)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


class ChecksResult(Result):
    """The finished checks of a released prompt, oldest first."""

    name: str
    checks: tuple[CheckPoint, ...]

    def blocks(self) -> Iterator[Block]:
        if self.checks:
            yield checks_chart(self.name, self.checks)


class CheckNotDue(Result):
    """A check that was skipped because the last one is recent."""

    kind: Literal["check"] = "check"
    skipped: Literal[True] = True
    due_utc: str
    last: CheckPoint

    def blocks(self) -> Iterator[Block]:
        last = self.last
        yield text(f"{last.series}: checked at {last.utc[:16]} ({last.gate}), next check due at {self.due_utc}")


def checks_of(history: History, name: str, version: str = "", model: str = "") -> list[CheckPoint]:
    """Return the finished checks of a released prompt, oldest first, filtered by `version` and `model`."""
    found = []
    for run in reversed(history.runs()):
        result = run["result"] or {}
        if run["status"] != "complete" or result.get("kind") != KIND or result.get("name") != name:
            continue
        if (not version or result["version"] == version) and (not model or result["model"] == model):
            score, flips = result["score"], result["flip_test"]
            point = CheckPoint(
                **{name: result[name] for name in ("run_id", "name", "version", "model", "gate")},
                utc=run["started_utc"],
                score=score["now"]["mean"],
                reference=score["was"]["mean"],
                flipped=flips["flipped"],
                rows=result["compared"],
                p_value=flips["p_value"],
            )
            found.append(point)
    return found


def checks_page(name: str, points: Sequence[CheckPoint]) -> str:
    """Return a page without scripts that shows the checks of a prompt."""
    section = PageSection("checks", "Checks", (checks_chart(name, points),))
    return standalone(f"{name}: checks", "Checks over time", name, [section])


def checks_chart(name: str, points: Sequence[CheckPoint], address: str = "") -> ChartBlock:
    """Return the chart and the table of the checks of a prompt. `address`: prefix of links to runs, "" for none."""

    made = listing(
        f"{counted(len(points), 'check')} of {name}",
        [
            (Column("when (UTC)"), lambda point: point.utc[:16].replace("T", " ")),
            (Column("version"), lambda point: point.version),
            (Column("model", "long", floor=12), lambda point: point.model),
            (Column("gate"), lambda point: PageCell(point.gate, tag="good" if point.gate == "passed" else "bad")),
            ("score #", lambda point: figures.points(point.score)),
            ("reference #", lambda point: figures.points(point.reference)),
            ("flipped #", lambda point: f"{point.flipped} of {point.rows}"),
            (Column("p", "number", on="page"), lambda point: f"{point.p_value:.2g}"),
            (
                Column("run", on="page"),
                lambda point: PageCell(point.run_id, f"{address}{point.run_id}" if address else ""),
            ),
        ],
        points,
        tabbed=True,
        explained="Dashed: the reference. Cross: the gate failed. p: probability of the flips by repeat noise.",
    )
    return ChartBlock("checks", f"Scores of {name} over time", partial(charts.over_time, points), made, is_open=True)
