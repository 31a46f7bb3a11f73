"""The limiter against a provider with a limited capacity, on a clock that jumps: no hammering and no crawling."""

from __future__ import annotations

import asyncio

import pytest

from agent.gateway.limiter import Limiter
from tests.gateway.virtual import LoopClock

CALLS, WIDTH = 400, 32
WAY = 0.001
"""Seconds from a refusal to the client."""


class Provider:
    """Lets `per_second` calls through (in bursts of a tenth), or `at_once`; else asks for a wait, or for none."""

    def __init__(self, latency: float, per_second: float = 0.0, at_once: int = 0, wait: float | None = None) -> None:
        self.latency, self.per_second, self.at_once, self.wait = latency, per_second, at_once, wait
        self.opened, self.tokens, self.filled = 0, per_second / 10, 0.0
        self.arrivals: list[float] = []
        self.waits: list[tuple[float, float]] = []
        self.refused = 0

    def refuses(self, now: float) -> bool:
        self.arrivals.append(now)
        self.tokens = min(self.per_second / 10, self.tokens + (now - self.filled) * self.per_second)
        self.filled = now
        is_full = self.at_once and self.opened > self.at_once
        if is_full or (self.per_second and self.tokens < 1):
            self.refused += 1
            self.waits += [(now, now + self.wait)] if self.wait else []
            return True
        self.tokens -= 1
        return False

    @property
    def seconds(self) -> float:
        """From the first to the last request, without the waits that were asked for."""
        waited, until = 0.0, 0.0
        for start, end in sorted(self.waits):
            waited += max(0.0, end - max(until, start))
            until = max(until, end)
        return self.arrivals[-1] - self.arrivals[0] - waited

    @property
    def late(self) -> int:
        """Requests in the second half of a wait, when every client has heard of it."""
        return sum((start + end) / 2 < at <= end for start, end in self.waits for at in self.arrivals)


async def asked(provider: Provider) -> Provider:
    """Have the limiter let all calls out."""
    limiter, clock = Limiter("m", WIDTH, clock=LoopClock()), LoopClock()

    async def call() -> None:
        while True:
            await limiter.acquire()
            provider.opened += 1
            is_refused = provider.refuses(clock.now())
            provider.opened -= is_refused
            await asyncio.sleep(WAY if is_refused else provider.latency)
            provider.opened -= not is_refused
            limiter.rate_limited(provider.wait, WAY) if is_refused else limiter.succeeded()
            limiter.release()
            if not is_refused:
                return

    await asyncio.gather(*(call() for _ in range(CALLS)))
    return provider


@pytest.mark.parametrize(
    ("latency", "best", "limits"),
    [
        (0.05, CALLS / 100, {"per_second": 100.0, "wait": 1.0}),
        (0.05, CALLS / 100, {"per_second": 100.0}),
        (0.08, CALLS * 0.08 / 8, {"at_once": 8, "wait": 0.5}),
    ],
    ids=["100 a second", "100 a second, without Retry-After", "8 at once"],
)
async def test_the_pace_of_the_provider_is_found(latency: float, best: float, limits: dict[str, float]) -> None:
    free = (await asked(Provider(latency))).seconds
    limited = await asked(Provider(latency, **limits))  # type: ignore[arg-type]
    assert limited.late == 0, "a wait that was asked for is waited"
    assert limited.refused <= 0.1 * len(limited.arrivals), "a width or a pace is learnt"
    assert limited.seconds <= 3 * (free + best), "outside the waits it does not crawl"
