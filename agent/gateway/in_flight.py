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
    """Unanswered calls, the `oldest` sent that many seconds ago.

    `outage` names a model whose provider does not answer, why, and until when it is retried.
    """

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
    """A call in flight: its model, whether it was sent or cancelled, and how many tasks wait for it.

    `since` is when its attempt was sent (monotonic seconds), also for a model in this process, whose calls can still be
    cancelled; None between attempts.
    """

    model: str
    task: asyncio.Task[Completion] | None = None
    sent: bool = False
    since: float | None = None
    cancelled: bool = False
    waiting: int = 0

    def cancel(self) -> None:
        """Cancel the call unless it was sent; only once, so that recording it as not sent is not interrupted."""
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
    """Run calls in parallel; return results in order, BudgetExhausted for calls that did not fit.

    Any other error cancels the rest and is raised.
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
    """Run calls in parallel; raise the first BudgetExhausted after the others have finished."""
    results: list[T] = []
    for each in await side_by_side(calls):
        if isinstance(each, BudgetExhausted):
            raise each
        results.append(each)
    return results
