"""Each class of failure has its price, its number of attempts, and its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
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
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.gateway.limiter import MOST_LIMITED
from agent.gateway.prices import fixed_price
from agent.gateway.retries import MAX_ATTEMPTS, MAX_PAID_ATTEMPTS, PAID_FREE, PAID_SHARE, Retries, maybe_paid
from agent.ledger.store import Ledger
from agent.types import Budget, Completion, Request, Spend
from tests.gateway.doors import burst, classes, gateway, scripted, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, ask, open_ledger

DOWN, RESET, HTML = Transient("503", status=503), TransportUnknown("reset"), BadResponse("<html>", status=200)
SLOW, REFUSED = RateLimited("slow down", 0.0, status=429), ParameterRefused("no temperature", status=400)
NO_KEY = RunRefused("no key", status=401)


class Slow(random.Random):
    """A jitter that waits as long as it may."""

    def uniform(self, a: float, b: float) -> float:
        return 20.0


def now() -> float:
    return asyncio.get_running_loop().time()


# -- the policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(DOWN, MAX_ATTEMPTS), (RESET, MAX_PAID_ATTEMPTS), (HTML, 3), (RowRefused("too long"), 1), (NO_KEY, 1)],
)
def test_a_failure_is_tried_a_number_of_times_by_its_class(error: ModelError, attempts: int) -> None:
    retries = Retries(random.Random(0))
    delays = [retries.delay(error, attempt, 1000) for attempt in range(1, attempts + 1)]
    assert [delay is None for delay in delays] == [False] * (attempts - 1) + [True]
    assert retries.count == attempts - 1
    assert maybe_paid(error) is (error in (RESET, HTML))


def test_a_429_is_always_retried_and_waits_in_the_limiter() -> None:
    retries = Retries(random.Random(0))
    assert [retries.delay(RateLimited("slow down", 9.0), attempt, 0) for attempt in range(1, 100)] == [0.0] * 99
    assert not maybe_paid(SLOW)


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0)])
def test_delays_spread_from_zero_to_a_ceiling_that_doubles(attempt: int, ceiling: float) -> None:
    retries = Retries(random.Random(0))
    delays = [retries.delay(DOWN, attempt, 0) or 0.0 for _ in range(400)]
    assert 0.0 <= min(delays) < 0.05 * ceiling
    assert 0.95 * ceiling < max(delays) <= ceiling


@given(st.lists(st.tuples(st.sampled_from([RESET, HTML, DOWN]), st.booleans()), max_size=300))
def test_retries_of_possibly_paid_attempts_stay_a_small_share(steps: list[tuple[Any, bool]]) -> None:
    retries, calls, paid = Retries(random.Random(0)), 0, 0
    for error, settled in steps:
        calls += settled
        delay = retries.delay(error, 1, calls)
        assert delay is not None or maybe_paid(error), "free attempts are not counted"
        paid += maybe_paid(error) and delay is not None
        assert paid <= PAID_FREE + PAID_SHARE * calls + 1


@pytest.mark.parametrize(("calls", "granted"), [(0, PAID_FREE), (1000, PAID_FREE + 100)])
def test_the_share_is_of_the_calls_of_the_run(calls: int, granted: int) -> None:
    retries = Retries(random.Random(0))
    assert sum(retries.delay(RESET, 1, calls) is not None for _ in range(200)) == granted


# -- charges and attempts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "usd", "state"),
    [(DOWN, 0.0, "error"), (RowRefused("no", status=400), 0.0, "error"), (NO_KEY, 0.0, "error"),
     (RESET, 3.0, "unknown"), (HTML, 3.0, "error")],
)  # fmt: skip
async def test_a_failed_attempt_is_charged_by_its_class_and_counts_as_a_call(
    ledger: Ledger, error: ModelError, usd: float, state: str
) -> None:
    lm = scripted(error)
    door = gateway(ledger, Budget(max_calls=1, max_cost=9.0), prices={lm.name: fixed_price(0.0, 1e6)})
    with pytest.raises((type(error), BudgetExhausted)):
        await door.complete("model", lm, ask("a", max_tokens=3))
    assert door.account.total_paid == Spend(1, 3 + 9 if usd else 0, usd)
    assert door.account.total_used == Spend()
    row = read(ledger.path, "SELECT state, error_class, cost_usd, http_status FROM calls")
    assert row == [(state, error.code, usd, error.status)]


@pytest.mark.parametrize("error", [RESET, HTML])
@pytest.mark.parametrize("outage", [0, 5])
async def test_a_possibly_paid_attempt_is_made_three_times_even_in_an_outage(
    ledger: Ledger, error: ModelError, outage: int
) -> None:
    lm, door = scripted(*[DOWN] * outage, error), gateway(ledger)
    with pytest.raises(type(error)):
        await door.complete("model", lm, ask("a"))
    assert classes(ledger) == ["transient"] * outage + [error.code] * 3
    assert [n for (n,) in read(ledger.path, "SELECT attempt FROM calls ORDER BY id")] == [*range(1, outage + 4)]
    assert door.retries.count == outage + 2
    assert len(lm.seen) == outage + 3 == door.account.total_paid.calls


@pytest.mark.parametrize(
    "before",
    [[SLOW] * 2 + [RESET] * 2, [SLOW] * 12 + [DOWN] * 2, [REFUSED] * 2 + [RESET] * 2, [DOWN] * 3 + [RESET] * 2],
)
async def test_one_class_of_failure_does_not_use_up_the_attempts_of_another(
    ledger: Ledger, before: list[ModelError]
) -> None:
    assert (await gateway(ledger).complete("model", scripted(*before, "ok"), ask("a"))).text == "ok"


async def test_not_all_broken_connections_are_retried(ledger: Ledger) -> None:
    await burst(gateway(ledger), scripted(HTML), 20)
    assert classes(ledger) == ["bad_response"] * (20 + PAID_FREE), "two for the first ones, none for the last"


async def test_a_row_that_fails_while_others_succeed_is_tried_six_times(ledger: Ledger) -> None:
    door, tried = gateway(ledger), []

    def answer(request: Request) -> str:
        if request.messages[-1].content == "bad":
            tried.append(1)
            raise DOWN
        return "ok"

    lm, number = FakeModel(answer), 0
    bad = asyncio.ensure_future(door.complete("model", lm, ask("bad")))
    while not bad.done():
        number += 1
        await door.complete("model", lm, ask(f"{number}"))
    with pytest.raises(Transient):
        await bad
    assert len(tried) == MAX_ATTEMPTS == 6
    assert door.account.total_paid.usd == 0.0


# -- outages -----------------------------------------------------------------------------------------------------------


async def test_an_outage_is_waited_out_and_no_row_is_given_up(ledger: Ledger) -> None:
    lm, door = scripted(*[DOWN] * 40, "billing"), gateway(ledger, max_wait=3000)
    assert {reply.text for reply in await burst(door, lm, 30)} == {"billing"}
    assert states(ledger)["error"] >= 40
    assert door.account.total_used.calls == 30


async def test_a_call_held_back_as_the_outage_began_waits_it_out_too(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
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
    assert (await door.complete("model", lm, ask("b"))).text == "billing"
    assert classes(ledger) == ["ok", "not_sent", *["transient"] * 12, "ok"]


@pytest.mark.parametrize("failure", [DOWN, SLOW, RateLimited("slow down", 400.0)], ids=["503", "429", "400 s"])
async def test_an_outage_without_end_stops_the_run_and_tells_all_calls(ledger: Ledger, failure: ModelError) -> None:
    lm, door = scripted(failure), gateway(ledger, max_wait=300, jitter=random.Random(0))
    results = await burst(door, lm, 12)
    assert {type(result) for result in results} == {RunRefused}
    is_asked = failure.retry_after == 400.0
    assert ("more than --max-wait 300" if is_asked else "no reply for 300 seconds") in str(results[0])
    assert now() == pytest.approx(0.0 if is_asked else 300.0, abs=0.1), "no retry waits longer than the user does"
    assert len(lm.seen) <= (8 if is_asked else 60), "the provider is not hammered"


async def test_a_provider_that_refuses_a_row_is_not_down(ledger: Ledger) -> None:
    lm, door = scripted(*[DOWN] * 6, RowRefused("too long"), "billing"), gateway(ledger)
    with pytest.raises(RowRefused):
        await door.complete("model", lm, ask("a"))
    assert not door._limiter(lm).is_open()


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusing(is_refused: Callable[[int, int], bool]) -> FakeModel:
    """Refuses request number `request` for row `row` in the same words if `is_refused(request, row)`."""

    def answer(request: Request) -> str:
        number = len(lm.seen)
        if is_refused(number, int(request.messages[0].content.split()[-1])):
            raise RequestRefused(f"fake/m: this is closed to you (request {number}x); change the request")
        return "billing"

    lm = FakeModel(answer)
    return lm


async def rows(door: Gateway, lm: Any, count: int, candidate: str = "c_1") -> list[Any]:
    jobs = (door.complete("model", lm, ask(f"row {n}"), candidate) for n in range(count))
    return await asyncio.gather(*jobs, return_exceptions=True)


async def test_an_account_closed_during_the_run_stops_it(ledger: Ledger) -> None:
    lm, door = refusing(lambda request, row: request > 20), gateway(ledger, max_concurrency=4)
    results = await rows(door, lm, 60)
    with pytest.raises(RunRefused, match=r"calls in a row were refused in the same words .*closed to you"):
        await door.complete("model", lm, ask("row 99"))
    assert sum(isinstance(result, Completion) for result in results) == 20
    assert len(lm.seen) < 40


async def test_refused_rows_here_and_there_do_not_stop_it_even_if_the_ledger_has_the_others(ledger: Ledger) -> None:
    lm = refusing(lambda request, row: row % 3 == 0)
    for _ in range(2):
        results = await rows(gateway(ledger), lm, 60)
        assert [type(result) for result in results] == [RequestRefused, Completion, Completion] * 20
    assert len(lm.seen) == 60 + 20


async def test_refusals_of_a_prompt_that_was_never_answered_do_not_stop_it(ledger: Ledger) -> None:
    lm, door = refusing(lambda request, row: request > 1), gateway(ledger)
    await door.complete("model", lm, ask("row 99"), "c_1")
    assert {type(result) for result in await rows(door, lm, 20, "c_2")} == {RequestRefused}


# -- 429 ---------------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_back_every_call_of_its_model_and_no_other(ledger: Ledger) -> None:
    arrivals: list[float] = []

    def answer(request: Request) -> str:
        arrivals.append(now())
        if len(arrivals) == 1:
            raise RateLimited("slow down", 30.0)
        return "ok"

    door = gateway(ledger, max_concurrency=1)
    waiting = asyncio.ensure_future(burst(door, FakeModel(answer), 3))
    other = await door.complete("model", FakeModel(lambda request: "ok", "m/2"), ask("a"))
    assert (other.text, now()) == ("ok", pytest.approx(0.0, abs=0.1))
    await waiting
    assert arrivals == [pytest.approx(at, abs=0.1) for at in (0.0, 30.0, 30.0, 30.0)]
    assert door.retries.count == 1


async def test_429s_take_nothing_from_the_cap_on_calls_also_in_a_resumed_run(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    door = gateway(ledger, Budget(max_calls=1))
    await door.complete("model", scripted(*[SLOW] * 30, "billing"), ask("a"))
    account = door.account
    assert (account.total_paid.calls, account.limited, account.lost, account.failed) == (1, 30, 0, 0)
    await ledger.commit()
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    past = again.resume_run("run-1", {})
    assert (sum(spend.calls for spend in past.paid.values()), past.lost, past.limited) == (1, 0, 30)
    account = Account(Budget(), past)
    await gateway(again, account=account).complete("model", scripted("never asked"), ask("a"))
    assert (account.total_paid.calls, account.limited, account.failed) == (1, 30, 0)
    again.close()


async def test_a_call_refused_while_others_are_answered_stops_the_run(ledger: Ledger) -> None:
    door = gateway(ledger, max_concurrency=2)

    def answer(request: Request) -> str:
        if request.messages[-1].content == "poison":
            raise SLOW
        return "ok"

    lm = FakeModel(answer)

    async def others() -> None:
        for number in range(1000):
            await door.complete("model", lm, ask(f"other {number}"))

    poison = door.complete("model", lm, ask("poison"))
    results = await asyncio.gather(poison, others(), return_exceptions=True)
    assert [type(result) for result in results] == [RunRefused, RunRefused]
    assert f"answered 429 to one call {MOST_LIMITED + 1} times" in str(results[0])
    assert classes(ledger).count("rate_limit") <= MOST_LIMITED + 5


async def test_without_answers_to_others_only_the_longest_wait_ends_429s(ledger: Ledger) -> None:
    lm = scripted(*[SLOW] * (2 * MOST_LIMITED), "billing")
    assert (await gateway(ledger, max_wait=86_400).complete("model", lm, ask("a"))).text == "billing"


@pytest.mark.parametrize("error", [RateLimited("slow down", 30.0), DOWN])
async def test_no_wait_lasts_longer_than_the_run_may(ledger: Ledger, error: ModelError) -> None:
    """Neither a pause of the provider, nor the delay before another attempt."""
    door = gateway(ledger, Budget(time_limit=7.0), jitter=Slow())
    with pytest.raises(BudgetExhausted, match=r"time_limit = 7"):
        await door.complete("model", scripted(error), ask("a"))
    assert now() == pytest.approx(7.0, abs=0.1)
    door = gateway(ledger, Budget(time_limit=60.0))
    assert (await door.complete("model", scripted(RateLimited("slow", 50.0), "billing"), ask("b"))).text == "billing"
