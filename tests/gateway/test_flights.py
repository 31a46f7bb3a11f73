"""A call in flight belongs to nobody: whoever is cancelled, it is settled and recorded, or it was never sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.errors import BudgetExhausted, Interrupted, RateLimited, RowRefused, RunRefused
from agent.gateway.budget import LANDING_SECONDS
from agent.gateway.in_flight import InFlight, all_of, side_by_side
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.types import Budget, Completion, Request, Spend
from tests.gateway.doors import classes, gateway, scripted, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, GatedModel, ask, until

PRICES = {"fake/m": fixed_price(0.0, 1e6)}


def billing(request: Request) -> str:
    return "billing"


def start(door: Any, lm: FakeModel, *texts: str) -> list[asyncio.Task[Completion]]:
    return [asyncio.ensure_future(door.complete("model", lm, ask(text))) for text in texts]


async def ends(*jobs: asyncio.Task[Completion]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 1000)


# -- twins -------------------------------------------------------------------------------------------------------------


async def test_equal_calls_at_the_same_time_are_sent_once(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    jobs = start(door, lm, "a", "a", "a")
    await until(lambda: lm.arrived)
    lm.open.set()
    assert {reply.text for reply in await ends(*jobs)} == {"billing"}
    assert (lm.arrived, door.account.total_paid.calls, door.account.total_used.calls) == (1, 1, 3)
    await ledger.commit()
    assert states(ledger) == {"ok": 1, "cached": 2}


async def test_twins_share_a_failure_and_a_later_call_tries_again(ledger: Ledger) -> None:
    lm, door = scripted(RowRefused("too long"), "billing"), gateway(ledger)
    assert [type(result) for result in await ends(*start(door, lm, "a", "a"))] == [RowRefused] * 2
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert classes(ledger) == ["permanent_row", "ok"]


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_either_of_two_twins_may_be_cancelled(ledger: Ledger, cancelled: int) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    twins = start(door, lm, "a", "a")
    await until(lambda: lm.arrived)
    twins[cancelled].cancel()
    lm.open.set()
    results = await ends(*twins)
    assert isinstance(results[cancelled], asyncio.CancelledError)
    assert results[1 - cancelled].text == "billing"
    assert lm.arrived == 1


async def test_a_call_that_waits_for_a_slot_is_cancelled_only_with_its_last_caller(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, max_concurrency=1)
    (busy,) = start(door, lm, "busy")
    await until(lambda: lm.arrived)
    first, twin = start(door, lm, "a", "a")
    (alone,) = start(door, lm, "b")
    await asyncio.sleep(0.01)
    first.cancel()
    alone.cancel()
    await asyncio.sleep(0.01)
    lm.open.set()
    assert (await twin).text == "billing"
    await ends(busy, alone)
    await door.drain()
    assert states(ledger) == {"ok": 2}
    assert door.account.total_paid.calls == 2
    door.account.reserve(Spend(1))  # nothing is left reserved


async def test_a_new_caller_of_a_call_that_is_just_being_cancelled_gets_it(ledger: Ledger) -> None:
    lm, door = FakeModel(billing), gateway(ledger)
    (first,) = start(door, lm, "a")
    await until(lambda: ledger._next_call > 1)  # it is being recorded
    first.cancel()
    await asyncio.sleep(0)
    (reply,) = await ends(*start(door, lm, "a"))
    assert isinstance(reply, Completion)


# -- a cancelled caller ------------------------------------------------------------------------------------------------


async def test_a_sent_call_of_a_cancelled_caller_is_settled_counted_and_not_bought_again(ledger: Ledger) -> None:
    lm = GatedModel(billing)
    door = gateway(ledger, Budget(max_cost=9.0), prices=PRICES)
    (job,) = start(door, lm, "a")
    await until(lambda: lm.arrived)
    job.cancel()
    assert isinstance((await ends(job))[0], asyncio.CancelledError)
    assert door.in_flight() == 1
    lm.open.set()
    await door.drain()
    assert states(ledger) == {"ok": 1}
    assert door.account.total_paid == Spend(1, 2, 1.0) == door.account.total_used
    assert door.in_flight() == 0
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert lm.arrived == 1


def while_reserved(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """From now on a reservation is on the disk when the first event is set, and returns when the second is."""
    written, resume, plain = asyncio.Event(), asyncio.Event(), ledger.reserve

    async def slow(*args: Any) -> int:
        call_id = await plain(*args)
        written.set()
        await resume.wait()
        return call_id

    monkeypatch.setattr(ledger, "reserve", slow)
    return written, resume


@pytest.mark.parametrize("stops", [0, 1, 2])
async def test_a_call_cancelled_while_it_is_recorded_is_recorded_as_not_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    """However often it is cancelled: by its caller, by `stop`, by `drain`."""
    written, resume = while_reserved(ledger, monkeypatch)
    lm = FakeModel(billing)
    door = gateway(ledger, Budget(max_cost=9.0), prices=PRICES)
    (job,) = start(door, lm, "a")
    await written.wait()
    job.cancel()
    await ends(job)
    for _ in range(stops):
        await asyncio.sleep(0)
        door.stop(Interrupted())
    resume.set()
    await door.drain()
    await ledger.commit()
    assert lm.seen == []
    assert read(ledger.path, "SELECT state, error_class, cost_usd FROM calls") == [("error", "not_sent", 0.0)]
    assert door.account.total_paid == Spend()
    door.account.reserve(Spend(1, 0, 9.0))  # nothing is left reserved


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_a_call_held_back_while_it_is_recorded_is_sent_later_or_gets_the_error_of_a_stop(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    written, resume = while_reserved(ledger, monkeypatch)
    lm, door, error = FakeModel(billing), gateway(ledger), Interrupted()
    (job,) = start(door, lm, "a")
    await written.wait()
    door.stop(error) if is_stopped else door._limiter(lm).rate_limited(20.0)
    resume.set()
    (result,) = await ends(job)
    assert result is error if is_stopped else result.text == "billing"
    await door.drain()
    await ledger.commit()
    assert classes(ledger) == (["not_sent"] if is_stopped else ["not_sent", "ok"])
    assert door.account.total_paid.calls == len(lm.seen) == 1 - is_stopped


async def test_an_internal_error_in_flight_is_unknown_and_charged(ledger: Ledger) -> None:
    lm, door = scripted(ZeroDivisionError("a bug")), gateway(ledger, Budget(max_cost=9.0), prices=PRICES)
    with pytest.raises(ZeroDivisionError):
        await door.complete("model", lm, ask("a", max_tokens=3))
    told = read(ledger.path, "SELECT state, error_class, cost_usd FROM calls")
    assert told == [("unknown", "ZeroDivisionError", 3.0)]
    assert door.account.total_paid.usd == pytest.approx(3.0)


# -- drain -------------------------------------------------------------------------------------------------------------


async def test_drain_waits_for_sent_calls_and_cancels_the_others(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, max_concurrency=3)
    await door.drain()
    jobs = start(door, lm, *(f"{n}" for n in range(10)))
    await until(lambda: lm.arrived == 3)
    for job in jobs:
        job.cancel()
    drained = asyncio.ensure_future(door.drain())
    await asyncio.sleep(60)
    assert not drained.done()
    lm.open.set()
    await drained
    assert lm.arrived == 3
    assert states(ledger) == {"ok": 3}


async def test_drain_ignores_errors_and_does_not_wait_for_a_model_in_this_process(ledger: Ledger) -> None:
    lm, door = GatedModel(billing, concurrency=1), gateway(ledger)
    job, failing = *start(door, lm, "a"), *start(door, scripted(RunRefused("no key"), name="m/2"), "b")
    failing.cancel()
    await until(lambda: lm.arrived)
    assert door.in_flight() <= 1, "that of the other model"
    job.cancel()
    await door.drain()
    await ends(job, failing)
    assert door.account.paid["model"].usd == 0.0
    assert read(ledger.path, "SELECT state FROM calls WHERE model = 'fake/m'") == [("error",)]


# -- stop --------------------------------------------------------------------------------------------------------------


async def test_after_a_stop_calls_in_flight_are_settled_and_all_others_get_the_first_error(ledger: Ledger) -> None:
    lm, other, paused = GatedModel(billing), FakeModel(billing, "m/2"), scripted(RateLimited("slow", 60.0), name="m/3")
    door, error = gateway(ledger, max_concurrency=2), Interrupted("stopped by the user")
    flying, retrying = start(door, lm, "0", "1"), start(door, paused, "r")
    await until(lambda: lm.arrived == 2 and paused.seen)
    waiting = start(door, lm, "2", "3", "4")
    await asyncio.sleep(0.01)
    door.stop(error)
    door.stop(Interrupted("again"))
    assert await ends(*waiting, *retrying) == [error] * 4
    assert await ends(*start(door, lm, "5"), *start(door, other, "6")) == [error] * 2
    assert door.in_flight() == 2
    lm.open.set()
    assert [reply.text for reply in await ends(*flying)] == ["billing"] * 2
    await door.drain()
    assert states(ledger) == {"ok": 2, "error": 1}
    assert other.seen == []


async def test_a_stop_ends_a_call_of_a_model_in_this_process_at_once(ledger: Ledger) -> None:
    lm, door, error = GatedModel(billing, concurrency=1), gateway(ledger), Interrupted()
    (job,) = start(door, lm, "a")
    await until(lambda: lm.arrived)
    door.stop(error)
    assert await ends(job) == [error]


async def test_a_refusal_of_all_calls_stops_its_model_for_waiting_calls_only(ledger: Ledger) -> None:
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
    results = await ends(*start(door, lm, "bad", "2", "3", "4"))
    assert [(type(result), str(result)) for result in results] == [(RunRefused, "no such key")] * 4
    assert lm.arrived == 2, "waiting calls were not sent"
    with pytest.raises(RunRefused):
        await door.complete("model", lm, ask("later"))
    lm.open.set()
    assert (await flying).text == "billing"
    assert (await door.complete("model", other, ask("a"))).text == "billing"


async def test_the_account_and_the_ledger_agree_whatever_is_cancelled(ledger: Ledger) -> None:
    """Forty calls, half of the callers cancelled at different moments: each attempt is paid once or not sent."""

    class Slow(FakeModel):
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(0.002)
            return await super().complete(request)

    lm = Slow(billing)
    door = gateway(ledger, Budget(max_cost=320.0), prices=PRICES, max_concurrency=4)
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
    door.account.reserve(Spend(1, 0, 320.0 - paid[1]))  # nothing is left reserved


# -- what is waited for, and until when --------------------------------------------------------------------------------


async def test_calls_sent_and_not_answered_are_awaited_but_not_those_between_attempts(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger)
    assert door.waiting() == InFlight()
    jobs = start(door, lm, "a", "a", "b")
    await until(lambda: lm.arrived == 2)
    await asyncio.sleep(5)
    jobs += start(door, lm, "c")
    await until(lambda: lm.arrived == 3)
    found = door.waiting()
    assert (found.calls, found.models, found.outage) == (3, (lm.name,), "")
    assert found.oldest == pytest.approx(5, abs=0.1)
    lm.open.set()
    await ends(*jobs)
    (job,) = start(door, scripted(RateLimited("slow down", 50.0), "billing", name="m/2"), "c")
    await until(lambda: door.retries.count)
    assert door.waiting() == InFlight(outage="m/2: too many requests; giving up in 300 s")
    await ends(job)


async def test_the_time_limit_bounds_calls_in_flight(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, Budget(time_limit=20.0), prices={"fake/m": fixed_price(0.0, 1e3)})
    results = await ends(*start(door, lm, "a", "b"))
    assert [type(each) for each in results] == [BudgetExhausted] * 2
    assert "time_limit = 20" in str(results[0])
    assert asyncio.get_running_loop().time() == pytest.approx(20 + LANDING_SECONDS, abs=0.1)
    assert states(ledger) == {"unknown": 2}
    assert door.account.total_paid.usd == pytest.approx(2 * 0.008), "each at its reservation"


async def test_a_call_settled_soon_after_the_time_limit_counts_and_no_other_starts(ledger: Ledger) -> None:
    lm, door = GatedModel(billing), gateway(ledger, Budget(time_limit=20.0))
    (job,) = start(door, lm, "a")
    await asyncio.sleep(20 + LANDING_SECONDS - 1)
    lm.open.set()
    assert (await job).text == "billing"
    assert isinstance((await ends(*start(door, lm, "b")))[0], BudgetExhausted)


# -- in parallel -------------------------------------------------------------------------------------------------------


async def test_parallel_calls_answer_in_order_and_finish_before_the_end_of_the_budget_is_raised() -> None:
    done: list[int] = []

    async def answer(number: int, seconds: float = 0.0, error: Exception | None = None) -> int:
        await asyncio.sleep(seconds)
        if error:
            raise error
        done.append(number)
        return number

    stop = BudgetExhausted("no more")
    assert await all_of(answer(n, seconds=3 - n) for n in range(3)) == [0, 1, 2]
    assert await side_by_side([answer(0, error=stop), answer(4, seconds=1)]) == [stop, 4]
    with pytest.raises(BudgetExhausted, match="no more"):
        await all_of([answer(0, error=stop), answer(5, seconds=1)])
    with pytest.raises(RunRefused):
        await all_of([answer(6, seconds=1), answer(7, error=RunRefused("bad key"))])
    await asyncio.sleep(2)
    assert done == [2, 1, 0, 4, 5], "any other error cancels the rest"
