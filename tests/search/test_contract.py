"""One contract for all strategies: none passes the cap, ties keep your prompt, a resumed run ends the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Interrupted
from agent.jobs.optimize import RunState
from agent.ledger.store import Ledger
from agent.release.result import RunResult
from agent.search.registered import DEFAULT, DSPY, STRATEGIES
from agent.types import Request
from tests.search.dspy.test_strategies import pupil as dspy_pupil
from tests.search.worlds import TASK, good_words, pupil, share
from tests.toys import FakeModel, launched

CALLS = 300
Answer = Callable[[Request], str]


def of_dspy(request: Request) -> str:
    """The user's own prompt has none of DSPy's headings."""
    if "[[ ##" not in "".join(each.content for each in request.messages):
        return pupil()(request)
    return dspy_pupil([{"role": each.role, "content": each.content} for each in request.messages], {})


def author(request: Request) -> str:
    return good_words(int(100 * share(request.messages[-1].content)))


SCRIPTS: dict[str, tuple[Answer, Answer]] = {
    DEFAULT: (pupil(), author),
    **dict.fromkeys(DSPY, (of_dspy, of_dspy)),
}
"""What the target and the proposer of each strategy say, by the request alone."""


class Run:
    """A whole run of a strategy; `stops_at`: the call at which it is interrupted."""

    def __init__(self, name: str, ledger: Ledger, target: Answer, author: Answer, run_id: str = "") -> None:
        self.sent: list[Request] = []
        self.stops_at = 10**9
        self.models = [FakeModel(self._counted(answer), f"fake/{at}") for at, answer in enumerate((target, author))]
        launch = launched(TASK, *self.models, strategy=name, max_calls=CALLS, seed=3)
        self.state = RunState.of(replace(launch, run_id=run_id))
        self._session = self.state.open(ledger)

    def _counted(self, answer: Answer) -> Answer:
        def counted(request: Request) -> str:
            self.sent.append(request)
            if len(self.sent) == self.stops_at:
                self._session.interrupt()
            return answer(request)

        return counted

    async def result(self) -> RunResult:
        return await self._session.execute()

    def trial_lines(self) -> list[object]:
        return [(t.number, i, t.state, t.n, t.mean) for i, t in self.state.context.trials.by_id.items()]


def test_every_strategy_is_held_to_it() -> None:
    assert {*SCRIPTS} == {*STRATEGIES.names()}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_run_stays_below_its_cap_and_ends_the_same_after_an_interrupt(name: str, tmp_path: Path) -> None:
    with contextlib.closing(Ledger(tmp_path / "whole.db")) as ledger:
        whole = Run(name, ledger, *SCRIPTS[name])
        expected = await whole.result()
    assert len(whole.sent) <= CALLS
    assert len(whole.trial_lines()) > 1
    with contextlib.closing(Ledger(tmp_path / "parts.db")) as ledger:
        first = Run(name, ledger, *SCRIPTS[name])
        first.stops_at = len(whole.sent) // 2
        with pytest.raises(Interrupted):
            await first.result()
        second = Run(name, ledger, *SCRIPTS[name], first.state.session.spec.run_id)
        found = await second.result()
    assert second.trial_lines() == whole.trial_lines()
    assert (found.winner.candidate_id, found.winner.test) == (expected.winner.candidate_id, expected.winner.test)
    assert len(first.sent) + len(second.sent) == len(whole.sent), "nothing is bought twice"


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_tie_keeps_the_users_own_prompt(name: str, tmp_path: Path) -> None:
    """Whatever the prompt, the model names one team."""

    def same(request: Request) -> str:
        said = SCRIPTS[name][0](request)
        if said.startswith("[[ ## team") or said == "no idea":
            return "[[ ## team ## ]]\nbilling\n\n[[ ## completed ## ]]"
        return said if said.startswith("[[") else "billing"

    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        run = Run(name, ledger, same, SCRIPTS[name][1])
        result = await run.result()
    assert result.is_own
    assert result.decision == "keep_baseline"
