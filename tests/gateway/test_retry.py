"""Each class of failure has its own price and its own patience."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import (
    BadResponse,
    BudgetExhausted,
    ModelError,
    ParameterRefused,
    RateLimited,
    RequestRefused,
    RowRefused,
    RunRefused,
    Transient,
    TransportUnknown,
)
from agent.gateway import limiter
from agent.gateway.budget import Spend
from agent.gateway.gateway import Gateway
from agent.gateway.limiter import (
    LONGEST,
    MAX_ATTEMPTS,
    MAX_PAID_ATTEMPTS,
    PAID_FREE,
    PAID_SHARE,
    Retries,
    maybe_paid,
)
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.types import Budget, Completion, Request
from tests.gateway.doors import burst, classes, gateway, model, scripted, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, ask
from tests.wire import Fault, Reply, WireServer

SLOW, REFUSED = RateLimited("slow down", 0.0, status=429), ParameterRefused("no temperature", status=400)


class Slow(random.Random):
    """A jitter that waits as long as it may."""

    def uniform(self, a: float, b: float) -> float:
        return 20.0


DOWN, RESET, HTML = Transient("503", status=503), TransportUnknown("reset"), BadResponse("<html>", status=200)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A breaker that waits a hundredth of a second."""
    monkeypatch.setattr(limiter, "LONGEST_PROBE", 0.01)


# -- the policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "attempts"), [(DOWN, MAX_ATTEMPTS), (RESET, MAX_PAID_ATTEMPTS), (HTML, 3)])
def test_a_failure_is_tried_again_so_many_times(error: ModelError, attempts: int) -> None:
    retries = Retries(random.Random(0))
    delays = [retries.delay(error, attempt, 100) for attempt in range(1, attempts + 1)]
    assert [delay is None for delay in delays] == [False] * (attempts - 1) + [True]
    assert retries.count == attempts - 1


@pytest.mark.parametrize("error", [RowRefused("too long"), RunRefused("no key")])
def test_what_cannot_work_is_not_tried_again(error: ModelError) -> None:
    assert Retries(random.Random(0)).delay(error, 1, 1000) is None


def test_a_rate_limit_is_always_tried_again_and_waits_elsewhere() -> None:
    retries = Retries(random.Random(0))
    assert [retries.delay(RateLimited("slow down", 9.0), attempt, 0) for attempt in range(1, 100)] == [0.0] * 99


def test_only_what_the_provider_may_have_done_may_have_been_paid() -> None:
    errors = (DOWN, RateLimited("x"), RowRefused("x"), RunRefused("x"), RESET, HTML)
    assert [maybe_paid(error) for error in errors] == [False] * 4 + [True] * 2


@given(seed=st.integers(), attempt=st.integers(1, 5))
def test_a_delay_lies_between_zero_and_a_ceiling_that_doubles(seed: int, attempt: int) -> None:
    delay = Retries(random.Random(seed)).delay(DOWN, attempt, 0)
    assert delay is not None
    assert 0.0 <= delay <= min(LONGEST, 0.25 * 2**attempt)


def test_delays_are_spread_over_their_whole_range() -> None:
    retries = Retries(random.Random(0))
    delays = [retries.delay(DOWN, 3, 0) or 0.0 for _ in range(200)]
    assert min(delays) < 0.1
    assert max(delays) > 1.9


@given(st.lists(st.tuples(st.sampled_from([RESET, HTML, DOWN]), st.booleans()), max_size=300))
def test_retries_of_what_may_have_been_paid_stay_a_small_part_of_the_traffic(steps: list[tuple[Any, bool]]) -> None:
    retries, calls, paid = Retries(random.Random(0)), 0, 0
    for error, settled in steps:
        calls += settled
        delay = retries.delay(error, 1, calls)
        assert delay is not None or maybe_paid(error), "what costs nothing is not counted"
        paid += maybe_paid(error) and delay is not None
        assert paid <= PAID_FREE + PAID_SHARE * calls + 1


def test_the_share_is_of_the_calls_of_the_run() -> None:
    few, many = Retries(random.Random(0)), Retries(random.Random(0))
    granted = [sum(r.delay(RESET, 1, n) is not None for _ in range(200)) for r, n in ((few, 0), (many, 1000))]
    assert granted == [PAID_FREE, PAID_FREE + 100]


# -- what is charged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "usd", "state"),
    [
        (DOWN, 0.0, "error"),
        (RowRefused("too long", status=400), 0.0, "error"),
        (RunRefused("no key", status=401), 0.0, "error"),
        (RESET, 3.0, "unknown"),
        (HTML, 3.0, "error"),
    ],
)
async def test_a_failed_attempt_is_charged_by_its_class_and_counts_as_a_call(
    ledger: Ledger, quick: None, error: ModelError, usd: float, state: str
) -> None:
    lm = scripted(error)
    door = gateway(ledger, Budget(max_calls=1, max_cost=9.0), prices={lm.name: fixed_price(0.0, 1e6)})
    with pytest.raises((type(error), BudgetExhausted)):
        await door.complete("model", lm, ask("a", max_tokens=3))
    assert door.account.total_paid == Spend(1, 3 + 9 if usd else 0, usd)
    assert door.account.total_used == Spend()
    row = read(ledger.path, "SELECT state, error_class, cost_usd, http_status FROM calls")
    assert row == [(state, error.code, usd, error.status)]


@pytest.mark.parametrize("fault", [Fault(raw=b""), Fault(body="<html>"), Fault(body={"choices": None})])
async def test_an_attempt_that_may_have_been_paid_for_takes_its_reservation_from_the_cap(
    ledger: Ledger, fault: Fault
) -> None:
    with WireServer(lambda messages, body: fault) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_cost=1.0), prices={lm.name: fixed_price(0.0, 1e6)})
        with pytest.raises(BudgetExhausted):
            await door.complete("model", lm, ask("a", max_tokens=1, repeat=7))
        await lm.close()
    assert len(server.requests) == 1, "a second attempt would pass the cap of one dollar"
    assert door.account.total_paid.usd == pytest.approx(1.0)


# -- how often ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RESET, HTML])
async def test_what_may_have_been_paid_is_tried_three_times(ledger: Ledger, error: ModelError) -> None:
    lm, door = scripted(error), gateway(ledger)
    with pytest.raises(type(error)):
        await door.complete("model", lm, ask("a"))
    assert len(lm.seen) == 3 == door.account.total_paid.calls
    assert read(ledger.path, "SELECT attempt FROM calls ORDER BY id") == [(1,), (2,), (3,)]
    assert door.retries.count == 2


@pytest.mark.parametrize("error", [RESET, HTML])
async def test_it_is_tried_three_times_also_while_the_provider_is_down_for_all(
    ledger: Ledger, quick: None, error: ModelError
) -> None:
    """An outage is no reason to pay for a call again and again."""
    lm, door = scripted(*[DOWN] * 5, error), gateway(ledger)
    with pytest.raises(type(error)):
        await asyncio.wait_for(door.complete("model", lm, ask("a")), 10)
    assert classes(ledger).count(error.code) <= 3


@pytest.mark.parametrize("calls", [20])
async def test_many_broken_connections_are_not_all_tried_again(ledger: Ledger, calls: int) -> None:
    door = gateway(ledger)
    await burst(door, scripted(HTML), calls)
    assert classes(ledger) == ["bad_response"] * (calls + PAID_FREE), "two for the first ones, none for the last"


async def test_a_row_that_fails_alone_is_tried_six_times(ledger: Ledger) -> None:
    """While others succeed, the provider is not down: the row is to blame."""
    door = gateway(ledger)

    def answer(request: Request) -> str:
        if request.messages[-1].content == "bad":
            tried.append(1)
            raise DOWN
        return "ok"

    tried: list[int] = []
    lm = FakeModel(answer)
    bad = asyncio.ensure_future(door.complete("model", lm, ask("bad")))
    number = 0
    while not bad.done():
        number += 1
        await door.complete("model", lm, ask(f"{number}"))
    with pytest.raises(Transient):
        await bad
    assert len(tried) == MAX_ATTEMPTS == 6
    assert door.account.total_paid.usd == 0.0


async def test_an_outage_is_waited_out_however_many_attempts_it_takes(ledger: Ledger, quick: None) -> None:
    lm, door = scripted(*[DOWN] * 40, "billing"), gateway(ledger)
    reply = await asyncio.wait_for(door.complete("model", lm, ask("a")), 30)
    assert reply.text == "billing"
    assert states(ledger) == {"error": 40, "ok": 1}
    assert door.account.total_used.calls == 1


async def test_a_call_that_was_held_back_as_the_outage_began_waits_it_out_too(
    ledger: Ledger, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, door, reserve = scripted("hello", *[DOWN] * 12, "billing"), gateway(ledger), ledger.reserve
    await door.complete("model", lm, ask("a"))

    async def slowly(*given: Any) -> int:
        monkeypatch.setattr(ledger, "reserve", reserve)
        call_id = await reserve(*given)
        for _ in range(limiter.TRIP):  # meanwhile other calls fail
            door._limiter(lm).failed(DOWN)
        return call_id

    monkeypatch.setattr(ledger, "reserve", slowly)
    reply = await asyncio.wait_for(door.complete("model", lm, ask("b")), 30)
    assert (reply.text, classes(ledger)) == ("billing", ["ok", "not_sent", *["transient"] * 12, "ok"])


async def test_an_outage_hits_all_rows_and_none_is_given_up(ledger: Ledger, quick: None) -> None:
    left = [60]

    def answer(request: Request) -> str:
        left[0] -= 1
        if left[0] > 0:
            raise DOWN
        return "billing"

    results = await asyncio.wait_for(burst(gateway(ledger), FakeModel(answer), 30), 30)
    assert [result for result in results if isinstance(result, Exception)] == []


async def test_an_outage_without_end_stops_the_run_and_says_so_to_all(ledger: Ledger, quick: None) -> None:
    door = gateway(ledger, max_wait=0.05)
    results = await asyncio.wait_for(burst(door, scripted(DOWN), 12), 30)
    assert {type(result) for result in results} == {RunRefused}
    assert "no reply for" in str(results[0])


async def test_no_retry_waits_longer_than_the_user_does(ledger: Ledger) -> None:
    door, began = gateway(ledger, max_wait=1.5, max_concurrency=8), time.monotonic()
    results = await asyncio.wait_for(burst(door, scripted(DOWN), 8), 30)
    assert {type(result) for result in results} == {RunRefused}
    assert 1.5 <= time.monotonic() - began < 2.5


async def test_a_provider_that_answers_no_is_not_down(ledger: Ledger, quick: None) -> None:
    """Rows that it refuses show that it is back: what fails later begins a new outage."""
    no = RowRefused("too long")
    lm, door = scripted(*[DOWN] * 6, no, "billing"), gateway(ledger, max_wait=0.5)
    with pytest.raises(RowRefused):
        await asyncio.wait_for(door.complete("model", lm, ask("a")), 10)
    assert not door._limiter(lm).is_open()


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusing(is_refused: Callable[[int, int], bool]) -> Reply:
    """Refuses `is_refused(request, row)` in the same words; rows are as of `burst`."""
    seen = count(1)

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        number = next(seen)
        if is_refused(number, int(messages[0]["content"].split()[-1])):
            return Fault(status=400, body={"error": {"message": f"This is closed to you (request {number})."}})
        return "billing"

    return reply


async def rows(door: Gateway, lm: Any, count: int, candidate: str = "c_1") -> list[Any]:
    """What becomes of the rows of a candidate that are asked at once."""
    jobs = (door.complete("model", lm, ask(f"row {n}"), candidate) for n in range(count))
    return await asyncio.gather(*jobs, return_exceptions=True)


async def test_an_account_that_is_closed_on_the_way_stops_the_run(ledger: Ledger) -> None:
    with WireServer(refusing(lambda request, row: request > 20)) as server:
        lm, door = model(server), gateway(ledger, max_concurrency=4)
        results = await rows(door, lm, 60)
        with pytest.raises(RunRefused, match=r"calls in a row were refused in the same words .*closed to you"):
            await door.complete("model", lm, ask("one more"))
        await lm.close()
    assert sum(isinstance(result, Completion) for result in results) == 20
    assert any(isinstance(result, RunRefused) for result in results)
    assert len(server.requests) < 40


async def test_rows_that_are_refused_here_and_there_do_not_also_where_the_ledger_has_the_others(
    ledger: Ledger,
) -> None:
    with WireServer(refusing(lambda request, row: row % 3 == 0)) as server:
        lm = model(server)
        for _ in range(2):
            results = await rows(gateway(ledger), lm, 60)
            assert [type(result) for result in results] == [RequestRefused, Completion, Completion] * 20
        await lm.close()
    assert len(server.requests) == 60 + 20


async def test_a_prompt_that_was_never_answered_may_be_to_blame_itself(ledger: Ledger) -> None:
    with WireServer(refusing(lambda request, row: request > 1)) as server:
        lm, door = model(server), gateway(ledger)
        await door.complete("model", lm, ask("row 99"), "c_1")
        assert {type(result) for result in await rows(door, lm, 20, "c_2")} == {RequestRefused}
        await lm.close()


# -- 429 ---------------------------------------------------------------------------------------------------------------


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
    assert door.retries.count == 1


async def test_a_longer_wait_than_the_user_allows_stops_the_run_at_once(ledger: Ledger) -> None:
    lm, door = scripted(RateLimited("slow down", 400.0)), gateway(ledger, max_concurrency=2, max_wait=300.0)
    results = await asyncio.wait_for(burst(door, lm, 6), 5)
    assert {type(result) for result in results} == {RunRefused}
    assert "more than --max-wait 300" in str(results[0])
    assert len(lm.seen) <= 2


async def test_a_rate_limit_does_not_use_up_the_attempts(ledger: Ledger) -> None:
    lm, door = scripted(*[RateLimited("slow down", 0.0)] * 12, "billing"), gateway(ledger)
    assert (await asyncio.wait_for(door.complete("model", lm, ask("a")), 10)).text == "billing"
    assert classes(ledger) == ["rate_limit"] * 12 + ["ok"]


@pytest.mark.parametrize(
    "before", [[SLOW] * 2 + [RESET] * 2, [SLOW] * 5 + [DOWN] * 2, [REFUSED] * 2 + [RESET] * 2, [DOWN] * 3 + [RESET] * 2]
)
async def test_one_kind_of_failure_does_not_use_up_the_attempts_of_another(
    ledger: Ledger, before: list[ModelError]
) -> None:
    door = gateway(ledger)
    assert (await asyncio.wait_for(door.complete("model", scripted(*before, "ok"), ask("a")), 10)).text == "ok"


async def test_no_wait_lasts_longer_than_the_run_may(ledger: Ledger) -> None:
    """Neither for a pause that the provider asked for, nor before another attempt."""
    for error in (RateLimited("slow down", 30.0), DOWN):
        door = gateway(ledger, Budget(time_limit=0.3), jitter=Slow())
        with pytest.raises(BudgetExhausted, match=r"time_limit = 0\.3"):
            await asyncio.wait_for(door.complete("model", scripted(error), ask("a")), 5)
        assert door.account.seconds < 2


async def test_a_wait_within_the_time_of_the_run_is_waited(ledger: Ledger) -> None:
    door = gateway(ledger, Budget(time_limit=60.0))
    lm = scripted(RateLimited("slow down", 0.05), "billing")
    assert (await asyncio.wait_for(door.complete("model", lm, ask("a")), 5)).text == "billing"


async def test_another_model_does_not_wait(ledger: Ledger) -> None:
    door, limited = gateway(ledger), scripted(RateLimited("slow down", 30.0), name="m/1")
    waiting = asyncio.ensure_future(door.complete("model", limited, ask("a")))
    await asyncio.sleep(0.05)
    reply = await asyncio.wait_for(door.complete("model", FakeModel(lambda r: "ok", "m/2"), ask("a")), 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert reply.text == "ok"
    assert len(limited.seen) == 1
