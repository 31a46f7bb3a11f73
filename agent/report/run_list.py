"""The runs of a ledger as a list: searches and other jobs, each with how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.ledger.query import History, Row
from agent.release.result import search_result
from agent.report import facts
from agent.report.blocks import Block, Column, table, text
from agent.report.terminal import so_far, sparkline
from agent.results.base import Result, hidden

DRAWN = Column("best dev", rank=4, drawn=True)
COLUMNS = (
    Column("run"),
    Column("task", rank=1, floor=10),
    Column("model", rank=6, floor=12),
    Column("seed", rank=7),
    Column("status", rank=3),
    Column("baseline", rank=2),
    Column("winner"),
    Column("lift", gain=True),
    Column("decision", rank=5),
    DRAWN,
)


class RunsResult(Result):
    """The runs, newest first, as the ledger has them: with the scores of both prompts on the sealed test, and in words
    what `job` a run is and how it ended."""

    runs: tuple[Row, ...]
    best: Mapping[str, tuple[float, ...]] = hidden({})
    """By run the best dev score so far after each trial."""

    def blocks(self) -> Iterator[Block]:
        rows = []
        for run in self.runs:
            scores = (facts.points(run["baseline"]), facts.points(run["winner"]))
            lift = facts.gain(run["lift"]["diff"]) if run["lift"] else ""
            ended = (run["decision"], sparkline(self.best.get(run["id"], ()), len(DRAWN.name)))
            rows.append((*(run[name] for name in ("id", "task", "model", "seed", "status")), *scores, lift, *ended))
        yield table("runs", COLUMNS, rows, tabbed=True)
        yield text(*(f"{run['id']} {run['status']}: {run['error']}" for run in self.runs if run["error"]))


def listed(runs: Sequence[Row], history: History) -> RunsResult:
    """The list of these runs of the ledger."""
    best = {run_id: tuple(so_far(means)) for run_id, means in history.dev_means().items()}
    return RunsResult(runs=tuple(map(_listed, runs)), best=best)


def _listed(run: Row) -> Row:
    stored, result, command = run["result"] or {}, search_result(run["result"]), run["options"].get("command")
    return {
        **run,
        "is_search": not command and not stored.get("kind"),
        "job": str(stored.get("kind") or command or "search").replace("_", " "),
        "baseline": result.baseline.test if result else None,
        "winner": result.winner.test if result else None,
        "lift": stored["lift"] if result and not result.is_own else None,
        "decision": facts.decision(stored),
        "outcome": facts.outcome(result) if result else "",
    }
