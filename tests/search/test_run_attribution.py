"""What a whole run prints of its winner's parts: each part that differs, and measured where it was tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import RowRefused, RunRefused
from agent.ledger.store import Ledger
from agent.optimize import Run
from agent.planning import Settings
from agent.prompt.techniques import TECHNIQUES
from agent.search.attribution import leave_one_out
from agent.types import Budget, Candidate, Request
from tests.search.worlds import good_words, proposer, pupil
from tests.toys import FakeModel, make_task

TASK = make_task(60)


def skill(front: str) -> float:
    """A wording of the proposer's and demonstrations help, each by itself."""
    return 0.15 + 0.4 * ("Say which team" in front) + 0.35 * ("train note" in front)


def unlike(winner: Candidate, baseline: Candidate) -> set[str]:
    """The parts in which two candidates differ."""
    reasoning = [TECHNIQUES[one.technique].reasoning for one in (winner, baseline)]
    fields = ("instruction", "demos", "format", "role")
    found = {field for field in fields if getattr(winner, field) != getattr(baseline, field)}
    return found | ({"technique"} if reasoning[0] != reasoning[1] else set())


async def ended(folder: Path, calls: int, seed: int) -> tuple[Run, dict[str, Any]]:
    folder.mkdir()
    ledger = Ledger(folder / "ledger.db")
    settings = Settings(seed=seed, budget=Budget(max_calls=calls), runs_folder=folder)
    run = Run(TASK, FakeModel(pupil(skill)), proposer(good_words), ledger, settings)
    try:
        return run, await run.execute()
    finally:
        ledger.close()


async def test_a_sealed_test_without_any_score_says_why(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if "test note" in request.messages[-1].content:
            raise RowRefused("the policy forbids it")
        return pupil(skill)(request)

    ledger = Ledger(tmp_path / "ledger.db")
    settings = Settings(budget=Budget(max_calls=300), runs_folder=tmp_path)
    with pytest.raises(RunRefused, match=r"no row of the sealed test got a score .*the policy forbids it"):
        await Run(TASK, FakeModel(answer), None, ledger, settings).execute()
    ledger.close()


async def test_a_run_tells_of_exactly_the_parts_that_differ_and_measures_those_it_tried(tmp_path: Path) -> None:
    hows: set[str] = set()
    for seed in range(3):
        run, result = await ended(tmp_path / str(seed), 500, seed)
        board, baseline = run.lab.board, run.lab.baseline
        winner = board.candidate(result["winner"]["candidate_id"])
        told = {row["part"]: row for row in result["attribution"]}
        assert len(told) == len(result["attribution"])
        assert told.keys() == unlike(winner, baseline)
        for ablation in leave_one_out(winner, baseline):
            row, seen = told[ablation.part], board.outcomes.get(ablation.candidate.id, [])
            low, high = row["ci95"]
            if len(seen) < len(run.lab.dev):
                assert row["rows"] == 0
                assert row["how"] != "measured"
                continue
            assert row["rows"] == len(run.lab.dev)
            assert row["how"] == ("unknown" if low <= 0 <= high else "measured")
            mine, theirs = ([o.value or 0.0 for o in board.outcomes[i]] for i in (winner.id, ablation.candidate.id))
            assert row["points"] == pytest.approx(100 * (sum(mine) - sum(theirs)) / len(mine), abs=0.01)
        hows |= {row["how"] for row in told.values()}
    assert "measured" in hows, "both parts were made to matter much"
