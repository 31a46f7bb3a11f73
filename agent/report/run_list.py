"""The list of a ledger's runs: searches and other jobs, and how each ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.ledger.query import History, Row, is_search
from agent.release.result import search_result
from agent.report import wording
from agent.report.blocks import Block, Column, listing, text
from agent.report.terminal import sparkline
from agent.results.base import Result, hidden
from agent.results.recorded import RecordedRun
from agent.results.run_parts import Lift
from agent.stats.figures import gain, points

DRAWN = "best dev"


class ListedRun(RecordedRun):
    """A run with the test scores of its two prompts; its `job` and outcome in words."""

    is_search: bool
    job: str
    baseline: float | None
    winner: float | None
    lift: Lift | None
    decision: str
    outcome: str
    best: tuple[float, ...] = hidden(())
    """Best dev score so far, by trial."""


class RunsResult(Result):
    """The runs, newest first."""

    runs: tuple[ListedRun, ...]

    def blocks(self) -> Iterator[Block]:
        yield listing(
            "runs",
            [
                (Column("run"), "id"),
                (Column("task", rank=1, floor=10), "task"),
                (Column("model", rank=6, floor=12), "model"),
                (Column("seed", rank=7), "seed"),
                (Column("status", rank=3), "status"),
                (Column("baseline", rank=2), lambda run: points(run.baseline)),
                (Column("winner"), lambda run: points(run.winner)),
                (Column("lift", gain=True), lambda run: "" if run.lift is None else gain(run.lift.diff)),
                (Column("decision", rank=5), "decision"),
                (Column(DRAWN, rank=4, drawn=True), lambda run: sparkline(run.best, len(DRAWN))),
            ],
            self.runs,
            tabbed=True,
        )
        yield text(*(f"{run.id} {run.status}: {run.error}" for run in self.runs if run.error))


def listed(runs: Sequence[Row], history: History) -> RunsResult:
    """Return these runs of the ledger as a list."""
    means = history.dev_means()
    return RunsResult(runs=tuple(_listed(run, means.get(run["id"], [])) for run in runs))


def _listed(run: Row, means: Sequence[float | None]) -> ListedRun:
    stored, result = run["result"] or {}, search_result(run["result"])
    return ListedRun(
        **run,
        is_search=is_search(run),
        job=str(stored.get("kind") or run["options"].get("command") or "search").replace("_", " "),
        baseline=result.baseline.test if result else None,
        winner=result.winner.test if result else None,
        lift=result.lift if result and not result.is_own else None,
        decision=wording.decision(stored),
        outcome=wording.outcome(result) if result else "",
        best=tuple(_best_so_far(means)),
    )


def _best_so_far(means: Sequence[float | None]) -> Iterator[float]:
    best: float | None = None
    for mean in means:
        if mean is not None:
            best = mean if best is None else max(best, mean)
        if best is not None:  # a trial without a score changes nothing, and has its place in the curve
            yield best
