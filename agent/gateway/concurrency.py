"""Calls side by side, until the budget ends. Knows no call: whatever can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from agent.errors import BudgetExhausted

T = TypeVar("T")


async def side_by_side(asked: Iterable[Awaitable[T]]) -> list[T | BudgetExhausted]:
    """All of them, in order; BudgetExhausted in the place of one that no longer fitted.

    Those that still fit are finished first: what is known at the end then depends on the calls that were settled and
    not on the order in which they came. Any other error calls the rest off, and is raised.
    """

    async def one(question: Awaitable[T]) -> T | BudgetExhausted:
        try:
            return await question
        except BudgetExhausted as stop:
            return stop

    tasks = [asyncio.ensure_future(one(question)) for question in asked]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def all_of(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All of them, in order. Raises the first BudgetExhausted when those that still fit are finished."""
    results: list[T] = []
    for each in await side_by_side(asked):
        if isinstance(each, BudgetExhausted):
            raise each
        results.append(each)
    return results
