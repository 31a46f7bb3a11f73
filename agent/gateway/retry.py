"""Whether a failed attempt is made again, and after how long.

A 5xx costs nothing and is tried six times, not counting the time when the provider is down for all calls; a 429 is
waited for. What may have been paid for (a broken connection, a body that is no reply) is tried three times, and only
while such retries stay a small part of the traffic. Neither uses up the other.

What runs at a provider (a batch, a training) is asked about again until it answers or a deadline has passed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.errors import BadResponse, ModelError, RateLimited, Transient, TransportUnknown

MAX_ATTEMPTS = 6
MAX_PAID_ATTEMPTS = 3
PAID_SHARE = 0.1  # of the calls so far, that may be retries of what was perhaps paid for
PAID_FREE = 10  # such retries that are always allowed
LONGEST = 20.0  # seconds


def maybe_paid(error: ModelError) -> bool:
    """Whether the provider may have done the work, and so charge for it."""
    return isinstance(error, TransportUnknown | BadResponse)


class Retries:
    """The retry policy of one run; `count` is how many retries there were."""

    def __init__(self, jitter: random.Random) -> None:
        self.count = 0
        self._paid = 0
        self._jitter = jitter

    def delay(self, error: ModelError, attempt: int, calls: int) -> float | None:
        """Seconds until the next attempt after failure number `attempt` of this kind, or None to give up.

        `calls` are those of the run so far. Source: full jitter over an exponential ceiling (Brooker 2015).
        """
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
            return 0.0  # the limiter holds it back, and all others with it
        return self._jitter.uniform(0.0, min(LONGEST, 0.25 * 2.0 ** min(attempt, 10)))


# -- what runs at a provider ------------------------------------------------------------------------------------------

T = TypeVar("T")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two looks at what runs at a provider: they grow from the first to the longest."""
GROWTH = 1.5
"""Of the time between two looks."""
LINE_SECONDS = 300.0
"""Between two lines about what stays as it is."""


async def patiently(
    ask: Callable[[], Awaitable[T]],
    pause: Callable[[float], Awaitable[None]],
    say: Callable[[str], None],
    max_wait: float,
    first_wait: float = FIRST_WAIT,
) -> T:
    """Asks, again while the provider fails, for at most `max_wait` seconds.

    Args:
        pause: waits that many seconds.
        say: gets a line when it is asked again for the first time.
        first_wait: seconds before it is asked again, which double up to the longest.

    Raises:
        ModelError: the last failure, or one that asking again does not mend.
    """
    wait, began = first_wait, time.monotonic()
    while True:
        try:
            return await ask()
        except ModelError as error:
            asked = error.retry_after or 0.0
            if not error.retry or asked > max_wait or time.monotonic() - began > max_wait:
                raise
            if wait == first_wait:
                say(f"asking again: {error}")
            await pause(max(asked, wait))
        wait = min(LONGEST_WAIT, 2 * wait)
