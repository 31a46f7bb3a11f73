"""Concurrency limits: how many calls of a model run at once, and when the next one may start.

Three things delay a call before it gets a slot:

- the width: small at first (1 if a cap depends on bills not seen yet), doubled after each clean round, and shrunk in an
  episode of 429s to what the provider let through, at most by half;
- a pause requested by the provider (Retry-After) or a jittered backoff, followed by the rate that was let through
  before;
- the circuit breaker: consecutive failures open it, then single probes test whether the provider is back. Without a
  reply for `longest_wait` seconds the run stops and can be resumed.

Consecutive refusals with the same text, and 429s without end while other calls are answered, also stop the run.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections import deque

from agent.errors import ModelError, RequestRefused, RunRefused, TransportUnknown
from agent.gateway.retries import CLOCK, Clock

START = 8
SHRINK = 0.5  # of the width, at most, in one episode
COOL_DOWN = 15.0  # seconds after a 429 in which the width does not grow
QUICKEN = 0.9  # of the interval between two starts, at most once in `COOL_DOWN / 3` seconds
TRIP = 5  # failures in a row that open the breaker
SAME_REFUSALS = 8  # consecutive equal refusals that stop the run: the calls are not at fault
MOST_LIMITED = 100  # 429s to one call while others are answered
LIMITED_FREE = 100  # repeated 429s while others are answered: this many, and
LIMITED_SHARE = 20  # this many per answer
LONGEST_BACKOFF = 20.0  # seconds
DAY = 86_400.0
UNREACHED = 3  # failures after which an address that never answered is considered wrong
LONGEST_PROBE = 30.0  # seconds between two probes
PACE = 0.95  # share of the rate that was let through
SHORTEST_LOOK = 0.25  # seconds of traffic needed to measure a rate
IDLE = 0.25  # seconds without a call in flight after which the measurement restarts


class Limiter:
    """The slots of one model: at most `ceiling` calls in flight, `start` at first; `fixed` disables adaptation."""

    def __init__(
        self,
        name: str,
        ceiling: int,
        fixed: bool = False,
        longest_wait: float = 300.0,
        jitter: random.Random | None = None,
        start: int = START,
        clock: Clock = CLOCK,
    ) -> None:
        self.name = name
        self._clock = clock
        self.ceiling = ceiling
        self.longest_wait = longest_wait
        self.width = ceiling if fixed else min(start, ceiling)
        self._fixed = fixed
        self.one_by_one = False
        """Whether only one call may be in flight: the cost of a call cannot be predicted."""
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed: Exception | None = None
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._streak = 0  # successes since the width last changed
        self._limited_at = -COOL_DOWN  # when the last 429 episode began
        self._known_bad: int | None = None
        self._interval = 0.0  # seconds between two starts; 0: no pacing
        self._quickened_at = 0.0
        self._next_start = 0.0
        self._passed = 0  # successes since `_since`, when the traffic last began
        self._since = self._clock.now()
        self._first_at = self._since  # when the first of them came back
        self._volley = 0  # calls that started at once then
        self._ended_at = self._since  # when a call last ended
        self._most = 0  # calls in flight when the last 429 episode began
        self._refused = 0  # of them, 429s so far
        self._limits = 0  # 429 episodes since the last success
        self._least = 0.0  # when the backoff of the last of them ends
        self._again = 0  # repeated 429s while others were answered
        self._jitter = jitter or random.Random(0)
        self.turns = itertools.count()  # numbers the calls of the model, those that the ledger answers among them
        self._refusals: dict[int, str] = {}  # by turn
        self.answers = 0
        self._reached = False  # whether the address has ever answered
        self._failures = 0  # failures since the last success
        self._trips = 0  # times that the breaker opened since the last success
        self._deadline: float | None = None  # when the run gives up; None while calls are answered
        self.trouble = ""  # why no call is answered; "" while calls are

    async def acquire(self) -> None:
        """Wait for a slot. Raises the error given to `close`."""
        if self._closed is not None:
            raise self._closed
        if not self._waiting and self._may_start(self._clock.now()):
            self._start(self._clock.now())
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()  # got the slot while being cancelled
            elif future in self._waiting:
                self._waiting.remove(future)
            raise

    def release(self) -> None:
        self._in_flight -= 1
        self._ended_at = self._clock.now()
        self._wake()

    def is_paused(self) -> bool:
        """Return whether a call should give its slot back instead of being sent."""
        return self._closed is not None or self._clock.now() < self._not_before

    def is_open(self) -> bool:
        """Return whether the circuit breaker is open."""
        return self._trips > 0

    def seconds_left(self) -> float:
        """Return the seconds until the run stops if nothing is answered."""
        return self.longest_wait if self._deadline is None else max(0.0, self._deadline - self._clock.now())

    def close(self, error: Exception) -> None:
        """Raise `error` in all current and later `acquire` calls."""
        self._closed = error
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def allowed(self) -> int:
        return 1 if self._trips or self.one_by_one else self.width

    def _may_start(self, now: float) -> bool:
        return self._in_flight < self.allowed() and now >= self._not_before and now >= self._next_start

    def _start(self, now: float) -> None:
        if self._in_flight == 0 and now - self._ended_at > IDLE:
            self._begin(now)
        self._in_flight += 1
        if self._interval:
            self._next_start = max(now - self._interval, self._next_start) + self._interval

    def _wake(self) -> None:
        now = self._clock.now()
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

    def answered(self) -> None:
        """Record any answer of the provider."""
        self.answers += 1
        self._reached = True
        self._failures = self._trips = self._limits = 0
        self._deadline, self.trouble = None, ""

    def succeeded(self) -> None:
        """Record a reply; width and pace may grow."""
        self.answered()
        now = self._clock.now()
        if now >= self._since:  # replies during a pause say nothing about the pace after it
            self._first_at = now if self._passed == 0 else self._first_at
            self._passed += 1
        self._streak += 1
        if self._fixed or self._streak < self.width or now - self._limited_at < COOL_DOWN:
            return
        self._streak = 0
        doubled = self.width * 2
        if self._known_bad is not None and doubled >= self._known_bad:
            doubled = self.width + 1
        self.width = min(self.ceiling, doubled)
        if self._interval and now - self._quickened_at >= COOL_DOWN / 3:
            self._quickened_at = now
            self._interval *= QUICKEN

    def refused(self, error: RequestRefused, turn: int) -> None:
        """Record a refused request; raise RunRefused after SAME_REFUSALS in the same words, numbers aside."""
        self.answered()
        says = self._refusals[turn] = re.sub(r"\b(?=[^\W\d]*\d)\w+", "#", str(error))
        first, after = turn, turn + 1
        while self._refusals.get(first - 1) == says:
            first -= 1
        while self._refusals.get(after) == says:
            after += 1
        if after - first >= SAME_REFUSALS:
            raise RunRefused(
                f"{self.name}: {after - first} calls in a row were refused in the same words ({self._what(error)}); "
                "fix the cause, then resume"
            )

    def rate_limited(self, retry_after: float | None, latency: float = 0.0) -> None:
        """Record a 429 to a call sent `latency` seconds ago. Calls sent before the last episode belong to it.

        No call starts for `retry_after` seconds, nor a backoff with full jitter (Brooker 2015). Raises RunRefused
        after `longest_wait`.
        """
        now = self._clock.now()
        self._reached = True
        if now >= self._not_before and now - latency >= self._limited_at:  # the first of an episode
            self._limited_at, self._streak = now, 0
            self._limits += 1
            self._most, self._refused, self._known_bad = self._in_flight, 0, self.width
            seconds, passed = now - self._first_at, self._passed - max(1, self._volley)  # the first volley is no pace
            if not self._fixed and seconds >= SHORTEST_LOOK and passed >= TRIP:
                self._interval = max(self._interval, seconds / (PACE * passed))
            self._least = now + self._jitter.uniform(0.0, self._backoff())
        self._refused += 1
        if not self._fixed:
            let_through = max(self._most - self._refused, int(SHRINK * (self._known_bad or 1)), 1)
            self.width = min(self.width, let_through)
        if retry_after is not None and retry_after > self.longest_wait:
            wait = f"{retry_after:.0f} seconds" if retry_after < 100 * DAY else f"{retry_after / DAY:.0f} days"
            raise RunRefused(
                f"{self.name}: the provider asks to wait {wait}, more than --max-wait {self.longest_wait:.0f}; "
                "resume later"
            )
        deadline = self._give_up(now, "too many requests")
        seconds = self._backoff() if retry_after is None else retry_after
        self._pause(min(max(now + seconds, self._least), deadline))

    def _backoff(self) -> float:
        return float(min(LONGEST_BACKOFF, 0.5 * 2.0 ** min(self._limits - 1, 10)))

    def limited_again(self, times: int) -> None:
        """Record the `times`-th 429 to one call while others were answered. Raises RunRefused for many."""
        self._again += 1
        if times <= MOST_LIMITED and self._again <= LIMITED_FREE + LIMITED_SHARE * self.answers:
            return
        refused = f"one call {times} times" if times > MOST_LIMITED else f"repeated attempts {self._again} times"
        refusal = RunRefused(
            f"{self.name}: the provider answered 429 to {refused} while it answered {self.answers} others; "
            "resume later, or with a smaller -j"
        )
        self.close(refusal)
        raise refusal

    def _begin(self, now: float) -> None:
        self._passed, self._since, self._volley = 0, now, self.width if not self._interval else 0

    def failed(self, error: ModelError) -> None:
        """Record a 5xx or broken connection; raise RunRefused after `longest_wait` seconds of failures."""
        now = self._clock.now()
        self._failures += 1
        self._reached = self._reached or error.status is not None or isinstance(error, TransportUnknown)
        if not self._reached and self._failures >= UNREACHED:
            raise RunRefused(f"{self.name}: {self._what(error)}; no reply so far; check the address")
        deadline = self._give_up(now, self._what(error))
        if self._failures >= TRIP and now >= self._not_before:
            wait = min(LONGEST_PROBE, 2.0**self._trips)
            self._trips += 1
            self._pause(min(now + wait, deadline))

    def _what(self, error: ModelError) -> str:
        says = str(error).removeprefix(f"{self.name}: ")
        return says.rpartition("; ")[0] or says

    def _give_up(self, now: float, why: str) -> float:
        if self._deadline is None:
            self._deadline = now + self.longest_wait
        self.trouble = why
        if now >= self._deadline:
            waited = now - self._deadline + self.longest_wait
            raise RunRefused(
                f"{self.name}: no reply for {waited:.0f} seconds ({why}); resume when the provider is back"
            )
        return self._deadline

    def _pause(self, until: float) -> None:
        if until > self._not_before:
            self._not_before = until
            self._begin(until)
            self._next_start = max(self._next_start, until)
        self._wake()
