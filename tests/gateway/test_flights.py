"""A call on its way is nobody's alone: whoever is cancelled, it lands and is written down, or it was never sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.errors import BudgetExhausted, Interrupted, RateLimited, RowRefused, RunRefused, TransportUnknown
from agent.gateway import budget
from agent.gateway.budget import Spend
from agent.gateway.in_flight import InFlight
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.models.openai import OpenAIModel
from agent.types import Budget, Completion, Request
from tests.gateway.doors import classes, gateway, model, scripted, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, GatedModel, ask, until
from tests.wire import Fault, WireServer


def billing(request: Request) -> str:
    return "billing"


def start(door: Any, lm: FakeModel, *texts: str) -> list[asyncio.Task[Completion]]:
    return [asyncio.ensure_future(door.complete("model", lm, ask(text))) for text in texts]


async def ends(*jobs: asyncio.Task[Completion]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 10)


# -- twins -------------------------------------------------------------------------------------------------------------


async def test_two_that_fly_at_the_same_time_are_one_call_at_the_server(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.1, text="billing")) as server:
        lm, door = model(server), gateway(ledger)
        replies = await asyncio.gather(*(door.complete("model", lm, ask("a")) for _ in range(5)))
        await lm.close()
    assert len(server.requests) == 1
    assert {reply.text for reply in replies} == {"billing"}
    assert door.account.total_paid.calls == 1
    assert door.account.total_used.calls == 5
    await ledger.commit()
    assert states(ledger) == {"ok": 1, "cached": 4}


async def test_twins_share_a_failure_and_a_later_call_tries_again(ledger: Ledger) -> None:
    lm, door = scripted(RowRefused("too long"), "billing"), gateway(ledger)
    results = await ends(*start(door, lm, "a", "a"))
    assert [type(result) for result in results] == [RowRefused] * 2
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert classes(ledger) == ["permanent_row", "ok"]


async def test_a_twin_takes_the_call_over_from_one_that_is_cancelled(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    first, twin = start(door, lm, "a", "a")
    await until(lambda: lm.arrived)
    first.cancel()
    lm.open.set()
    assert (await twin).text == "billing"
    assert lm.arrived == 1
    assert isinstance((await ends(first))[0], asyncio.CancelledError)


async def test_a_cancelled_twin_does_not_stop_the_call(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    first, twin = start(door, lm, "a", "a")
    await until(lambda: lm.arrived)
    twin.cancel()
    lm.open.set()
    assert (await first).text == "billing"
    assert states(ledger) == {"ok": 1}


async def test_a_call_that_waits_for_a_slot_is_called_off_only_when_nobody_wants_it_any_more(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, max_concurrency=1)
    (busy,) = start(door, lm, "busy")
    await until(lambda: lm.arrived)
    first, twin = start(door, lm, "a", "a")
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    lm.open.set()
    assert (await twin).text == "billing"
    await busy
    assert states(ledger) == {"ok": 2}


async def test_who_asks_for_a_call_that_is_just_being_called_off_gets_it_all_the_same(ledger: Ledger) -> None:
    lm, door = FakeModel(billing), gateway(ledger)
    (first,) = start(door, lm, "a")
    await until(lambda: ledger._next_call > 1)  # it is being written down
    first.cancel()
    await asyncio.sleep(0)
    (late,) = start(door, lm, "a")
    (reply,) = await ends(late)
    assert isinstance(reply, Completion)
    assert reply.text == "billing"


# -- a caller that is cancelled ----------------------------------------------------------------------------------------


async def test_a_call_whose_caller_is_cancelled_lands_and_is_recorded_and_counted(ledger: Ledger) -> None:
    lm = GatedModel(billing)
    door = gateway(ledger, Budget(max_cost=9.0), prices={lm.name: fixed_price(0.0, 1e6)})
    (job,) = start(door, lm, "a")
    await until(lambda: lm.arrived)
    job.cancel()
    assert isinstance((await ends(job))[0], asyncio.CancelledError)
    assert door.in_flight() == 1
    lm.open.set()
    await door.drain()
    assert states(ledger) == {"ok": 1}
    assert door.account.total_paid == Spend(1, 2, 1.0)
    assert door.account.total_used == Spend(1, 2, 1.0)
    assert door.in_flight() == 0


async def test_what_landed_without_its_caller_is_not_bought_again(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    (job,) = start(door, lm, "a")
    await until(lambda: lm.arrived)
    job.cancel()
    lm.open.set()
    await ends(job)
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert lm.arrived == 1


async def test_a_caller_that_is_cancelled_before_its_call_is_sent_calls_it_off(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, max_concurrency=1)
    (busy,) = start(door, lm, "busy")
    await until(lambda: lm.arrived)
    (job,) = start(door, lm, "a")
    await asyncio.sleep(0.01)
    job.cancel()
    await ends(job)
    lm.open.set()
    await busy
    await door.drain()
    assert lm.arrived == 1
    assert states(ledger) == {"ok": 1}
    assert door.account.total_paid.calls == 1
    door.account.reserve(Spend(1))  # nothing is left set aside


async def while_reserved(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """From now on a reservation is on the disk when the first event is set, and returns when the second is."""
    written, go_on = asyncio.Event(), asyncio.Event()
    plain = ledger.reserve

    async def slow(*args: Any) -> int:
        call_id = await plain(*args)
        written.set()
        await go_on.wait()
        return call_id

    monkeypatch.setattr(ledger, "reserve", slow)
    return written, go_on


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_call_that_is_called_off_while_it_is_written_down_is_recorded_as_not_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """However often it is called off: `stop` does so, and then `drain`."""
    written, go_on = await while_reserved(ledger, monkeypatch)
    lm = FakeModel(billing)
    door = gateway(ledger, Budget(max_cost=9.0), prices={lm.name: fixed_price(0.0, 1e6)})
    (job,) = start(door, lm, "a")
    await written.wait()
    job.cancel()
    await ends(job)
    for _ in range(times - 1):
        await asyncio.sleep(0)
        door.stop(Interrupted())
    go_on.set()
    await door.drain()
    await ledger.commit()
    assert lm.seen == []
    columns = "state, error_class, cost_usd"
    assert read(ledger.path, f"SELECT {columns} FROM calls") == [("error", "not_sent", 0.0)]
    assert door.account.total_paid == Spend()
    door.account.reserve(Spend(1, 0, 9.0))  # nothing is left set aside


async def test_a_call_that_is_held_back_after_it_was_written_down_is_sent_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = await while_reserved(ledger, monkeypatch)
    lm, door = FakeModel(billing), gateway(ledger)
    (job,) = start(door, lm, "a")
    await written.wait()
    door._limiter(lm).rate_limited(0.2)
    go_on.set()
    assert (await ends(job))[0].text == "billing"
    assert classes(ledger) == ["not_sent", "ok"]
    assert door.account.total_paid.calls == 1


async def test_a_fault_of_our_own_in_the_air_is_unknown_and_charged(ledger: Ledger) -> None:
    lm = scripted(ZeroDivisionError("a bug"))
    door = gateway(ledger, Budget(max_cost=9.0), prices={lm.name: fixed_price(0.0, 1e6)})
    with pytest.raises(ZeroDivisionError):
        await door.complete("model", lm, ask("a", max_tokens=3))
    assert read(ledger.path, "SELECT state, error_class, cost_usd FROM calls") == [
        ("unknown", "ZeroDivisionError", 3.0)
    ]
    assert door.account.total_paid.usd == pytest.approx(3.0)


# -- drain -------------------------------------------------------------------------------------------------------------


async def test_drain_waits_for_all_that_was_sent_and_calls_off_the_rest(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, max_concurrency=3)
    jobs = start(door, lm, *(f"{n}" for n in range(10)))
    await until(lambda: lm.arrived == 3)
    for job in jobs:
        job.cancel()
    drained = asyncio.ensure_future(door.drain())
    await asyncio.sleep(0.02)
    assert not drained.done()
    lm.open.set()
    await asyncio.wait_for(drained, 5)
    assert lm.arrived == 3
    assert states(ledger) == {"ok": 3}


async def test_drain_with_nothing_in_the_air_returns(ledger: Ledger) -> None:
    await asyncio.wait_for(gateway(ledger).drain(), 5)


async def test_drain_waits_for_calls_that_fail_without_raising(ledger: Ledger) -> None:
    lm, door = scripted(RunRefused("no key")), gateway(ledger)
    (job,) = start(door, lm, "a")
    job.cancel()
    await asyncio.wait_for(door.drain(), 5)


async def test_drain_does_not_wait_for_a_model_in_this_process(ledger: Ledger) -> None:
    """It costs nothing to call it off, and may take long to finish."""
    lm, door = GatedModel(billing, concurrency=1), gateway(ledger)
    (job,) = start(door, lm, "a")
    await until(lambda: lm.arrived)
    assert door.in_flight() == 0
    job.cancel()
    await asyncio.wait_for(door.drain(), 5)
    await ends(job)
    assert states(ledger) == {"error": 1}
    assert door.account.total_paid == Spend(1)


# -- stop --------------------------------------------------------------------------------------------------------------


async def test_after_a_stop_those_in_flight_land_and_all_others_get_the_error(ledger: Ledger) -> None:
    lm, other = GatedModel(billing), FakeModel(billing, "other/m")
    door, error = gateway(ledger, max_concurrency=2), Interrupted("stopped by the user")
    flying = start(door, lm, "0", "1")
    await until(lambda: lm.arrived == 2)
    waiting = start(door, lm, "2", "3", "4")
    await asyncio.sleep(0.01)
    door.stop(error)
    assert await ends(*waiting) == [error] * 3
    assert await ends(*start(door, lm, "5"), *start(door, other, "6")) == [error] * 2
    assert door.in_flight() == 2
    lm.open.set()
    assert [reply.text for reply in await ends(*flying)] == ["billing"] * 2
    await door.drain()
    assert states(ledger) == {"ok": 2}
    assert other.seen == []


async def test_the_first_reason_to_stop_is_the_one_that_is_told(ledger: Ledger) -> None:
    door = gateway(ledger)
    door.stop(Interrupted("first"))
    door.stop(Interrupted("second"))
    for name in ("m/1", "m/2"):
        with pytest.raises(Interrupted, match="first"):
            await door.complete("model", FakeModel(billing, name), ask("a"))


async def test_a_call_that_waits_to_be_tried_again_gets_the_error_too(ledger: Ledger) -> None:
    lm, door, error = scripted(RateLimited("slow down", 60.0)), gateway(ledger), Interrupted()
    (job,) = start(door, lm, "a")
    await until(lambda: len(lm.seen))
    await asyncio.sleep(0.01)
    door.stop(error)
    assert await ends(job) == [error]
    assert classes(ledger) == ["rate_limit"]


async def test_what_is_being_written_down_when_the_stop_comes_is_not_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = await while_reserved(ledger, monkeypatch)
    lm, door, error = FakeModel(billing), gateway(ledger), Interrupted()
    (job,) = start(door, lm, "a")
    await written.wait()
    door.stop(error)
    go_on.set()
    assert await ends(job) == [error]
    await door.drain()
    await ledger.commit()
    assert lm.seen == []
    assert classes(ledger) == ["not_sent"]


async def test_a_run_refused_call_stops_the_model_for_those_who_wait_and_lets_others_land(ledger: Ledger) -> None:
    class Half(GatedModel):
        async def complete(self, request: Request) -> Completion:
            if request.messages[-1].content == "bad":
                self.arrived += 1
                raise RunRefused("no such key")
            return await super().complete(request)

    lm, other = Half(billing), FakeModel(billing, "other/m")
    door = gateway(ledger, max_concurrency=2)
    (flying,) = start(door, lm, "good")
    await until(lambda: lm.arrived == 1)
    others = start(door, lm, "bad", "2", "3", "4")
    results = await ends(*others)
    assert [str(result) for result in results] == ["no such key"] * 4
    assert all(isinstance(result, RunRefused) for result in results)
    assert lm.arrived == 2, "those who waited were not sent"
    with pytest.raises(RunRefused):
        await door.complete("model", lm, ask("later"))
    lm.open.set()
    assert (await flying).text == "billing"
    assert (await door.complete("model", other, ask("a"))).text == "billing", "another model is not to blame"


async def test_an_end_of_the_budget_leaves_those_in_flight_alone(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, Budget(max_calls=2))
    flying = start(door, lm, "0", "1")
    await until(lambda: lm.arrived == 2)
    results = await ends(*start(door, lm, "2"))
    assert isinstance(results[0], BudgetExhausted)
    lm.open.set()
    assert [reply.text for reply in await ends(*flying)] == ["billing"] * 2


async def test_whatever_is_cancelled_when_the_account_and_the_ledger_agree(ledger: Ledger) -> None:
    """Forty calls, half of their callers cancelled at different moments: each attempt is paid once or not sent."""
    lm = FakeModel(billing)
    door = gateway(ledger, Budget(max_cost=320.0), prices={lm.name: fixed_price(0.0, 1e6)}, max_concurrency=4)
    jobs = start(door, lm, *(f"{n}" for n in range(40)))
    for number, job in enumerate(jobs):
        if number % 2:
            job.cancel()
        if number % 3 == 0:
            await asyncio.sleep(0.001)
    results = await ends(*jobs)
    await door.drain()
    await ledger.commit()
    found = read(ledger.path, "SELECT COALESCE(error_class, state), COUNT(*), SUM(cost_usd) FROM calls GROUP BY 1")
    assert {name for name, *_ in found} <= {"ok", "not_sent"}
    paid = next((count, usd) for name, count, usd in found if name == "ok")
    assert paid == (door.account.total_paid.calls, pytest.approx(door.account.total_paid.usd))
    assert len(lm.seen) == paid[0]
    assert sum(isinstance(result, Completion) for result in results) >= 20
    door.account.reserve(Spend(1, 0, 320.0 - paid[1]))  # nothing is left set aside


# -- what is waited for ------------------------------------------------------------------------------------------------


async def test_what_is_waited_for_is_what_was_sent_and_not_answered(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    assert door.waiting() == InFlight()
    jobs = start(door, lm, "a", "a", "b")
    await until(lambda: lm.arrived == 2)
    found = door.waiting()
    assert (found.calls, found.models, found.outage) == (2, (lm.name,), "")
    assert 0.0 < found.oldest < 10.0
    lm.open.set()
    await ends(*jobs)
    assert door.waiting() == InFlight()


async def test_a_call_between_two_attempts_is_not_waited_for(ledger: Ledger) -> None:
    lm, door = scripted(RateLimited("slow down", retry_after=0.5), "billing"), gateway(ledger)
    (job,) = start(door, lm, "a")
    await until(lambda: door.retries.count)
    assert door.waiting().calls == 0
    assert (await job).text == "billing"


# -- the time limit ----------------------------------------------------------------------------------------------------

ENDLESS = {
    "1xx": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"),
    "extension": (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2;", b"x"),
    "head": (b"HTTP/1.1 200 OK\r\n", b"x"),
}


@contextlib.asynccontextmanager
async def endless(head: bytes, more: bytes) -> AsyncIterator[str]:
    """The address of a server whose replies never end."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            writer.write(head)
            while not writer.is_closing():
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def test_the_time_limit_bounds_calls_in_flight(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "LANDING_SECONDS", 0.1)
    lm, prices = GatedModel(billing), {"fake/m": fixed_price(0.0, 1000.0)}
    door = gateway(ledger, Budget(time_limit=0.2), prices=prices)
    results = await ends(*start(door, lm, "a", "b"))
    assert [type(each) for each in results] == [BudgetExhausted] * 2
    assert "time_limit = 0.2" in str(results[0])
    assert states(ledger) == {"unknown": 2}
    assert door.account.total_paid.usd == pytest.approx(2 * 0.008), "each at its reservation"


async def test_a_call_that_lands_soon_after_the_time_limit_counts(ledger: Ledger) -> None:
    lm = GatedModel(billing)
    door = gateway(ledger, Budget(time_limit=0.2))
    job, *_ = start(door, lm, "a")
    await asyncio.sleep(0.3)
    lm.open.set()
    assert (await job).text == "billing"
    assert isinstance((await ends(*start(door, lm, "b")))[0], BudgetExhausted)


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_reply_that_never_ends_is_called_off(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By the time limit of the run, or by the deadline of the call, which is one in all."""
    monkeypatch.setattr(budget, "LANDING_SECONDS", 0.1)
    async with endless(*ENDLESS[kind]) as url:
        lm = OpenAIModel(f"openai-compatible/x@{url}", "x", base_url=url)
        door = gateway(ledger, Budget(time_limit=0.5))
        job = door.complete("model", lm, ask("a"))
        assert isinstance((await ends(asyncio.ensure_future(job)))[0], BudgetExhausted)
        assert states(ledger) == {"unknown": 1}
        with pytest.raises(TransportUnknown, match=r"no reply within 0\.5 seconds"):
            await asyncio.wait_for(lm.complete(ask("b", timeout=0.5)), 10)
        await lm.close()
