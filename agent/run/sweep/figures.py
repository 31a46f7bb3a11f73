"""What a sweep came to: scores of each cell, of each combination over its seeds, and which is best for which task.

All tests are on the sealed rows, paired by row. The gains over the user's own prompts are one family of tests, the
comparisons of combinations another for each task; both are corrected by Holm's step-down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import combinations, groupby
from typing import Any

from agent.ledger.query import released_file
from agent.release.gate import shown
from agent.release.result import RunResult, search_result
from agent.run.locations import open_history
from agent.run.sweep.cells import Cell, CellProgress, progress_of
from agent.stats.intervals import mean_ci, paired_difference
from agent.stats.selection import holm

Scores = Mapping[str, float]
"""Scores in [0, 1] by sealed row."""


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """A cell with what its ledger says. `own` and `best`: the sealed scores of the user's own prompt and of the best
    found; `rows`: the hash of the sealed rows; `usd`: what was paid, None where a price is not known."""

    cell: Cell
    progress: CellProgress
    result: RunResult | None = None
    own: Scores = field(default_factory=dict)
    best: Scores = field(default_factory=dict)
    rows: str = ""
    usd: float | None = None
    release: str = ""

    def as_dict(self, error: str = "") -> dict[str, Any]:
        """The cell, JSON-ready. `error`: why it has no result, where that is known."""
        result, point = self.result, self.cell.point
        lift = None if result is None else result.lift
        interval = mean_ci(list(self.best.values()))[1:] if self.best else None
        return {
            "cell": self.cell.name,
            **_axes(self),
            "seed": point.seed,
            "state": self.progress.state,
            "run_id": self.progress.run_id or None,
            "ledger": str(self.cell.db),
            "release": self.release or None,
            "error": (error or self.progress.error) if result is None else "",
            "baseline": None if result is None else result.baseline.test,
            "score": None if result is None else result.winner.test,
            "ci95": None if interval is None else list(interval),
            "lift": None if lift is None else {"diff": lift.diff, "ci95": list(lift.ci95), "p_value": lift.p_value},
            "decision": None if result is None else result.decision,
            "max_cost": self.cell.max_cost,
            "cost_usd": self.usd,
        }


def read_outcome(cell: Cell) -> CellOutcome:
    """What the ledger of a cell says. Raises LedgerError where it is damaged."""
    progress = progress_of(cell.db)
    if not progress.run_id or progress.state == "running":
        return CellOutcome(cell, progress)
    with closing(open_history(cell.db)) as history:
        run = history.run(progress.run_id)
        costs = [row["cost_usd"] for row in history.costs(run["id"])]
        usd = None if None in costs else sum(costs)
        result = search_result(run["result"], cell.db)
        if result is None:
            return CellOutcome(cell, progress, usd=usd)
        own = history.trials(run["id"], [0])[0]["candidate_id"]
        sides = (history.outcomes(run["id"], candidate, "test") for candidate in (own, result.winner.candidate_id))
        yours, best = ({row["example_id"]: row["value"] for row in side if row["value"] is not None} for side in sides)
        rows = str((run["hashes"] or {}).get("test", ""))
        return CellOutcome(cell, progress, result, yours, best, rows, usd, str(released_file(run, cell.db) or ""))


def _axes(outcome: CellOutcome) -> dict[str, Any]:
    point, result = outcome.cell.point, outcome.result
    return {
        "task": point.task,
        "model": point.model or (result.model if result else None),
        "strategy": point.strategy,
    }


@dataclass(frozen=True, slots=True)
class _Group:
    """The finished cells of one task, model and strategy, one for each seed."""

    axes: Mapping[str, Any]
    cells: Sequence[CellOutcome]

    @property
    def name(self) -> dict[str, Any]:
        """What tells it from the others of its task."""
        return {key: self.axes[key] for key in ("model", "strategy")}


def summary(outcomes: Sequence[CellOutcome]) -> dict[str, Any]:
    """The groups and the tasks of a sweep, JSON-ready.

    Returns:
        `groups`: by task, model and strategy, over the seeds, the score of the best found on the sealed rows with its
        95 % interval, its gain over the user's own prompt with `p_value` and `p_holm`, cost and how many cells promote.
        `tasks`: the best group of each task, which others it is shown to beat, and all comparisons.
    """
    finished = [outcome for outcome in outcomes if outcome.best]
    groups = [_Group(_axes(first), (first, *more)) for _, (first, *more) in groupby(finished, key=_axes)]
    described = [_described(group) for group in groups]
    lifts = [found["lift"] for found in described if found["lift"] is not None]
    for lift, corrected in zip(lifts, holm([lift["p_value"] for lift in lifts]), strict=True):
        lift["p_holm"], lift["shown"] = corrected, shown(lift["ci95"], corrected)
    tasks = [
        _task(task, list(both))
        for task, both in groupby(zip(groups, described, strict=True), key=lambda b: b[0].axes["task"])
    ]
    known = [outcome.usd for outcome in outcomes if outcome.progress.run_id]
    return {
        "groups": described,
        "tasks": tasks,
        "cost_usd": None if None in known else sum(usd or 0.0 for usd in known),
    }


def _mean(seeds: Sequence[Scores]) -> Scores:
    """Of each row its mean over the seeds that have it: those of a data file may each have other rows."""
    values: dict[str, list[float]] = {}
    for scores in seeds:
        for row, score in scores.items():
            values.setdefault(row, []).append(score)
    return {row: sum(each) / len(each) for row, each in values.items()}


def _described(group: _Group) -> dict[str, Any]:
    cells = group.cells
    usd = [cell.usd for cell in cells]
    own, best = (list(_mean([getattr(cell, side) for cell in cells]).values()) for side in ("own", "best"))
    mean, *interval = mean_ci(best)
    first = cells[0].result
    assert first is not None
    return {
        **group.axes,
        "seeds": [cell.cell.point.seed for cell in cells],
        "n": len(best),
        "baseline": sum(own) / len(own) if own else None,
        "score": mean,
        "ci95": interval,
        "lift": _paired([(cell.best, cell.own) for cell in cells], cells[0].cell.point.seed),
        "promoted": sum(cell.result is not None and cell.result.decision == "promote" for cell in cells),
        "cost_usd": None if None in usd else sum(each or 0.0 for each in usd),
        "instruction": first.winner.instruction,
        "technique": first.winner.technique,
        "examples": first.winner.n_examples,
        "release": cells[0].release or None,
    }


def _paired(seeds: Sequence[tuple[Scores, Scores]], seed: int) -> dict[str, Any] | None:
    """The first minus the second of each seed, over the rows that both have; None without any. `seed` is of
    the draws: that of its run, so that a single cell shows what its run says."""
    both = [({row: one[row] for row in one if row in other}, other) for one, other in seeds]
    first = _mean([one for one, _ in both])
    second = _mean([{row: other[row] for row in one} for one, other in both])
    if not first:
        return None
    test = asdict(paired_difference(list(first.values()), [second[row] for row in first], seed))
    return {**test, "ci95": list(test["ci95"])}


def _compared(one: _Group, other: _Group) -> dict[str, Any] | None:
    """Two groups of a task on the seeds that both have; None where no sealed rows are the same."""
    by_seed = {(cell.cell.point.seed, cell.rows): cell.best for cell in other.cells}
    keys = [(cell.cell.point.seed, cell.rows) for cell in one.cells]
    pairs = [(cell.best, by_seed[key]) for cell, key in zip(one.cells, keys, strict=True) if key in by_seed]
    test = _paired(pairs, one.cells[0].cell.point.seed)
    return test and {"one": one.name, "other": other.name, **test}


def _task(task: str, groups: Sequence[tuple[_Group, Mapping[str, Any]]]) -> dict[str, Any]:
    """The best group of a task, and all pairs of groups that saw the same sealed rows."""
    pairs = [test for (one, _), (other, _) in combinations(groups, 2) if (test := _compared(one, other)) is not None]
    for pair, corrected in zip(pairs, holm([pair["p_value"] for pair in pairs]), strict=True):
        pair["p_holm"], pair["shown"] = corrected, shown(pair["ci95"], corrected)
    best, described = max(groups, key=lambda group: group[1]["score"])
    beaten = [pair["other"] for pair in pairs if pair["one"] == best.name and pair["shown"] > 0]
    beaten += [pair["one"] for pair in pairs if pair["other"] == best.name and pair["shown"] < 0]
    level = [group.name for group, _ in groups if group is not best and group.name not in beaten]
    return {
        "task": task,
        "best": best.name,
        "score": described["score"],
        "beats": beaten,
        "not_shown": level,
        "pairs": pairs,
    }
