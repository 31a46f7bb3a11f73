"""Arms on rows: asked in order, compared by row, and left out where the budget ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from agent.errors import BudgetExhausted
from agent.evaluate.evaluator import Evaluator
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import baseline
from agent.scoring.task_metrics import build_metrics
from agent.types import Budget, Request
from tests.toys import FakeModel, make_task

TASK = make_task(6)


def right(request: Request) -> str:
    """The team that the message names."""
    return request.messages[-1].content.split(" on ")[1].split()[0]


class Asking:
    """A session of two models."""

    def __init__(self, ledger: Ledger, budget: Budget | None = None) -> None:
        self.stopped = ""
        self.gateway = Gateway(ledger, "run-1", Account(budget or Budget()), {})
        models = {"knows": FakeModel(right), "guesses": FakeModel(lambda request: "billing", "fake/guesses")}
        self.arms = [Arm(name, baseline(TASK), self._evaluator(lm)) for name, lm in models.items()]

    def _evaluator(self, lm: FakeModel) -> Evaluator:
        return Evaluator(TASK, self.gateway, lm, build_metrics(TASK), [PromptProgram(TASK, lm)])

    async def ahead(self, sets: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Calls are asked live here."""


async def test_arms_are_compared_on_the_same_rows(ledger: Ledger) -> None:
    asking = Asking(ledger)
    table = await score(asking, asking.arms, TASK.dev, repeats=2)
    assert table.values("knows") == [1.0] * 6
    assert table.mean("guesses").mean == pytest.approx(2 / 6)
    paired = table.paired("knows", "guesses", seed=0)
    assert paired is not None
    assert (paired.diff, paired.n) == (pytest.approx(4 / 6), 6)
    answers = table.answers("guesses")
    assert [[one.example_id for one in row] for row in answers.values()] == [[row.id, row.id] for row in TASK.dev]


async def test_an_arm_that_the_budget_does_not_pay_is_left_out(ledger: Ledger) -> None:
    asking = Asking(ledger, Budget(max_calls=8))
    table = await score(asking, asking.arms, TASK.dev, is_partial=True)
    assert table.values("knows") == [1.0] * 6
    assert table.values("guesses") == table.first("guesses") == []
    assert table.answers("guesses") == {}
    assert table.paired("knows", "guesses", seed=0) is None
    assert "max_calls = 8" in asking.stopped
    with pytest.raises(BudgetExhausted):
        await score(asking, asking.arms, TASK.dev)


def test_a_row_counts_with_the_mean_of_its_scored_repeats() -> None:
    table = ScoreTable({"a": {("1", 0): 1.0, ("1", 1): 0.0, ("2", 0): None, ("2", 1): None}})
    assert table.values("a") == [0.5, None]
    assert (table.mean("a").mean, table.mean("a").unscored) == (0.5, 1)


async def test_what_two_arms_ask_alike_goes_into_a_batch_once(ledger: Ledger) -> None:
    asking = Asking(ledger)
    knows = asking.arms[0]
    begun: list[int] = []

    async def ahead(sets: Sequence[Callable[[], Awaitable[object]]]) -> None:
        begun.append(len(sets))
        await asyncio.gather(*(each() for each in sets))

    asking.ahead = ahead  # type: ignore[method-assign]
    again = Arm("again", knows.candidate, knows.evaluator, TASK.dev[:2], 2)
    table = await score(asking, [knows, again], TASK.dev)
    assert begun == [2], "all rows, and the second time of the first two"
    assert asking.gateway.account.total_used.calls == 6 + 2
    assert [len(each) for each in table.passes("again")] == [2, 2]
