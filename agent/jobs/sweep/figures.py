"""Results of a sweep: scores per cell, per group over its seeds, and the best group per task.

All tests are paired by sealed row. Gains over the user's own prompts are one family of tests, comparisons of groups
another per task; Holm's step-down corrects both.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

from agent.evaluate.score_table import ScoreTable
from agent.jobs.sweep.cells import CellOutcome, total_usd
from agent.stats.intervals import mean_ci
from agent.stats.power import shown
from agent.stats.selection import holm

SIDES = ("own", "best")


def described(outcome: CellOutcome, error: str = "") -> dict[str, Any]:
    """Return a cell, JSON-ready. `error`: why it has no result, if known."""
    cell, run, result = outcome.cell, outcome.run, outcome.result
    lift = None if result is None else result.lift
    return {
        "cell": cell.name,
        **_axes(outcome),
        "seed": cell.point.seed,
        "state": outcome.state,
        "run_id": run["id"] if run else None,
        "ledger": str(cell.db),
        "release": outcome.release or None,
        "error": (error or (run and run["error"]) or "") if result is None else "",
        "baseline": None if result is None else result.baseline.test,
        "score": None if result is None else result.winner.test,
        "ci95": list(mean_ci(list(outcome.best.values()))[1:]) if outcome.best else None,
        "lift": None if lift is None else {"diff": lift.diff, "ci95": list(lift.ci95), "p_value": lift.p_value},
        "decision": None if result is None else result.decision,
        "max_cost": cell.max_cost,
        "cost_usd": outcome.usd,
    }


def _axes(outcome: CellOutcome) -> dict[str, Any]:
    point, result = outcome.cell.point, outcome.result
    return {"task": point.task, "model": point.model or (result.model if result else None), "strategy": point.strategy}


def summary(outcomes: Sequence[CellOutcome]) -> dict[str, Any]:
    """Return `groups`, `tasks` and `cost_usd` of a `SweepResult`."""
    finished = [outcome for outcome in outcomes if outcome.best]
    groups = [tuple(cells) for _, cells in groupby(finished, key=_axes)]
    table = ScoreTable({f"{side} {at}": _scores(cells, side) for at, cells in enumerate(groups) for side in SIDES})
    found = [_group(cells, table, at) for at, cells in enumerate(groups)]
    _correct([group["lift"] for group in found if group["lift"] is not None])
    tasks = [_task(task, list(same), table) for task, same in groupby(enumerate(found), key=lambda e: e[1]["task"])]
    return {"groups": found, "tasks": tasks, "cost_usd": total_usd(outcome.usd for outcome in outcomes if outcome.run)}


def _scores(cells: Sequence[CellOutcome], side: str) -> dict[tuple[str, Hashable], float]:
    return {
        (row, (cell.cell.point.seed, cell.rows)): score for cell in cells for row, score in getattr(cell, side).items()
    }


def _correct(tests: Sequence[dict[str, Any]]) -> None:
    for test, corrected in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test["p_holm"], test["shown"] = corrected, shown(test["ci95"], corrected)


def _group(cells: Sequence[CellOutcome], table: ScoreTable, at: int) -> dict[str, Any]:
    first, best = cells[0].result, table.mean(f"best {at}")
    assert first is not None
    return {
        **_axes(cells[0]),
        "seeds": [cell.cell.point.seed for cell in cells],
        "n": best.n,
        "baseline": table.mean(f"own {at}").mean,
        "score": best.mean,
        "ci95": list(best.ci95 or ()),
        "lift": _paired(table, f"best {at}", f"own {at}", cells[0].cell.point.seed),
        "promoted": sum(cell.result is not None and cell.result.decision == "promote" for cell in cells),
        "cost_usd": total_usd(cell.usd for cell in cells),
        "instruction": first.winner.instruction,
        "technique": first.winner.technique,
        "examples": first.winner.n_examples,
        "release": cells[0].release or None,
    }


def _paired(table: ScoreTable, arm: str, other: str, seed: int) -> dict[str, Any] | None:
    test = table.paired(arm, other, seed)
    return None if test is None else test.to_json()


def _task(task: str, groups: Sequence[tuple[int, Mapping[str, Any]]], table: ScoreTable) -> dict[str, Any]:
    names = {at: {key: group[key] for key in ("model", "strategy")} for at, group in groups}
    pairs = []
    for (one, group), (other, _) in combinations(groups, 2):
        if test := _paired(table, f"best {one}", f"best {other}", group["seeds"][0]):
            pairs.append({"one": names[one], "other": names[other], **test})
    _correct(pairs)
    best, group = max(groups, key=lambda group: group[1]["score"])
    mine = names[best]
    beaten = [pair["other"] for pair in pairs if pair["one"] == mine and pair["shown"] > 0]
    beaten += [pair["one"] for pair in pairs if pair["other"] == mine and pair["shown"] < 0]
    return {
        "task": task,
        "best": mine,
        "score": group["score"],
        "beats": beaten,
        "not_shown": [name for at, name in names.items() if at != best and name not in beaten],
        "pairs": pairs,
    }
