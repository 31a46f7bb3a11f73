"""Side by side: the order of asking, what no longer fits, and what calls the rest off."""

from __future__ import annotations

import asyncio

import pytest

from agent.errors import BudgetExhausted, RunRefused
from agent.gateway.in_flight import all_of, side_by_side

done: list[int] = []


async def answer(number: int, seconds: float = 0.0, error: Exception | None = None) -> int:
    await asyncio.sleep(seconds)
    if error:
        raise error
    done.append(number)
    return number


async def test_answers_come_in_the_order_of_asking() -> None:
    assert await all_of(answer(n, seconds=0.01 * (3 - n)) for n in range(3)) == [0, 1, 2]
    assert await all_of([]) == []


async def test_what_still_fits_is_finished_before_the_end_of_the_budget_is_raised() -> None:
    done.clear()
    stop = BudgetExhausted("no more")
    found = await side_by_side([answer(0, error=stop), answer(1, seconds=0.01)])
    assert found == [stop, 1]
    with pytest.raises(BudgetExhausted, match="no more"):
        await all_of([answer(0, error=stop), answer(2, seconds=0.01)])
    assert done == [1, 2]


async def test_any_other_error_calls_the_rest_off() -> None:
    done.clear()
    with pytest.raises(RunRefused):
        await all_of([answer(0, seconds=0.02), answer(1, error=RunRefused("bad key"))])
    await asyncio.sleep(0.04)
    assert done == []
