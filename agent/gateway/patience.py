"""Asking a provider about what runs there: again while it fails, for so long and no longer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.errors import ModelError

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
    """The answer to a question, which is asked again while the provider fails.

    Args:
        ask: asks it.
        pause: waits so many seconds.
        say: gets a line when it is asked again for the first time.
        max_wait: seconds for which it is asked again.
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
