"""How many calls of one model may fly at once, and when. Knows no request, no budget and no ledger.

Three things hold calls back, all outside the slot, and all for every worker of the model:

- the width: starts small, doubles with each clean round up to the ceiling, and shrinks once per episode of 429s;
- a pause that the provider asked for (Retry-After), and after it a pace, learned from what the provider let through;
- the breaker: failures in a row open it, one probe at a time finds out whether the provider is back. It pauses, it
  does not fail: only when nothing has come back for `max_wait` seconds does the run stop, resumable.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from agent.errors import ModelError, RunRefused, TransportUnknown

START = 8
SHRINK = 0.8
COOL_DOWN = 15.0  # seconds after a 429 in which nothing grows
TRIP = 5  # failures in a row that open the breaker
UNREACHED = 3  # failures after which an address where nothing ever answered is a wrong address
LONGEST_PROBE = 30.0  # seconds between two probes
PACE = 0.95  # of the rate that was let through


class Limiter:
    """The slots of one model. `ceiling` is the most that may fly; `fixed` starts there and never learns."""

    def __init__(self, name: str, ceiling: int, fixed: bool = False, max_wait: float = 300.0) -> None:
        self.name = name
        self.ceiling = ceiling
        self.max_wait = max_wait
        self.width = ceiling if fixed else min(START, ceiling)
        self._fixed = fixed
        self._flying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed: Exception | None = None
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._streak = 0  # successes since the width last changed
        self._limited_at = -COOL_DOWN  # when the last 429 episode began
        self._known_bad: int | None = None
        self._interval = 0.0  # seconds between two starts; 0: as fast as they come
        self._next_start = 0.0
        self._passed = 0  # successes since `_since`
        self._since = time.monotonic()
        self._limits = 0  # 429 episodes since the last success
        self.answers = 0
        self._reached = False  # whether anything has ever answered
        self._failures = 0  # failures since the last success
        self._trips = 0  # times that the breaker opened since the last success
        self._down_since: float | None = None

    # -- slots --------------------------------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """Returns with a slot. Raises what `close` was given."""
        if self._closed is not None:
            raise self._closed
        if not self._waiting and self._may_start(time.monotonic()):
            self._start(time.monotonic())
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()  # the slot came at the moment of the cancellation
            elif future in self._waiting:
                self._waiting.remove(future)
            raise

    def release(self) -> None:
        self._flying -= 1
        self._wake()

    def is_paused(self) -> bool:
        """Whether a call that has its slot should give it back rather than be sent."""
        return self._closed is not None or time.monotonic() < self._not_before

    def is_open(self) -> bool:
        """Whether the breaker is open: the provider is down, and one probe at a time is let through."""
        return self._trips > 0

    def close(self, error: Exception) -> None:
        """From now on every `acquire` raises `error`; those that wait do at once."""
        self._closed = error
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def _may_start(self, now: float) -> bool:
        width = 1 if self._trips else self.width
        return self._flying < width and now >= self._not_before and now >= self._next_start

    def _start(self, now: float) -> None:
        self._flying += 1
        if self._interval:
            self._next_start = max(now - self._interval, self._next_start) + self._interval

    def _wake(self) -> None:
        """Gives free slots to those who wait, first come first served, and sets a timer for what only time brings."""
        now = time.monotonic()
        while self._waiting and self._may_start(now):
            future = self._waiting.popleft()
            if not future.done():
                self._start(now)
                future.set_result(None)
        until = max(self._not_before, self._next_start)
        if self._waiting and until > now:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(until - now, self._wake)

    # -- what came back -----------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """The provider is there, whatever it said."""
        self.answers += 1
        self._reached = True
        self._failures = self._trips = self._limits = 0
        self._down_since = None

    def succeeded(self) -> None:
        self.answered()
        now = time.monotonic()
        self._passed += now >= self._since  # what comes back during a pause says nothing of the pace after it
        self._streak += 1
        if self._fixed or self._streak < self.width or now - self._limited_at < COOL_DOWN:
            return
        self._streak = 0
        doubled = self.width * 2
        if self._known_bad is not None and doubled >= self._known_bad:
            doubled = self.width + 1
        self.width = min(self.ceiling, doubled)
        self._interval *= SHRINK

    def rate_limited(self, retry_after: float | None, latency: float = 0.0) -> None:
        """A 429 to a call sent `latency` seconds ago: holds everybody back. What was sent before the last episode began
        belongs to it. Raises RunRefused when the provider asks for more than `max_wait`, or nothing has come back for
        that long.
        """
        now = time.monotonic()
        self._reached = True
        if now >= self._not_before and now - latency >= self._limited_at:  # the first of an episode
            self._limited_at, self._streak = now, 0
            self._limits += 1
            if not self._fixed:
                self._learn(now)
        wait = retry_after if retry_after is not None else min(20.0, 2.0 ** (self._limits - 1))
        if wait > self.max_wait:
            raise RunRefused(
                f"{self.name}: the provider asks to wait {wait:.0f} seconds, more than --max-wait {self.max_wait:.0f}; "
                "resume the run later"
            )
        self._pause(now + wait)
        self._give_up(now, "too many requests")

    def _learn(self, now: float) -> None:
        if self._passed >= TRIP and now > self._since:
            self._interval = (now - self._since) / (PACE * self._passed)
        self._known_bad = self.width
        self.width = max(1, int(self.width * SHRINK))

    def failed(self, error: ModelError) -> None:
        """A 5xx or a broken connection. Raises RunRefused when nothing has come back for `max_wait` seconds."""
        now = time.monotonic()
        self._failures += 1
        self._reached = self._reached or error.status is not None or isinstance(error, TransportUnknown)
        if not self._reached and self._failures >= UNREACHED:
            raise RunRefused(f"{error}; nothing has ever answered there: check the address")
        if self._failures >= TRIP and now >= self._not_before:
            wait = min(LONGEST_PROBE, 2.0**self._trips)
            self._trips += 1
            self._pause(now + wait)
        self._give_up(now, str(error))

    def _give_up(self, now: float, why: str) -> None:
        if self._down_since is None:
            self._down_since = now
        if now - self._down_since > self.max_wait:
            raise RunRefused(
                f"{self.name}: nothing has come back for {now - self._down_since:.0f} seconds ({why}); "
                "resume the run when the provider is back"
            )

    def _pause(self, until: float) -> None:
        if until > self._not_before:
            self._not_before = until
            self._passed, self._since = 0, until
            self._next_start = max(self._next_start, until)
        self._wake()
