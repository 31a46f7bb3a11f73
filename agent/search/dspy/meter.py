"""A gateway for an optimizer that counts no calls itself: each different call once, and no more than there is room for.

Optimizers ask the same again and again, from many threads. Here the second asking costs nothing and is not counted, so
that what is left depends on what was asked and not on who was first; and what was answered can be taken from `known`.
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
    """`room()` says how many calls may still be used, those in flight among them; one more raises BudgetExhausted."""

    def __init__(self, gateway: Gateway) -> None:
        self.room: Callable[[], int] = unlimited
        self._gateway = gateway
        self._asked: dict[str, asyncio.Task[Completion]] = {}
        self._flying = 0

    @property
    def stopped(self) -> Exception | None:
        return self._gateway.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        """The reply, or what the gateway raised for this call when it was first asked."""
        key = call_key(lm, request)
        if key not in self._asked:
            if self.room() <= self._flying:
                raise BudgetExhausted("the optimizer has used its share of the calls")
            self._flying += 1
            buying = self._gateway.complete(role, lm, request, candidate_id)
            self._asked[key] = task = asyncio.get_running_loop().create_task(buying)
            task.add_done_callback(self._landed)
        return await asyncio.shield(self._asked[key])

    def _landed(self, task: asyncio.Task[Completion]) -> None:
        self._flying -= 1
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits any more

    def known(self, lm: LM, request: Request) -> Completion | None:
        """The reply to a call that was asked here and answered."""
        task = self._asked.get(call_key(lm, request))
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def settle(self) -> None:
        """Waits until everything that was asked has landed."""
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
