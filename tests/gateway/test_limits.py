"""429s: no wait is shorter than our own backoff, they are no calls, and they do not go on without end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import RateLimited, RunRefused
from agent.gateway import limiter as module
from agent.gateway.budget import Account, Spend
from agent.gateway.limiter import LIMITED_FREE, LIMITED_SHARE, MOST_LIMITED, Limiter
from agent.ledger.store import Ledger
from agent.types import Budget, Completion
from tests.gateway.doors import burst, classes, gateway, model, scripted
from tests.gateway.virtual import VirtualLoop
from tests.toys import FakeModel, ask, open_ledger
from tests.wire import Fault, WireServer

SLOW = RateLimited("slow down", 0.0, status=429)
NO_WAITS = ["0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLoop]:
    found = VirtualLoop()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found.time))
    yield found
    found.close()


class Widest(random.Random):
    """A jitter that draws the ceiling."""

    def uniform(self, a: float, b: float) -> float:
        return b


def pauses(loop: VirtualLoop, retry_after: float, jitter: random.Random, episodes: int = 8) -> list[float]:
    """Seconds between the tries of one call that gets 429s alone."""

    async def play() -> list[float]:
        limiter, found = Limiter("m", 4, longest_wait=1000, jitter=jitter), []
        for _ in range(episodes):
            before = loop.time()
            await limiter.acquire()
            found.append(loop.time() - before)
            limiter.rate_limited(retry_after)
            limiter.release()
        return found

    return loop.play(play())


def test_no_wait_is_shorter_than_the_backoff_of_the_row(loop: VirtualLoop) -> None:
    assert pauses(loop, 0.0, Widest()) == pytest.approx([0, 0.5, 1, 2, 4, 8, 16, 20])
    assert pauses(loop, 3.0, Widest()) == pytest.approx([0, 3, 3, 3, 4, 8, 16, 20]), "nor than what was asked for"


def test_the_backoff_is_jittered_by_the_generator_that_is_passed_in(loop: VirtualLoop) -> None:
    found = pauses(loop, 0.0, random.Random(7))
    draw = random.Random(7)
    assert found[1:] == pytest.approx([draw.uniform(0, top) for top in (0.5, 1, 2, 4, 8, 16, 20)])


def test_those_of_one_volley_share_one_backoff(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8, jitter=Widest())
        for _ in range(8):
            await limiter.acquire()
        for _ in range(8):
            limiter.rate_limited(0.0, latency=0.1)
            limiter.release()
        await limiter.acquire()
        assert loop.time() == pytest.approx(0.5)

    loop.play(play())


@pytest.mark.parametrize("value", NO_WAITS)
async def test_a_provider_that_asks_for_no_wait_is_not_hammered(ledger: Ledger, value: str) -> None:
    """A few requests in some seconds, none of them a call of the cap; then the run stops, resumable."""
    with WireServer(lambda messages, body: Fault(status=429, headers={"retry-after": value})) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_calls=300), jitter=random.Random(0), max_wait=3.0)
        results = await asyncio.wait_for(burst(door, lm, 40), 20)
        await lm.close()
    assert {type(result) for result in results} == {RunRefused}
    assert "no reply for 3 seconds" in str(results[0])
    assert 8 <= len(server.requests) <= 60
    assert door.account.total_paid == Spend()
    assert door.account.limited == len(server.requests)


async def test_a_429_takes_nothing_from_the_cap_on_calls(ledger: Ledger) -> None:
    lm, door = scripted(*[SLOW] * 30, "billing"), gateway(ledger, Budget(max_calls=2))
    assert (await asyncio.wait_for(door.complete("model", lm, ask("a")), 10)).text == "billing"
    assert (await door.complete("model", lm, ask("b"))).text == "billing"
    account = door.account
    assert (account.total_paid.calls, account.limited, account.lost, account.failed) == (2, 30, 0, 0)


async def test_a_resumed_run_counts_429s_apart_as_well(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    door = gateway(ledger)
    await door.complete("model", scripted(*[SLOW] * 5, "billing"), ask("a"))
    await ledger.commit()
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    past = again.resume_run("run-1", {})
    assert (sum(spend.calls for spend in past.paid.values()), past.lost, past.limited) == (1, 0, 5)
    account = Account(Budget(), past)
    resumed = gateway(again, account=account)
    await resumed.complete("model", scripted("never asked"), ask("a"))
    assert (account.total_paid.calls, account.limited, account.failed) == (1, 5, 0)
    again.close()


async def test_one_call_that_is_refused_while_others_are_answered_stops_the_run(ledger: Ledger) -> None:
    door = gateway(ledger, Budget(max_calls=1000), max_concurrency=2)

    def answer(request: Any) -> str:
        if request.messages[-1].content == "poison":
            raise SLOW
        return "ok"

    lm = FakeModel(answer)

    async def others() -> int:
        for number in range(1000):
            await door.complete("model", lm, ask(f"other {number}"))
        return 0

    poison = door.complete("model", lm, ask("poison"))
    results = await asyncio.wait_for(asyncio.gather(poison, others(), return_exceptions=True), 30)
    assert [type(result) for result in results] == [RunRefused, RunRefused]
    assert f"answered 429 to one call {MOST_LIMITED + 1} times" in str(results[0])
    assert classes(ledger).count("rate_limit") <= MOST_LIMITED + 5


async def test_a_provider_that_refuses_nearly_all_stops_the_run(ledger: Ledger) -> None:
    """One of 60 requests is answered, so that no call alone is refused too often and the breaker never opens."""
    asked = 0

    def answer(request: Any) -> str:
        nonlocal asked
        asked += 1
        if asked % 60:
            raise SLOW
        return "ok"

    door = gateway(ledger, max_concurrency=8)
    results = await asyncio.wait_for(burst(door, FakeModel(answer), 200), 30)
    answered = sum(isinstance(result, Completion) for result in results)
    stops = [result for result in results if isinstance(result, RunRefused)]
    assert answered + len(stops) == 200
    assert "429 to repeated attempts" in str(stops[0])
    assert "\n" not in str(stops[0])
    refused = classes(ledger).count("rate_limit")
    assert refused <= LIMITED_FREE + LIMITED_SHARE * answered + 200 + 60


async def test_where_nobody_is_answered_only_the_longest_wait_ends_it(ledger: Ledger) -> None:
    """However often one call is refused: `--max-wait` may be a day."""
    lm = scripted(*[SLOW] * (2 * MOST_LIMITED), "billing")
    assert (await asyncio.wait_for(gateway(ledger).complete("model", lm, ask("a")), 20)).text == "billing"


@pytest.mark.parametrize(
    "value", ["1e300", "1" + "0" * 400, "inf", "Fri, 31 Dec 9999 23:59:59 GMT", "86400000000"], ids=lambda v: v[:12]
)
async def test_an_absurd_wait_stops_the_run_in_a_few_digits(ledger: Ledger, value: str) -> None:
    with WireServer(lambda messages, body: Fault(status=429, headers={"retry-after": value})) as server:
        lm, door = model(server), gateway(ledger)
        with pytest.raises(RunRefused, match=r"asks to wait 11574 days, more than --max-wait 300; resume later"):
            await door.complete("model", lm, ask("a"))
        await lm.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["nan", "-inf", "-5", "", "soon", "Mon, 99 Foo 2026"])
async def test_a_wait_that_is_none_is_our_own_backoff(ledger: Ledger, value: str) -> None:
    served = 0

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal served
        served += 1
        return Fault(status=429, headers={"retry-after": value}) if served == 1 else "ok"

    with WireServer(reply) as server:
        lm = model(server)
        assert (await asyncio.wait_for(gateway(ledger).complete("model", lm, ask("a")), 10)).text == "ok"
        await lm.close()
    assert served == 2
