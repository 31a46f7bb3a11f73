"""How many calls of a model run at once, and when: growth, 429s, pace, circuit breaker, closing."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadResponse, ModelError, RequestRefused, RunRefused, Transient, TransportUnknown
from agent.gateway.limiter import (
    COOL_DOWN,
    LIMITED_FREE,
    LIMITED_SHARE,
    LONGEST_PROBE,
    MOST_LIMITED,
    PACE,
    QUICKEN,
    SAME_REFUSALS,
    START,
    TRIP,
    UNREACHED,
    Limiter,
)
from agent.gateway.retries import poll
from tests.gateway.doors import Calm
from tests.gateway.virtual import LoopClock, VirtualLoop

DOWN = Transient("503", status=503)


def limiter_of(ceiling: int = 8, **more: Any) -> Limiter:
    return Limiter("m", ceiling, clock=LoopClock(), **more)


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled() -> None:
    """Let every task run that can without the clock moving."""
    for _ in range(5):
        await asyncio.sleep(0)


async def free(limiter: Limiter) -> int:
    """Count the slots that can be taken now; take none."""
    jobs = [asyncio.ensure_future(limiter.acquire()) for _ in range(limiter.ceiling + 1)]
    await settled()
    taken = [job for job in jobs if job.done() and job.exception() is None]
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    for _ in taken:
        limiter.release()
    return len(taken)


async def starts(limiter: Limiter, calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        await limiter.acquire()
        found.append(now())
    return found


def clean_round(limiter: Limiter) -> None:
    for _ in range(limiter.width):
        limiter.succeeded()


def fail(limiter: Limiter, times: int, error: ModelError = DOWN) -> None:
    for _ in range(times):
        limiter.failed(error)


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusal(number: int = 1, words: str = "no regions are left") -> RequestRefused:
    return RequestRefused(f"m: HTTP 400: the request was refused ({words}, id req_{number}x); change the request")


def test_equal_refusals_in_a_row_stop_the_run_in_any_order_of_arrival() -> None:
    limiter = Limiter("m", 8)
    turns = [next(limiter.turns) for _ in range(SAME_REFUSALS)]
    for turn in reversed(turns[1:]):
        limiter.refused(refusal(turn), turn)
    with pytest.raises(RunRefused, match=r"m: 8 calls in a row .*no regions are left, id req_0x\)\); fix"):
        limiter.refused(refusal(0), turns[0])


@pytest.mark.parametrize("answered", [1, 4, SAME_REFUSALS - 1])
def test_an_answer_or_another_refusal_breaks_the_row(answered: int) -> None:
    silent, worded = Limiter("m", 8), Limiter("m", 8)
    for turn in range(SAME_REFUSALS):
        if turn != answered:
            silent.refused(refusal(), turn)
        worded.refused(refusal(words="other words") if turn == answered else refusal(), turn)


# -- the width ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ceiling", "width"), [(1, 1), (7, 7), (8, 8), (32, START), (1000, START)])
async def test_the_width_starts_small_or_at_a_lower_ceiling(ceiling: int, width: int) -> None:
    limiter = limiter_of(ceiling)
    assert limiter.width == width == await free(limiter)


async def test_the_width_doubles_with_each_clean_round_up_to_the_ceiling() -> None:
    limiter, widths = limiter_of(50), []
    for _ in range(5):
        for _ in range(limiter.width - 1):
            limiter.succeeded()
        widths.append(limiter.width)
        limiter.succeeded()
    assert widths == [8, 16, 32, 50, 50]
    assert await free(limiter) == 50


async def test_a_model_in_this_process_keeps_its_width() -> None:
    limiter = limiter_of(2, fixed=True, jitter=Calm())
    for _ in range(20):
        limiter.succeeded()
    limiter.rate_limited(0.0)
    assert limiter.width == 2 == await free(limiter)


async def test_only_one_call_runs_at_a_time_on_request_and_first_come_is_first_served() -> None:
    limiter, order = limiter_of(8), []
    limiter.one_by_one = True

    async def one(number: int) -> None:
        await limiter.acquire()
        order.append(number)
        await asyncio.sleep(1)
        limiter.release()

    await asyncio.gather(*(one(number) for number in range(10)))
    assert order == list(range(10))
    assert now() == pytest.approx(10)


# -- 429 ---------------------------------------------------------------------------------------------------------------


async def test_an_episode_of_429s_shrinks_the_width_to_what_was_let_through_at_most_by_half() -> None:
    """Calls in flight when it began belong to it, even if they end after the pause."""
    limiter = limiter_of(16)
    clean_round(limiter)
    for _ in range(16):
        await limiter.acquire()
    for refused in range(1, 4):
        limiter.rate_limited(2.0)
        assert limiter.width == 16 - refused
    for _ in range(10):
        limiter.rate_limited(2.0)
    assert limiter.width == 8
    await asyncio.sleep(3)
    limiter.rate_limited(0.0, latency=4.0)  # sent before the episode began
    assert limiter.width == 8
    for _ in range(10):
        limiter.release()
    limiter.rate_limited(0.0, latency=0.5)
    assert limiter.width == 5, "of six in flight one was refused"
    for _ in range(6):
        limiter.release()
    for _ in range(30):
        limiter.rate_limited(1.0)
        limiter.succeeded()
        await asyncio.sleep(2)
    assert limiter.width == 1, "never nothing"


async def test_the_width_grows_again_after_the_cool_down_one_by_one_near_the_known_limit() -> None:
    limiter = limiter_of(64)
    clean_round(limiter)
    for _ in range(16):
        await limiter.acquire()
    for _ in range(4):
        limiter.rate_limited(0.5)
    await asyncio.sleep(COOL_DOWN - 1)
    clean_round(limiter)
    assert limiter.width == 12
    await asyncio.sleep(2)
    clean_round(limiter)
    assert limiter.width == 13, "16 was too many: doubling would pass it"


async def test_all_calls_wait_for_the_longest_pause_requested_and_none_holds_a_slot() -> None:
    limiter, started = limiter_of(4), []

    async def one() -> None:
        await limiter.acquire()
        started.append(now())
        limiter.release()

    await limiter.acquire()
    waiting = [asyncio.ensure_future(one()) for _ in range(20)]
    for seconds in (5.0, 7.0, 1.0):
        limiter.rate_limited(seconds)
    limiter.release()
    assert limiter.is_paused()
    await asyncio.gather(*waiting, one())
    assert started == [pytest.approx(7.0)] * 21
    assert not limiter.is_paused()


class Widest(random.Random):
    """A jitter that draws the ceiling."""

    def uniform(self, a: float, b: float) -> float:
        return b


DOUBLED = [0.5, 1, 2, 4, 8, 16, 20]


@pytest.mark.parametrize(
    ("retry_after", "jitter", "waits"),
    [
        (None, Calm(), DOUBLED),
        (0.0, Widest(), DOUBLED),
        (3.0, Widest(), [3, 3, 3, 4, 8, 16, 20]),
        (
            0.0,
            random.Random(7),
            [draw * top for draw, top in zip(map(random.Random(7).uniform, [0] * 7, [1] * 7), DOUBLED, strict=True)],
        ),
    ],
)
async def test_no_wait_is_shorter_than_the_backoff_nor_than_requested(
    retry_after: float | None, jitter: random.Random, waits: list[float]
) -> None:
    limiter, found = limiter_of(4, longest_wait=1000, jitter=jitter), []
    await limiter.acquire()
    for _ in waits:
        before = now()
        limiter.rate_limited(retry_after)
        limiter.release()
        await limiter.acquire()
        found.append(now() - before)
    assert found == pytest.approx(waits)
    limiter.succeeded()
    before = now()
    limiter.rate_limited(None)
    limiter.release()
    await limiter.acquire()
    assert now() - before == pytest.approx(0.5), "a success ends the row"


async def test_429s_of_one_volley_share_one_backoff() -> None:
    limiter = limiter_of(8, jitter=Widest())
    for _ in range(8):
        await limiter.acquire()
    for _ in range(8):
        limiter.rate_limited(0.0, latency=0.1)
        limiter.release()
    await limiter.acquire()
    assert now() == pytest.approx(0.5)


@pytest.mark.parametrize(("asked", "told"), [(300.5, "300 seconds"), (3600.0, "3600 seconds"), (1e9, "11574 days")])
async def test_a_longer_pause_than_the_user_allows_stops_the_run(asked: float, told: str) -> None:
    limiter = limiter_of(4, longest_wait=300)
    with pytest.raises(RunRefused, match=rf"^m: .*asks to wait {told}, more than --max-wait 300; resume later$"):
        limiter.rate_limited(asked)
    limiter.rate_limited(300.0)
    await limiter.acquire()
    assert now() == pytest.approx(300)


@pytest.mark.parametrize("longest", [8, 300])
@pytest.mark.parametrize("failing", [True, False], ids=["503", "429"])
async def test_a_provider_that_never_answers_stops_the_run_exactly_after_the_longest_wait(
    longest: int, failing: bool
) -> None:
    limiter = limiter_of(4, longest_wait=longest)

    async def for_ever() -> None:
        while True:
            await limiter.acquire()
            limiter.release()
            limiter.failed(DOWN) if failing else limiter.rate_limited(None)

    says = rf"^m: no reply for {longest} seconds \({'503' if failing else 'too many requests'}\); resume when"
    with pytest.raises(RunRefused, match=says):
        await for_ever()
    assert now() == pytest.approx(longest), "the last pause is cut"
    assert limiter.trouble
    assert limiter.seconds_left() == 0.0


@pytest.mark.parametrize(("times", "repeats", "answers"), [(MOST_LIMITED, 1, 0), (1, LIMITED_FREE + LIMITED_SHARE, 1)])
def test_too_many_repeated_429s_among_answers_stop_the_run(times: int, repeats: int, answers: int) -> None:
    limiter = Limiter("m", 8)
    for _ in range(answers):
        limiter.answered()
    for _ in range(repeats):
        limiter.limited_again(times)
    with pytest.raises(RunRefused, match=rf"answered 429 to .* times while it answered {answers} others; resume"):
        limiter.limited_again(times + (repeats == 1))
    assert limiter.is_paused()


# -- the pace ----------------------------------------------------------------------------------------------------------


async def paced() -> Limiter:
    """A limiter after 40 replies at ten per second."""
    limiter = limiter_of(64)
    for _ in range(40):
        await asyncio.sleep(0.1)
        limiter.succeeded()
    return limiter


async def test_after_a_429_calls_start_at_the_rate_that_was_let_through() -> None:
    limiter = await paced()
    limiter.rate_limited(2.0)
    found = await starts(limiter, 10)
    assert found[0] == pytest.approx(6.0)
    assert [after - before for before, after in pairwise(found)] == pytest.approx([1 / (10 * PACE)] * 9)


async def test_unused_pace_is_not_saved_up() -> None:
    limiter = await paced()
    limiter.rate_limited(0.0)
    await asyncio.sleep(60)
    found = await starts(limiter, 6)
    assert found[-1] - 64 == pytest.approx(4 / (10 * PACE), abs=0.15), "two at once, then one after the other"


async def test_replies_during_a_pause_do_not_change_the_pace() -> None:
    limiter = await paced()
    limiter.rate_limited(1.0)
    for _ in range(6):
        limiter.succeeded()
    await asyncio.sleep(1)
    limiter.rate_limited(1.0)
    found = await starts(limiter, 4)
    assert found[-1] - found[0] == pytest.approx(3 / (10 * PACE))


async def test_an_idle_time_does_not_count_as_slow_traffic() -> None:
    limiter = limiter_of(1)
    for idle in (0.0, 60.0):
        await asyncio.sleep(idle)
        for _ in range(20):
            await limiter.acquire()
            await asyncio.sleep(0.1)
            limiter.succeeded()
            limiter.release()
    limiter.rate_limited(1.0)
    found = []
    for _ in range(4):
        found += await starts(limiter, 1)
        limiter.release()
    assert found[-1] - found[0] == pytest.approx(3 / (10 * PACE))


async def test_the_pace_quickens_step_by_step() -> None:
    async def seconds_for_twenty() -> float:
        for _ in range(2):  # after an idle time the first two start at once
            await limiter.acquire()
            limiter.release()
        before = now()
        for _ in range(20):
            await limiter.acquire()
            limiter.release()
        return now() - before

    limiter = await paced()
    limiter.rate_limited(0.0)
    await limiter.acquire()
    first = await seconds_for_twenty()
    await asyncio.sleep(COOL_DOWN + 1)
    for _ in range(15):
        clean_round(limiter)
    second = await seconds_for_twenty()
    assert second == pytest.approx(first * QUICKEN)
    await asyncio.sleep(COOL_DOWN / 3.4 - second)  # too soon after the last step
    clean_round(limiter)
    assert await seconds_for_twenty() == pytest.approx(second)
    await asyncio.sleep(COOL_DOWN / 3)
    clean_round(limiter)
    assert await seconds_for_twenty() == pytest.approx(second * QUICKEN)


# -- the circuit breaker -----------------------------------------------------------------------------------------------


async def test_consecutive_failures_open_the_breaker_and_later_ones_of_the_volley_do_not_prolong_it() -> None:
    limiter = limiter_of(8)
    fail(limiter, TRIP - 1)
    limiter.succeeded()
    fail(limiter, TRIP - 1)
    assert not limiter.is_open()
    assert await free(limiter) == 8
    fail(limiter, 1)
    assert limiter.is_open()
    assert await free(limiter) == 0
    fail(limiter, 2 * TRIP)
    await limiter.acquire()
    assert now() == pytest.approx(1.0)


async def test_single_probes_find_out_whether_the_provider_is_back() -> None:
    limiter, probes = limiter_of(8), []
    flying, most = 0, {True: 0, False: 0}

    async def one() -> None:
        nonlocal flying
        while True:
            await limiter.acquire()
            flying += 1
            most[limiter.is_open()] = max(most[limiter.is_open()], flying)
            probes.append(now())
            await asyncio.sleep(0.5)
            flying -= 1
            limiter.failed(DOWN) if now() < 100 else limiter.succeeded()
            limiter.release()
            if now() >= 100:
                return

    fail(limiter, TRIP)
    await asyncio.gather(*(one() for _ in range(8)))
    gaps = [after - before for before, after in pairwise(probes)]
    assert gaps[:6] == pytest.approx([0.5 + wait for wait in (2, 4, 8, 16, LONGEST_PROBE, LONGEST_PROBE)])
    assert most == {True: 1, False: 7}, "all calls resume once it is closed"
    assert await free(limiter) == 8


async def test_giving_up_names_the_model_once_and_counts_from_the_first_failure_without_a_success() -> None:
    limiter, down = limiter_of(8, longest_wait=5), Transient("m: HTTP 500: the provider failed (x; y); try again")
    limiter.answered()
    await asyncio.sleep(1000)
    for _ in range(2):
        limiter.failed(down)
        await asyncio.sleep(4.9)
        limiter.failed(down)
        limiter.succeeded()
    assert (limiter.trouble, limiter.seconds_left()) == ("", 5)
    limiter.failed(down)
    await asyncio.sleep(5)
    with pytest.raises(RunRefused) as caught:
        limiter.failed(down)
    assert str(caught.value) == (
        "m: no reply for 5 seconds (HTTP 500: the provider failed (x; y)); resume when the provider is back"
    )


ANSWERS = {
    "a reply": Limiter.succeeded,
    "a refusal": Limiter.answered,
    "503": lambda limiter: limiter.failed(DOWN),
    "a broken reply": lambda limiter: limiter.failed(TransportUnknown("reset")),
    "429": lambda limiter: limiter.rate_limited(0.0),
}


async def test_an_address_that_never_answered_is_given_up_soon() -> None:
    limiter, refused = limiter_of(8), Transient("connection refused")
    fail(limiter, UNREACHED - 1, refused)
    with pytest.raises(RunRefused, match="connection refused; no reply so far"):
        limiter.failed(refused)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_address_that_ever_answered_is_retried(answer: str) -> None:
    limiter = limiter_of(8, jitter=Calm())
    ANSWERS[answer](limiter)
    fail(limiter, 2 * UNREACHED, Transient("connection refused"))
    assert limiter.is_open()


# -- closing and cancelling --------------------------------------------------------------------------------------------


async def test_a_closed_limiter_raises_in_waiting_and_later_calls() -> None:
    limiter, error = limiter_of(2), RunRefused("no such key")
    for _ in range(2):
        await limiter.acquire()
    limiter.rate_limited(100.0)
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
    await settled()
    limiter.close(error)
    assert await asyncio.gather(*waiting, return_exceptions=True) == [error] * 5
    assert now() == 0.0
    with pytest.raises(RunRefused, match="no such key"):
        await limiter.acquire()
    assert limiter.is_paused(), "a call with a slot gives it back"


OPS = st.lists(
    st.one_of(
        st.just(("acquire", 0)),
        st.tuples(st.sampled_from(["cancel", "finish", "abandon"]), st.integers(0, 30)),
        st.tuples(st.sampled_from(["yield", "wait"]), st.integers(0, 3)),
        st.sampled_from([("limited", 0), ("failed", 0), ("succeeded", 0)]),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(ops=OPS, ceiling=st.integers(1, 5))
def test_no_order_of_events_and_cancellations_loses_or_adds_a_slot(ops: list[tuple[str, int]], ceiling: int) -> None:
    loop = VirtualLoop()
    loop.run_until_complete(cancelled_at_will(ops, ceiling))
    loop.close()


async def cancelled_at_will(ops: list[tuple[str, int]], ceiling: int) -> None:
    limiter, holding = limiter_of(ceiling, longest_wait=1e9), 0
    jobs: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def one(done: asyncio.Event) -> None:
        nonlocal holding
        await limiter.acquire()
        holding += 1
        try:
            await done.wait()
        finally:
            holding -= 1
            limiter.release()

    for op, number in ops:
        if op == "acquire":
            done = asyncio.Event()
            jobs.append((asyncio.ensure_future(one(done)), done))
        elif op in ("cancel", "finish", "abandon") and jobs:
            job, done = jobs[number % len(jobs)]
            if op != "cancel":
                done.set()
            if op != "finish":  # also at the moment at which it was just woken
                job.cancel()
        elif op == "limited":
            limiter.rate_limited(1.0)
        elif op == "failed":
            limiter.failed(DOWN)
        elif op == "succeeded":
            limiter.succeeded()
        for _ in range(number if op == "yield" else 0):
            await asyncio.sleep(0)
        if op == "wait":
            await asyncio.sleep(float(number))
        assert holding <= ceiling
    for _, done in jobs:
        done.set()
    await asyncio.gather(*(job for job, _ in jobs), return_exceptions=True)
    limiter.succeeded()
    await asyncio.sleep(1000)
    for _ in range(limiter.width):
        await asyncio.wait_for(limiter.acquire(), 1000)
    one_more = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(1000)
    assert not one_more.done(), "a slot too many"
    one_more.cancel()


# -- polling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "longest", "seconds"),
    [
        ([], 300, 0),
        ([DOWN] * 8, 300, 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60),
        ([Transient("busy", 7.0), DOWN], 300, 7 + 2),
        ([Transient("busy", 8.0)], 8, 8),
    ],
)
async def test_polling_retries_with_growing_waits(errors: list[ModelError], longest: float, seconds: float) -> None:
    left, lines = list(errors), []

    async def ask() -> str:
        if left:
            raise left.pop(0)
        return "here"

    assert await poll(ask, asyncio.sleep, lines.append, longest, clock=LoopClock()) == "here"
    assert now() == pytest.approx(seconds)
    assert lines == [f"retrying: {error}" for error in errors[:1]]


@pytest.mark.parametrize(
    ("error", "seconds"), [(DOWN, 15), (BadResponse("no"), 15), (RunRefused("key"), 0), (Transient("busy", 8.1), 0)]
)
async def test_polling_gives_up_after_the_deadline_or_at_once(error: ModelError, seconds: float) -> None:
    async def ask() -> str:
        raise error

    with pytest.raises(type(error)):
        await poll(ask, asyncio.sleep, lambda line: None, 8, clock=LoopClock())
    assert now() == pytest.approx(seconds)
