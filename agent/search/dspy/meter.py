"""A client for an optimizer that counts no calls itself: each different call once, and no more than there is room for.

Optimizers repeat calls, from many threads. Here a repeated call costs nothing and is not counted, so that what is left
depends on the set of calls and not on their order.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from agent.errors import BudgetExhausted
from agent.gateway.gateway import Gateway, call_key
from agent.types import LM, CallRole, Completion, Request


def unlimited() -> int:
    """Room for any call; the gateway's own caps still hold."""
    return sys.maxsize


class Meter:
    """A `ModelClient`. `room()` gives the calls that may still be used, those in flight among them; one more raises
    BudgetExhausted."""

    def __init__(self, gateway: Gateway) -> None:
        self.room: Callable[[], int] = unlimited
        self._gateway = gateway
        self._calls: dict[str, asyncio.Task[Completion]] = {}
        self._in_flight = 0

    @property
    def stopped(self) -> Exception | None:
        """The gateway's."""
        return self._gateway.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        """The reply, or what the gateway raised when this call was first made."""
        key = call_key(lm, request)
        if key not in self._calls:
            if self.room() <= self._in_flight:
                raise BudgetExhausted("the optimizer has used its share of the calls")
            self._in_flight += 1
            call = self._gateway.complete(role, lm, request, candidate_id)
            self._calls[key] = task = asyncio.get_running_loop().create_task(call)
            task.add_done_callback(self._ended)
        return await asyncio.shield(self._calls[key])

    def _ended(self, task: asyncio.Task[Completion]) -> None:
        self._in_flight -= 1
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio warns when nothing waits for it any more

    def reply(self, lm: LM, request: Request) -> Completion | None:
        """The reply to a call that was made here and answered; else None."""
        task = self._calls.get(call_key(lm, request))
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def settle(self) -> None:
        """Waits until every call has ended."""
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
