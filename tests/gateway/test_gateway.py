"""One door: bought once, capped at the server, waited for, never made up, and no key in the file."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadResponse, BudgetExhausted, RateLimited, RowRefused, RunRefused, Transient
from agent.gateway.budget import Account, Spend
from agent.gateway.gateway import MAX_ATTEMPTS, Gateway
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.models.openai import OpenAIModel
from agent.types import Budget, Request
from tests.toys import FakeModel, ask, open_ledger
from tests.wire import Fault, WireServer


class Calm(random.Random):
    """A jitter that never waits."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def gateway(ledger: Ledger, budget: Budget | None = None, **more: Any) -> Gateway:
    more.setdefault("prices", {})
    return Gateway(ledger, "run-1", Account(budget or Budget()), jitter=Calm(), **more)


def model(server: WireServer) -> OpenAIModel:
    return OpenAIModel(f"openai-compatible/x@{server.url}", "x", base_url=server.url)


def states(ledger: Ledger) -> Counter[str]:
    return Counter(state for (state,) in ledger.db.conn.execute("SELECT state FROM calls"))


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    found = open_ledger(tmp_path / "ledger.db")
    yield found
    found.close()


# -- bought once -------------------------------------------------------------------------------------------------------


async def test_an_identical_call_is_bought_once_by_any_run(ledger: Ledger) -> None:
    lm = FakeModel(lambda request: "billing")
    first, second = gateway(ledger), gateway(ledger)
    one = await first.complete("target", lm, ask("a"))
    two = await second.complete("target", lm, ask("a"))
    assert (one.text, one.finish, one.usage) == (two.text, two.finish, two.usage)
    assert len(lm.seen) == 1
    assert first.account.total_paid == first.account.total_used == second.account.total_used
    assert second.account.total_paid == Spend()
    assert (first.account.cached, second.account.cached) == (0, 1)


async def test_two_that_fly_at_the_same_time_are_one_call_at_the_server(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.1, text="billing")) as server:
        lm, door = model(server), gateway(ledger)
        replies = await asyncio.gather(*(door.complete("target", lm, ask("a")) for _ in range(5)))
        await lm.close()
    assert len(server.requests) == 1
    assert {reply.text for reply in replies} == {"billing"}
    assert door.account.total_paid.calls == 1
    assert door.account.total_used.calls == 5
    assert states(ledger) == {"ok": 1, "cached": 4}


@pytest.mark.parametrize(
    "other",
    [
        ask("b"),
        ask("a", max_tokens=9),
        ask("a", temperature=0.5),
        ask("a", seed=1),
        ask("a", repeat=1),
        ask("a", stop=("x",)),
    ],
)
async def test_what_differs_in_anything_that_is_sent_is_another_call(ledger: Ledger, other: Request) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)
    await door.complete("target", lm, ask("a"))
    await door.complete("target", lm, other)
    assert len(lm.seen) == 2


async def test_the_timeout_and_the_role_are_not_part_of_a_call(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)
    await door.complete("target", lm, ask("a"))
    await door.complete("judge", lm, ask("a", timeout=1.0))
    assert len(lm.seen) == 1


async def test_two_models_never_share_a_reply(ledger: Ledger) -> None:
    one, two, door = FakeModel(lambda r: "one", "m/1"), FakeModel(lambda r: "two", "m/2"), gateway(ledger)
    assert (await door.complete("target", one, ask("a"))).text == "one"
    assert (await door.complete("target", two, ask("a"))).text == "two"


async def test_without_the_cache_every_call_is_bought(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger, use_cache=False)
    for _ in range(3):
        await door.complete("target", lm, ask("a"))
    assert len(lm.seen) == 3
    assert door.account.cached == 0


async def test_a_twin_of_an_interrupted_call_buys_it_itself(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.15, text="billing")) as server:
        lm, door = model(server), gateway(ledger)
        first = asyncio.ensure_future(door.complete("target", lm, ask("a")))
        twin = asyncio.ensure_future(door.complete("target", lm, ask("a")))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await twin).text == "billing"
        with pytest.raises(asyncio.CancelledError):
            await first
        await lm.close()
    assert states(ledger) == {"unknown": 1, "ok": 1}


async def test_a_cancelled_twin_does_not_stop_the_call(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.15, text="billing")) as server:
        lm, door = model(server), gateway(ledger)
        first = asyncio.ensure_future(door.complete("target", lm, ask("a")))
        await asyncio.sleep(0.02)
        twin = asyncio.ensure_future(door.complete("target", lm, ask("a")))
        await asyncio.sleep(0.02)
        twin.cancel()
        assert (await first).text == "billing"
        await lm.close()
    assert states(ledger) == {"ok": 1}


# -- caps --------------------------------------------------------------------------------------------------------------


def flaky(seed: int) -> Any:
    """A server that fails about four times in ten: 500, 429 and a body that is no reply."""
    rng, lock = random.Random(seed), threading.Lock()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        with lock:
            draw = rng.random()
        if draw < 0.2:
            return Fault(status=500)
        if draw < 0.3:
            return Fault(status=429, headers={"Retry-After": "0"})
        if draw < 0.4:
            return Fault(body="<html>busy</html>")
        return Fault(delay=rng.random() / 100, text="one two three")

    return reply


async def burst(door: Gateway, lm: OpenAIModel, calls: int) -> list[Any]:
    jobs = (door.complete("target", lm, ask(f"number {n}")) for n in range(calls))
    return await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_the_server_never_sees_more_calls_than_the_cap(ledger: Ledger, seed: int) -> None:
    with WireServer(flaky(seed)) as server:
        lm, door = model(server), gateway(ledger, Budget(max_calls=25), max_concurrency=8)
        results = await burst(door, lm, 40)
        await lm.close()
    assert len(server.requests) == door.account.total_paid.calls == 25
    assert any(isinstance(result, BudgetExhausted) for result in results)
    assert sum(states(ledger).values()) == 25


@pytest.mark.parametrize("seed", range(3))
async def test_the_worst_that_the_server_can_have_charged_stays_under_the_caps(ledger: Ledger, seed: int) -> None:
    """Every 200 and every 500 counts in full, as if the provider had done all the work."""
    budget = Budget(max_tokens=600, max_cost=0.002)
    with WireServer(flaky(seed)) as server:
        lm = model(server)
        door = gateway(ledger, budget, max_concurrency=8, prices={lm.name: fixed_price(1.0, 5.0)})
        results = await burst(door, lm, 60)
        await lm.close()
    paid = door.account.total_paid
    assert any(isinstance(result, BudgetExhausted) for result in results)
    assert 0 < paid.tokens <= 600
    assert 0 < paid.usd <= 0.002
    cost = ledger.db.conn.execute("SELECT SUM(cost_usd) FROM calls").fetchone()[0]
    assert cost == pytest.approx(paid.usd)


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(raw=b""), Fault(body="<html>"), Fault(body={"choices": None})]
)
async def test_an_attempt_that_may_have_been_paid_for_is_charged_in_full(ledger: Ledger, fault: Fault) -> None:
    with WireServer(lambda messages, body: fault) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_cost=1.0), prices={lm.name: fixed_price(0.0, 1e6)})
        with pytest.raises(BudgetExhausted):
            await door.complete("target", lm, ask("a", max_tokens=1, repeat=7))
        await lm.close()
    assert len(server.requests) == 1, "a second attempt would pass the cap of one dollar"
    assert door.account.total_paid.usd == pytest.approx(1.0)


async def test_a_refused_reservation_sends_nothing_and_writes_nothing(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger, Budget(max_calls=0))
    with pytest.raises(BudgetExhausted, match="max_calls = 0"):
        await door.complete("target", lm, ask("a"))
    assert lm.seen == []
    assert not states(ledger)


async def test_what_is_in_the_cache_needs_no_budget(ledger: Ledger) -> None:
    lm = FakeModel(lambda request: "ok")
    await gateway(ledger).complete("target", lm, ask("a"))
    assert (await gateway(ledger, Budget(max_calls=0)).complete("target", lm, ask("a"))).text == "ok"


async def test_an_interrupted_call_is_charged_at_its_reservation(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.3)) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_tokens=1000), prices={lm.name: fixed_price(0.0, 1e6)})
        job = asyncio.ensure_future(door.complete("target", lm, ask("a", max_tokens=3)))
        await asyncio.sleep(0.1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await lm.close()
    assert door.account.total_paid.usd == pytest.approx(3.0)
    assert states(ledger) == {"unknown": 1}


# -- retries -----------------------------------------------------------------------------------------------------------


async def test_retry_after_is_waited_for_by_every_call_that_waits_too(ledger: Ledger) -> None:
    arrivals: list[float] = []

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        arrivals.append(time.monotonic())
        return Fault(status=429, headers={"Retry-After": "1"}) if len(arrivals) == 1 else "ok"

    with WireServer(reply) as server:
        lm, door = model(server), gateway(ledger, max_concurrency=1)
        await burst(door, lm, 3)
        await lm.close()
    assert len(arrivals) == 4
    assert arrivals[1] - arrivals[0] >= 0.95, "a call that queued for the slot must wait as well"
    assert door.account.retries == 1


async def test_another_model_does_not_wait(ledger: Ledger) -> None:
    calls: list[str] = []

    def limited(request: Request) -> str:
        calls.append("limited")
        raise RateLimited("slow down", retry_after=30.0)

    door = gateway(ledger)
    waiting = asyncio.ensure_future(door.complete("target", FakeModel(limited, "m/1"), ask("a")))
    await asyncio.sleep(0.05)
    reply = await asyncio.wait_for(door.complete("target", FakeModel(lambda r: "ok", "m/2"), ask("a")), 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert reply.text == "ok"
    assert calls == ["limited"]


@pytest.mark.parametrize("error", [RowRefused("too long"), RunRefused("no such key")])
async def test_what_cannot_work_is_not_tried_again(ledger: Ledger, error: Exception) -> None:
    def refuse(request: Request) -> str:
        raise error

    lm, door = FakeModel(refuse), gateway(ledger)
    with pytest.raises(type(error)):
        await door.complete("target", lm, ask("a"))
    assert len(lm.seen) == 1
    assert states(ledger) == {"error": 1}


async def test_the_last_error_comes_out_after_three_attempts(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(status=503)) as server:
        lm, door = model(server), gateway(ledger)
        with pytest.raises(Transient):
            await door.complete("target", lm, ask("a"))
        await lm.close()
    assert len(server.requests) == MAX_ATTEMPTS == door.account.total_paid.calls
    assert door.account.total_used == Spend()
    numbers = ledger.db.conn.execute("SELECT attempt FROM calls ORDER BY id").fetchall()
    assert numbers == [(1,), (2,), (3,)]


async def test_an_error_is_never_served_from_the_cache(ledger: Ledger) -> None:
    failing = [True]

    def answer(request: Request) -> str:
        if failing[0]:
            raise RowRefused("not today")
        return "billing"

    lm, door = FakeModel(answer), gateway(ledger)
    with pytest.raises(RowRefused):
        await door.complete("target", lm, ask("a"))
    failing[0] = False
    assert (await door.complete("target", lm, ask("a"))).text == "billing"
    assert (await door.complete("target", lm, ask("a"))).text == "billing"
    assert len(lm.seen) == 2, "an error before it does not hide the settled reply"


async def test_an_attempt_is_on_disk_before_it_is_sent(ledger: Ledger, tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        other = Ledger(tmp_path / "ledger.db")
        found.update(states(other))
        other.close()
        return "ok"

    found: Counter[str] = Counter()
    await gateway(ledger).complete("target", FakeModel(answer), ask("a"))
    assert found == {"sent": 1}


async def test_no_more_calls_run_at_once_than_allowed(ledger: Ledger) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return "ok"

    with WireServer(reply) as server:
        lm, door = model(server), gateway(ledger, max_concurrency=3)
        await burst(door, lm, 15)
        await lm.close()
    assert most[0] == 3


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_no_key_lands_in_the_ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-planted-0123456789abcdef"
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", key)
    ledger = open_ledger(tmp_path / "ledger.db")
    faults = [
        Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {key}"}}),
        Fault(status=500, body=f"<html>Authorization: Bearer {key}</html>"),
        Fault(status=400, body={"error": {"message": f"bad header {key}"}}),
        Fault(body={"error": key}),
        Fault(body={"choices": [{"message": {"content": None, "key": key}}]}),
    ]
    with WireServer(lambda messages, body: faults[int(messages[0]["content"])]) as server:
        lm, door = model(server), gateway(ledger)
        for number in range(len(faults)):
            with pytest.raises((Transient, BadResponse, RowRefused, RunRefused)) as caught:
                await door.complete("target", lm, ask(str(number)))
            assert key not in str(caught.value)
        await lm.close()
    ledger.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes(), file.name
