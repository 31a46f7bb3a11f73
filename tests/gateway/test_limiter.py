"""How many may fly and when: it grows slowly, gives way at once, waits together, and never loses a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import RequestRefused, RunRefused, Transient, TransportUnknown
from agent.gateway import limiter as module
from agent.gateway.limiter import (
    COOL_DOWN,
    LONGEST_PROBE,
    PACE,
    QUICKEN,
    SAME_REFUSALS,
    START,
    TRIP,
    UNREACHED,
    Limiter,
)
from tests.gateway.doors import Calm
from tests.gateway.virtual import VirtualLoop

DOWN = Transient("503", status=503)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLoop]:
    found = VirtualLoop()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found.time))
    yield found
    found.close()


async def free(limiter: Limiter) -> int:
    """How many slots can be taken now. Takes none."""
    jobs = [asyncio.ensure_future(limiter.acquire()) for _ in range(limiter.ceiling + 1)]
    await settled()
    taken = [job for job in jobs if job.done() and job.exception() is None]
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    for _ in taken:
        limiter.release()
    return len(taken)


async def settled() -> None:
    """Lets everybody run who can run without the clock moving."""
    for _ in range(5):
        await asyncio.sleep(0)


async def clean_round(limiter: Limiter) -> None:
    for _ in range(limiter.width):
        limiter.succeeded()


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusal(number: int = 1, words: str = "no regions are left") -> RequestRefused:
    return RequestRefused(f"m: HTTP 400: the request was refused ({words}, id req_{number}x); change the request")


def test_calls_in_a_row_that_are_refused_in_the_same_words_stop_the_run_in_whatever_order_they_land() -> None:
    limiter = Limiter("m", 8)
    turns = [next(limiter.turns) for _ in range(SAME_REFUSALS)]
    for turn in reversed(turns[1:]):
        limiter.refused(refusal(turn), turn)
    with pytest.raises(RunRefused, match=r"m: 8 calls in a row .*no regions are left, id req_0x\)\); fix"):
        limiter.refused(refusal(0), turns[0])


@pytest.mark.parametrize("answered", range(2, SAME_REFUSALS))
def test_one_answer_in_the_row_or_other_words_break_it(answered: int) -> None:
    silent, worded = Limiter("m", 8), Limiter("m", 8)
    for turn in range(SAME_REFUSALS + 1):
        if turn != answered:
            silent.refused(refusal(), turn)
        worded.refused(refusal(words="other words") if turn == answered else refusal(), turn)


# -- the width ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ceiling", "width"), [(1, 1), (7, 7), (8, 8), (32, START), (1000, START)])
def test_it_starts_small_or_at_a_lower_ceiling(loop: VirtualLoop, ceiling: int, width: int) -> None:
    async def play() -> None:
        limiter = Limiter("m", ceiling)
        assert limiter.width == width == await free(limiter)

    loop.play(play())


def test_it_doubles_with_each_clean_round_up_to_the_ceiling(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, widths = Limiter("m", 50), []
        for _ in range(5):
            widths.append(limiter.width)
            await clean_round(limiter)
        assert widths == [8, 16, 32, 50, 50]
        assert await free(limiter) == 50

    loop.play(play())


def test_a_round_that_is_not_complete_changes_nothing(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 50)
        for _ in range(7):
            limiter.succeeded()
        assert limiter.width == 8
        limiter.succeeded()
        assert limiter.width == 16

    loop.play(play())


def test_a_model_in_this_process_has_its_own_width_and_keeps_it(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("local", 2, fixed=True, jitter=Calm())
        for _ in range(20):
            limiter.succeeded()
        limiter.rate_limited(0.0)
        assert limiter.width == 2 == await free(limiter)

    loop.play(play())


def test_those_who_wait_are_served_first_come_first_served(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, order = Limiter("m", 1), []

        async def one(number: int) -> None:
            await limiter.acquire()
            order.append(number)
            await asyncio.sleep(1)
            limiter.release()

        await asyncio.gather(*(one(number) for number in range(10)))
        assert order == list(range(10))
        assert loop.time() == pytest.approx(10)

    loop.play(play())


# -- 429 ---------------------------------------------------------------------------------------------------------------


def test_it_shrinks_to_what_was_let_through_at_most_by_half_an_episode(loop: VirtualLoop) -> None:
    """Those who were in flight when it began belong to it, also when they land after the pause."""

    async def play() -> None:
        limiter = Limiter("m", 16)
        await clean_round(limiter)
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

    loop.play(play())


def test_it_never_shrinks_to_nothing(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8)
        for _ in range(30):
            limiter.rate_limited(1.0)
            limiter.succeeded()
            await asyncio.sleep(2)
        assert limiter.width == 1 == await free(limiter)

    loop.play(play())


def test_nothing_grows_while_it_cools_down_and_then_only_step_by_step(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 64)
        await clean_round(limiter)
        assert limiter.width == 16
        for _ in range(16):
            await limiter.acquire()
        for _ in range(4):
            limiter.rate_limited(0.5)
        assert limiter.width == 12
        await asyncio.sleep(COOL_DOWN - 1)
        await clean_round(limiter)
        assert limiter.width == 12
        await asyncio.sleep(2)
        await clean_round(limiter)
        assert limiter.width == 13, "16 was too many: doubling would pass it"

    loop.play(play())


def test_all_wait_for_what_the_provider_asked_for_and_none_holds_a_slot(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, started = Limiter("m", 4), []

        async def one() -> None:
            await limiter.acquire()
            started.append(loop.time())
            limiter.release()

        await limiter.acquire()
        waiting = [asyncio.ensure_future(one()) for _ in range(20)]
        limiter.rate_limited(7.0)
        limiter.release()
        assert limiter.is_paused()
        await asyncio.gather(*waiting, one())
        assert started == [pytest.approx(7.0)] * 21
        assert not limiter.is_paused()

    loop.play(play())


def test_a_longer_pause_counts_and_a_shorter_one_does_not_end_it(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 4)
        limiter.rate_limited(5.0)
        limiter.rate_limited(9.0)
        limiter.rate_limited(1.0)
        await limiter.acquire()
        assert loop.time() == pytest.approx(9.0)

    loop.play(play())


@pytest.mark.parametrize("width", [1, 4])
def test_without_advice_the_pauses_double_up_to_twenty_seconds(loop: VirtualLoop, width: int) -> None:
    async def play() -> None:
        limiter, pauses = Limiter("m", width, longest_wait=1000), []
        for _ in range(8):
            before = loop.time()
            await limiter.acquire()
            pauses.append(loop.time() - before)
            limiter.rate_limited(None)
            limiter.release()
        assert pauses == pytest.approx([0, 0.5, 1, 2, 4, 8, 16, 20])
        limiter.succeeded()
        await limiter.acquire()
        before = loop.time()
        limiter.rate_limited(None)
        limiter.release()
        await limiter.acquire()
        assert loop.time() - before == pytest.approx(0.5), "a success ends the row"

    loop.play(play())


@pytest.mark.parametrize(("asked", "told"), [(300.5, "300 seconds"), (3600.0, "3600 seconds"), (1e9, "11574 days")])
def test_a_wait_longer_than_the_user_allows_stops_the_run(loop: VirtualLoop, asked: float, told: str) -> None:
    async def play() -> None:
        limiter = Limiter("some/model", 4, longest_wait=300)
        with pytest.raises(RunRefused) as caught:
            limiter.rate_limited(asked)
        assert "some/model" in str(caught.value)
        assert f"asks to wait {told}, " in str(caught.value)
        assert "--max-wait 300" in str(caught.value)
        assert "\n" not in str(caught.value)

    loop.play(play())


def test_the_longest_wait_that_the_user_allows_is_waited(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 4, longest_wait=300)
        limiter.rate_limited(300.0)
        await limiter.acquire()
        assert loop.time() == pytest.approx(300)

    loop.play(play())


@pytest.mark.parametrize("patience", [8, 300])
def test_a_provider_that_never_stops_refusing_stops_the_run(loop: VirtualLoop, patience: int) -> None:
    async def play() -> None:
        limiter = Limiter("m", 4, longest_wait=patience)

        async def for_ever() -> None:
            while True:
                await limiter.acquire()
                limiter.release()
                limiter.rate_limited(None)

        with pytest.raises(RunRefused, match=f"no reply for {patience} seconds"):
            await for_ever()
        assert loop.time() == pytest.approx(patience)

    loop.play(play())


def test_after_a_refusal_the_pace_is_that_which_went_through(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 64)
        for _ in range(40):  # ten a second for four seconds
            await asyncio.sleep(0.1)
            limiter.succeeded()
        limiter.rate_limited(2.0)
        starts = []
        for _ in range(10):
            await limiter.acquire()
            starts.append(loop.time())
        limiter.release()
        gaps = [after - before for before, after in pairwise(starts)]
        assert starts[0] == pytest.approx(6.0)
        assert gaps == pytest.approx([1 / (10 * PACE)] * 9)

    loop.play(play())


def test_a_pace_that_nobody_used_is_not_saved_up(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 64)
        for _ in range(40):
            await asyncio.sleep(0.1)
            limiter.succeeded()
        limiter.rate_limited(0.0)
        await asyncio.sleep(60)
        for _ in range(6):
            await limiter.acquire()
        assert loop.time() - 64 == pytest.approx(4 / (10 * PACE), abs=0.15), "two at once, then one after the other"

    loop.play(play())


def test_what_lands_during_a_pause_does_not_spoil_the_pace(loop: VirtualLoop) -> None:
    """Six successes in no time at all are no rate."""

    async def play() -> None:
        limiter = Limiter("m", 64)
        for _ in range(40):
            await asyncio.sleep(0.1)
            limiter.succeeded()
        limiter.rate_limited(1.0)
        for _ in range(6):
            limiter.succeeded()
        await asyncio.sleep(1)
        limiter.rate_limited(1.0)
        starts = []
        for _ in range(4):
            await limiter.acquire()
            starts.append(loop.time())
        assert starts[-1] - starts[0] == pytest.approx(3 / (10 * PACE))

    loop.play(play())


def test_the_pace_gets_faster_again_but_only_step_by_step(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 64)
        for _ in range(40):
            await asyncio.sleep(0.1)
            limiter.succeeded()
        limiter.rate_limited(0.0)
        await limiter.acquire()  # from here on there is traffic
        first = await seconds_for(limiter, 20)
        await asyncio.sleep(COOL_DOWN + 1)
        for _ in range(15):
            await clean_round(limiter)
        second = await seconds_for(limiter, 20)
        assert second == pytest.approx(first * QUICKEN)
        await asyncio.sleep(COOL_DOWN / 3)
        await clean_round(limiter)
        assert await seconds_for(limiter, 20) == pytest.approx(second * QUICKEN)

    loop.play(play())


async def seconds_for(limiter: Limiter, calls: int) -> float:
    """How long the starts of so many calls take, one after another."""
    for _ in range(2):  # after a while without calls the first two come at once
        await limiter.acquire()
        limiter.release()
    before = asyncio.get_running_loop().time()
    for _ in range(calls):
        await limiter.acquire()
        limiter.release()
    return asyncio.get_running_loop().time() - before


# -- the breaker -------------------------------------------------------------------------------------------------------


def fail(limiter: Limiter, times: int) -> None:
    for _ in range(times):
        limiter.failed(DOWN)


def test_a_few_failures_do_not_open_it_and_a_success_between_them_counts(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8)
        fail(limiter, TRIP - 1)
        limiter.succeeded()
        fail(limiter, TRIP - 1)
        assert not limiter.is_open()
        assert await free(limiter) == 8
        fail(limiter, 1)
        assert limiter.is_open()
        assert await free(limiter) == 0

    loop.play(play())


def test_one_probe_at_a_time_finds_out_whether_the_provider_is_back(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, probes = Limiter("m", 8), []
        flying, most = 0, {True: 0, False: 0}

        async def one() -> None:
            nonlocal flying
            while True:
                await limiter.acquire()
                flying += 1
                most[limiter.is_open()] = max(most[limiter.is_open()], flying)
                probes.append(loop.time())
                await asyncio.sleep(0.5)
                flying -= 1
                limiter.failed(DOWN) if loop.time() < 100 else limiter.succeeded()
                limiter.release()
                if loop.time() >= 100:
                    return

        fail(limiter, TRIP)
        jobs = [asyncio.ensure_future(one()) for _ in range(8)]
        await asyncio.gather(*jobs)
        gaps = [after - before for before, after in pairwise(probes)]
        assert gaps[:6] == pytest.approx([0.5 + wait for wait in (2, 4, 8, 16, LONGEST_PROBE, LONGEST_PROBE)])
        assert most == {True: 1, False: 7}, "all go on once it is closed"
        assert await free(limiter) == 8

    loop.play(play())


def test_those_that_were_in_flight_when_it_opened_do_not_open_it_further(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8)
        fail(limiter, 3 * TRIP)
        await limiter.acquire()
        assert loop.time() == pytest.approx(1.0)

    loop.play(play())


def test_nothing_back_for_longer_than_the_user_waits_stops_the_run(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("some/model", 8, longest_wait=300)

        async def for_ever() -> None:
            while True:
                await limiter.acquire()
                limiter.release()
                limiter.failed(DOWN)

        says = r"^some/model: no reply for 300 seconds \(503\); resume when the provider is back$"
        with pytest.raises(RunRefused, match=says):
            await for_ever()
        assert loop.time() == pytest.approx(300), "the last pause is cut to what is left"

    loop.play(play())


def test_giving_up_names_the_model_once_and_gives_one_advice(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, down = Limiter("m", 8, longest_wait=5), Transient("m: HTTP 500: the provider failed (x; y); try again")
        limiter.answered()
        limiter.failed(down)
        await asyncio.sleep(5)
        with pytest.raises(RunRefused) as caught:
            limiter.failed(down)
        assert str(caught.value) == (
            "m: no reply for 5 seconds (HTTP 500: the provider failed (x; y)); resume when the provider is back"
        )

    loop.play(play())


def test_the_time_before_the_first_failure_and_before_a_success_does_not_count(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8, longest_wait=300)
        await asyncio.sleep(1000)
        fail(limiter, 1)
        await asyncio.sleep(299)
        fail(limiter, 1)
        limiter.succeeded()
        await asyncio.sleep(299)
        fail(limiter, 1)

    loop.play(play())


def test_an_outage_of_half_a_minute_is_waited_out(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, done = Limiter("m", 8), []

        async def call(number: int) -> None:
            while True:
                await limiter.acquire()
                await asyncio.sleep(0.2)
                limiter.release()
                if not 1 <= loop.time() < 31:
                    limiter.succeeded()
                    done.append(number)
                    return
                limiter.failed(DOWN)

        await asyncio.gather(*(call(number) for number in range(200)))
        assert sorted(done) == list(range(200))
        assert loop.time() < 70

    loop.play(play())


def test_an_address_where_nothing_ever_answered_is_given_up_soon(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, refused = Limiter("m", 8), Transient("connection refused")
        for _ in range(UNREACHED - 1):
            limiter.failed(refused)
        with pytest.raises(RunRefused, match="connection refused; no reply so far"):
            limiter.failed(refused)

    loop.play(play())


@pytest.mark.parametrize("answer", ["a reply", "a refusal", "503", "429", "a broken reply"])
def test_an_address_where_anything_ever_answered_is_waited_for(loop: VirtualLoop, answer: str) -> None:
    async def play() -> None:
        limiter = Limiter("m", 8, jitter=Calm())
        match answer:
            case "a reply":
                limiter.succeeded()
            case "a refusal":
                limiter.answered()
            case "503":
                limiter.failed(DOWN)
            case "a broken reply":
                limiter.failed(TransportUnknown("reset"))
            case "429":
                limiter.rate_limited(0.0)
        for _ in range(2 * UNREACHED):
            limiter.failed(Transient("connection refused"))
        assert limiter.is_open()

    loop.play(play())


# -- closing and cancelling --------------------------------------------------------------------------------------------


def test_a_closed_limiter_refuses_those_who_wait_at_once_and_all_later_ones(loop: VirtualLoop) -> None:
    async def play() -> None:
        limiter, error = Limiter("m", 2), RunRefused("no such key")
        for _ in range(2):
            await limiter.acquire()
        limiter.rate_limited(100.0)
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await settled()
        limiter.close(error)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results == [error] * 5
        assert loop.time() == 0.0
        with pytest.raises(RunRefused, match="no such key"):
            await limiter.acquire()
        assert limiter.is_paused(), "who has a slot but was not sent yet gives it back"
        for _ in range(2):
            limiter.release()  # what was in flight lands

    loop.play(play())


OPS = st.lists(
    st.one_of(
        st.just(("acquire", 0)),
        st.tuples(st.sampled_from(["cancel", "finish", "abandon"]), st.integers(0, 30)),
        st.tuples(st.sampled_from(["yield", "wait"]), st.integers(0, 3)),
        st.just(("limited", 0)),
        st.just(("failed", 0)),
        st.just(("succeeded", 0)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(ops=OPS, ceiling=st.integers(1, 5))
def test_no_order_of_events_and_cancellations_loses_or_makes_a_slot(ops: list[tuple[str, int]], ceiling: int) -> None:
    loop = VirtualLoop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
        loop.play(cancelled_at_will(loop, ops, ceiling))
    loop.close()


async def cancelled_at_will(loop: VirtualLoop, ops: list[tuple[str, int]], ceiling: int) -> None:
    limiter, holding = Limiter("m", ceiling, longest_wait=1e9), 0
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

    def act(op: str, number: int) -> Any:
        if op == "acquire":
            done = asyncio.Event()
            jobs.append((asyncio.ensure_future(one(done)), done))
        elif op in ("cancel", "finish", "abandon") and jobs:
            job, done = jobs[number % len(jobs)]
            if op != "cancel":
                done.set()
            if op != "finish":  # also at the moment at which it has just been woken
                job.cancel()
        elif op == "limited":
            limiter.rate_limited(1.0)
        elif op == "failed":
            limiter.failed(DOWN)
        elif op == "succeeded":
            limiter.succeeded()

    for op, number in ops:
        act(op, number)
        if op == "yield":
            for _ in range(number):
                await asyncio.sleep(0)
        elif op == "wait":
            await asyncio.sleep(float(number))
        assert holding <= ceiling
    for _, done in jobs:
        done.set()
    await asyncio.gather(*(job for job, _ in jobs), return_exceptions=True)
    limiter.succeeded()
    await asyncio.sleep(1000)
    found = []
    for _ in range(limiter.width):
        await asyncio.wait_for(limiter.acquire(), 1000)
        found.append(loop.time())
    one_more = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(1000)
    assert not one_more.done(), "a slot too many"
    one_more.cancel()
