"""Calls in flight: each of them, and what a run waits for at a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agent.types import LM, CallRole, Completion, Request, Spend


@dataclass(frozen=True, slots=True)
class InFlight:
    """The calls that were sent and are not answered.

    Args:
        oldest: seconds since the first of them was sent, at least 0.
        outage: the model whose provider does not answer, why, and for how long it is tried; "" where all answer.
    """

    calls: int = 0
    models: tuple[str, ...] = ()
    oldest: float = 0.0
    outage: str = ""


def in_flight(sent: Sequence[tuple[str, float]], now: float, outage: str) -> InFlight:
    """The calls in flight, from their models and the times at which they were sent (monotonic, in seconds)."""
    models = tuple(sorted({model for model, _ in sent}))
    return InFlight(len(sent), models, max((now - since for _, since in sent), default=0.0), outage)


@dataclass(slots=True, eq=False)
class Flight:
    """A call in flight: its model, whether it was sent or cancelled, and how many tasks wait for it.

    `since` is when its attempt went out (monotonic, in seconds), also that of a model in this process, which may be
    cancelled all the same; None between attempts.
    """

    model: str
    task: asyncio.Task[Completion] | None = None
    sent: bool = False
    since: float | None = None
    cancelled: bool = False
    waiting: int = 0

    def cancel(self) -> None:
        """Cancels the call unless it was sent; once only, as the record that it was not sent must not be cut short."""
        if self.task is not None and not self.sent and not self.cancelled:
            self.cancelled = True
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call to send, with the most that it should cost; `turn` numbers the calls of its model."""

    role: CallRole
    lm: LM
    request: Request
    key: str
    candidate_id: str
    worst: Spend
    turn: int
