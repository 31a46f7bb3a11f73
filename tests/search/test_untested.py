"""A prompt that leads the user's own on dev goes to the sealed test, or the result says that it did not, and why."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from agent.ledger.store import Ledger
from agent.release.result import RunResult
from agent.report import wording
from agent.search.selection import Prefer
from tests.search.unsteady import Unsteady
from tests.toys import FakeModel, executed, launched, make_task

NOTHING = "nothing better was found"


@dataclass(frozen=True)
class Ahead:
    """A candidate that leads the user's own prompt on the dev rows that both saw."""

    candidate_id: str
    is_whole: bool


def simulated(seed: int, calls: int, prefer: Prefer = "best") -> tuple[RunResult, list[Ahead]]:
    """A whole run, and the candidates that lead the user's own prompt on dev."""
    task = make_task(60)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        launch = launched(task, FakeModel(Unsteady(seed)), seed=seed, max_calls=calls, prefer=prefer)
        try:
            run, result = asyncio.run(executed(launch, ledger))
        finally:
            ledger.close()
    trials, own, ahead = run.context.trials, run.context.baseline.id, []
    for candidate_id, trial in trials.by_id.items():
        pairs = zip(trials.outcomes.get(candidate_id, ()), trials.outcomes[own], strict=False)
        scored = [(a.value or 0.0, b.value or 0.0) for a, b in pairs if a.value is not None or b.value is not None]
        if candidate_id != own and sum(a for a, _ in scored) > sum(b for _, b in scored):
            ahead.append(Ahead(candidate_id, trial.state == "complete"))
    return result, ahead


def holds(result: RunResult, ahead: list[Ahead], prefer: Prefer = "best") -> None:
    """The user's own prompt wins only where no other that saw all of dev leads it; the verdict tells of the others."""
    if prefer == "best" and any(one.is_whole for one in ahead):
        assert not result.is_own, [one for one in ahead if one.is_whole]
    if result.is_own and ahead:
        assert result.untested is not None
        assert result.untested.candidate_id in {one.candidate_id for one in ahead}
        assert result.untested.dev > result.untested.baseline
        assert NOTHING not in wording.verdict(result)
        assert "and was not tested, because" in wording.untested(result)
    if result.is_own and not ahead:
        assert result.untested is None


@given(st.integers(0, 10_000), st.integers(30, 60), st.sampled_from(["best", "best", "short"]))
@example(3, 60, "best")  # the best is no better on the rows that the user's own saw, and another is
@profile(max_examples=3, deadline=None)
def test_no_prompt_that_leads_on_dev_is_left_untested(seed: int, tens: int, prefer: Prefer) -> None:
    holds(*simulated(seed, 10 * tens, prefer), prefer)
