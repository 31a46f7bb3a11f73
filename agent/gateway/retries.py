"""The retry policy of model calls, and polling of a provider.

A 5xx is tried six times, not counting outages; a 429 is waited for. Attempts that may have been charged (a broken
connection, a body that is no reply) are tried three times, and only while such retries stay rare.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.errors import BadResponse, ModelError, RateLimited, Transient, TransportUnknown


class Clock:
    """Real time; limits, retries, polling and time budgets read it, so that tests can replace it."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


CLOCK = Clock()
MAX_ATTEMPTS = 6
MAX_PAID_ATTEMPTS = 3
PAID_SHARE = 0.1  # share of calls that may be retries of possibly paid attempts
PAID_FREE = 10  # always allowed
LONGEST = 20.0  # seconds


def maybe_paid(error: ModelError) -> bool:
    """Return whether the provider may have done the work and charge for it."""
    return isinstance(error, TransportUnknown | BadResponse)


class Retries:
    """Retry policy of one run; `count` is the number of retries."""

    def __init__(self, jitter: random.Random) -> None:
        self.count = 0
        self._paid = 0
        self._jitter = jitter

    def delay(self, error: ModelError, attempt: int, calls: int) -> float | None:
        """Return the seconds until the next attempt; None: give up. The backoff has full jitter (Brooker 2015)."""
        if not error.retry:
            return None
        if maybe_paid(error):
            if attempt >= MAX_PAID_ATTEMPTS or self._paid >= PAID_FREE + PAID_SHARE * calls:
                return None
            self._paid += 1
        elif isinstance(error, Transient) and attempt >= MAX_ATTEMPTS:
            return None
        self.count += 1
        if isinstance(error, RateLimited):
            return 0.0  # the limiter delays it together with all others
        return self._jitter.uniform(0.0, min(LONGEST, 0.25 * 2.0 ** min(attempt, 10)))


# -- polling a provider ----------------------------------------------------------------------------------------------

T = TypeVar("T")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two polls: they grow from the first to the longest
GROWTH = 1.5  # factor between two polling intervals
LINE_SECONDS = 300.0  # seconds between two progress lines when nothing changes


async def poll(
    ask: Callable[[], Awaitable[T]],
    pause: Callable[[float], Awaitable[None]],
    say: Callable[[str], None],
    longest_wait: float,
    first_wait: float = FIRST_WAIT,
    clock: Clock = CLOCK,
) -> T:
    """Call a provider with retries for at most `longest_wait` seconds. Raises the last ModelError."""
    wait, began = first_wait, clock.now()
    while True:
        try:
            return await ask()
        except ModelError as error:
            asked = error.retry_after or 0.0
            if not error.retry or asked > longest_wait or clock.now() - began > longest_wait:
                raise
            if wait == first_wait:
                say(f"retrying: {error}")
            await pause(max(asked, wait))
        wait = min(LONGEST_WAIT, 2 * wait)
