"""Calls side by side, until the budget ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from agent.errors import BudgetExhausted

T = TypeVar("T")


async def side_by_side(calls: Iterable[Awaitable[T]]) -> list[T | BudgetExhausted]:
    """All results, in order; BudgetExhausted in the place of a call that no longer fitted.

    Those that still fit are finished first, so that the result does not depend on the order in which calls are settled.
    Any other error cancels the rest, and is raised.
    """

    async def one(call: Awaitable[T]) -> T | BudgetExhausted:
        try:
            return await call
        except BudgetExhausted as stop:
            return stop

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results, in order. Raises the first BudgetExhausted when those that still fit are finished."""
    results: list[T] = []
    for each in await side_by_side(calls):
        if isinstance(each, BudgetExhausted):
            raise each
        results.append(each)
    return results
