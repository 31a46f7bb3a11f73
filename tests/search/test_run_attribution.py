"""What a whole run prints of its winner's parts: each part that differs, and measured where it was tried."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from agent.errors import RowRefused, RunRefused
from agent.jobs.optimize import RunState
from agent.ledger.store import Ledger
from agent.release.result import RunResult
from agent.report import wording
from agent.search.selection import corrected, uncorrected
from agent.types import Request
from tests.search.worlds import good_words, proposer, pupil
from tests.toys import FakeModel, executed, launched, make_task

TASK = make_task(60)


def skill(front: str) -> float:
    """A wording of the proposer's and demonstrations help, each by itself."""
    return 0.15 + 0.4 * ("Say which team" in front) + 0.35 * ("train note" in front)


async def ended(folder: Path, calls: int, seed: int) -> tuple[RunState, RunResult]:
    folder.mkdir()
    ledger = Ledger(folder / "ledger.db")
    launch = launched(TASK, FakeModel(pupil(skill)), proposer(good_words), seed=seed, max_calls=calls)
    try:
        return await executed(launch, ledger)
    finally:
        ledger.close()


async def test_a_sealed_test_without_any_score_says_why(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if "test note" in request.messages[-1].content:
            raise RowRefused("the policy forbids it")
        return pupil(skill)(request)

    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(RunRefused, match=r"no row of the sealed test got a score .*the policy forbids it"):
        await executed(launched(TASK, FakeModel(answer), max_calls=300), ledger)
    ledger.close()


async def test_a_search_that_dropped_programs_by_parts_of_dev_has_no_corrected_figure_and_says_why(
    tmp_path: Path,
) -> None:
    run, result = await ended(tmp_path / "plain", 500, 0)
    assert (result.winner.dev_corrected is None, result.uncorrected, wording.uncorrected(result)) == (
        False,
        "",
        "",
    )
    run.context.pruned_externally = True
    winner = run.context.trials.candidate(result.winner.candidate_id)
    assert corrected(run.context, winner, "evolve") is None
    why = uncorrected(run.context, winner, "evolve")
    assert why == "evolve dropped programs by parts of dev, and what that adds is not known"
    assert (
        wording.uncorrected(result.model_copy(update={"uncorrected": why})) == f"the dev score is not corrected: {why}"
    )
    own = partial(uncorrected, run.context, run.context.baseline, "evolve")
    assert own() == "the best found was chosen by another rule than the best on dev"
    run.context.note("picks_not_proved", {"candidate_id": winner.id, "against": run.context.baseline.id})
    assert own().startswith("a prompt that picks its examples scored higher on dev")
