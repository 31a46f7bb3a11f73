"""The clock of a run: limits, retries, polling and time budgets read it, so that tests can replace it."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Real time."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


CLOCK = Clock()
