"""Calls in flight, and running calls in parallel until the budget ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.errors import BudgetExhausted
from agent.types import LM, CallRole, Completion, Request, Spend


@dataclass(frozen=True, slots=True)
class InFlight:
    """Unanswered calls, the `oldest` sent that many seconds ago; `outage`: a silent model, why, and until when."""

    calls: int = 0
    models: tuple[str, ...] = ()
    oldest: float = 0.0
    outage: str = ""


def in_flight(sent: Sequence[tuple[str, float]], now: float, outage: str) -> InFlight:
    """Summarize the calls in flight from pairs of model and sending time (monotonic seconds)."""
    models = tuple(sorted({model for model, _ in sent}))
    return InFlight(len(sent), models, max((now - since for _, since in sent), default=0.0), outage)


@dataclass(slots=True, eq=False)
class Flight:
    """A call in flight and the number of tasks that wait for it.

    A call to a model in this process is never `sent`, as it can be cancelled; `since` is the start of its attempt.
    """

    model: str
    task: asyncio.Task[Completion] | None = None
    sent: bool = False
    since: float | None = None
    cancelled: bool = False
    waiting: int = 0

    def cancel(self) -> None:
        """Cancel the call once, unless it was sent. A second cancel would interrupt recording it as not sent."""
        if self.task is not None and not self.sent and not self.cancelled:
            self.cancelled = True
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call to send with its worst-case cost; `turn` numbers the calls of its model."""

    role: CallRole
    lm: LM
    request: Request
    key: str
    candidate_id: str
    worst: Spend
    turn: int


T = TypeVar("T")


async def side_by_side(calls: Iterable[Awaitable[T]]) -> list[T | BudgetExhausted]:
    """Return results in order. Calls that did not fit give BudgetExhausted; other errors cancel the rest."""

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
    """Run calls in parallel; raise the first BudgetExhausted after the others have finished."""
    results: list[T] = []
    for each in await side_by_side(calls):
        if isinstance(each, BudgetExhausted):
            raise each
        results.append(each)
    return results
