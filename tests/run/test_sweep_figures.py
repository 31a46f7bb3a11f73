"""What a sweep is summed up to: seeds row by row, and tests that are corrected for all of their family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.sweep.cells import Cell, CellOutcome
from agent.jobs.sweep.figures import summary
from agent.jobs.sweep.file import Point
from agent.release.result import RunResult
from agent.stats.intervals import mean_ci, paired_difference
from agent.stats.selection import holm


def result(model: str) -> RunResult:
    """A result of which a summary reads the winner's words and the decision."""
    found: dict[str, Any] = {
        "run_id": "r",
        "task": "t",
        "status": "complete",
        "model": model,
        "seed": 0,
        "baseline": {"dev": 0.5, "test": 0.5},
        "winner": {
            "candidate_id": "c",
            "technique": "zero-shot",
            "format": "turns",
            "n_examples": 0,
            "instruction": "Say it.",
            "dev": 0.5,
            "dev_corrected": None,
            "test": 0.5,
            "prompt_tokens": 3,
        },
        "lift": {"diff": 0.0, "ci95": [0, 0], "p_value": 1.0, "wins": 0, "losses": 0, "ties": 1, "n": 1},
        "decision": "promote",
        "trials": {"complete": 2},
        "calls": {"model": 1, "cached": 0},
        "tokens": {"prompt": 1, "completion": 1},
        "cost_usd": 0.25,
        "seconds": 1.0,
        "release": "r/prompt.md",
        "ledger_head": "h",
    }
    return RunResult.from_json({**found, "ledger": Path("x.db")})


def outcome(task: str, model: str, seed: int, rate: float, rows: range = range(80), digest: str = "h") -> CellOutcome:
    rng = random.Random(f"{task} {model} {seed}")
    best = {f"r{row}": float(rng.random() < rate) for row in rows}
    own = {f"r{row}": float(rng.random() < 0.5) for row in rows}
    cell = Cell(f"{task}.{model}.{seed}", Point(task, model, None, seed), {}, Path("x.db"))
    return CellOutcome(cell, "finished", {"id": "r"}, result(model), own, best, digest, 0.25)


def test_gains_are_one_family_and_pairs_of_a_task_another() -> None:
    cells = [outcome(task, model, 0, rate) for task in "pq" for model, rate in (("a", 0.95), ("b", 0.7), ("c", 0.5))]
    found = summary(cells)
    lifts = [group["lift"] for group in found["groups"]]
    by_hand = [paired_difference(list(cell.best.values()), list(cell.own.values()), 0) for cell in cells]
    assert [lift["p_value"] for lift in lifts] == [test.p_value for test in by_hand]
    assert [lift["p_holm"] for lift in lifts] == holm([test.p_value for test in by_hand])
    assert found["groups"][0]["score"] == mean_ci(list(cells[0].best.values()))[0]
    for task, own in zip(found["tasks"], (cells[:3], cells[3:]), strict=True):
        pairs = [(own[0], own[1]), (own[0], own[2]), (own[1], own[2])]
        tests = [paired_difference(list(a.best.values()), list(b.best.values()), 0).p_value for a, b in pairs]
        assert [pair["p_holm"] for pair in task["pairs"]] == holm(tests)
        assert task["best"]["model"] == "a"
        assert {each["model"] for each in [*task["beats"], *task["not_shown"]]} == {"b", "c"}
        assert {"model": "c", "strategy": None} in task["beats"]
    assert found["cost_usd"] == pytest.approx(1.5)


def test_seeds_count_row_by_row_also_where_each_has_rows_of_its_own() -> None:
    same = [outcome("t", "a", seed, 0.8) for seed in (0, 1)]
    (group,) = summary(same)["groups"]
    means = [(same[0].best[row] + same[1].best[row]) / 2 for row in same[0].best]
    assert (group["n"], group["score"]) == (80, pytest.approx(sum(means) / 80))
    assert group["ci95"] == pytest.approx(list(mean_ci(means)[1:]))
    other = [same[0], outcome("t", "a", 1, 0.8, range(40, 120), "i")]
    (group,) = summary(other)["groups"]
    assert (group["n"], group["lift"]["n"], group["seeds"]) == (120, 120, [0, 1])


def test_groups_are_compared_on_the_same_sealed_rows_alone() -> None:
    cells = [outcome("t", "a", 0, 0.9), outcome("t", "b", 0, 0.1, digest="changed")]
    (task,) = summary(cells)["tasks"]
    assert task["pairs"] == []
    assert [each["model"] for each in task["not_shown"]] == ["b"]
