"""Batches over a real server: half the price, nothing submitted twice, no row lost, whatever fails or is killed."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BudgetExhausted, Interrupted, RowRefused, RunRefused
from agent.gateway import batches
from agent.gateway.batches import ROW_BYTES, Batches
from agent.ledger.store import Ledger
from agent.types import Budget
from tests.batch.provider import BATCHES, DAMAGE, EXPIRED, HTML, MESSAGES
from tests.batch.world import BOTH, ROWS, World, expected, half_price, texts, world
from tests.toys import ask, open_ledger, until
from tests.wire import Fault, Seen

CREATE = {"openai": BATCHES, "anthropic": MESSAGES}


@BOTH
def test_a_set_goes_as_one_batch_at_half_the_price_and_each_row_is_a_call(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with world(tmp_path, kind) as there:
        assert texts(there.ask()) == expected()
        assert [each for each in caplog.records if each.levelname == "ERROR"] == [], "nothing failed unseen"
        assert there.server.requests == []
        assert [len(job.rows) for job in there.provider.jobs.values()] == [ROWS]
        calls = there.calls()
        assert [call["state"] for call in calls] == ["ok"] * ROWS
        assert half_price(calls)
        assert {call["latency_s"] for call in calls} == {None}
        (batch,) = there.batches()
        assert batch["end"]["status"] in ("completed", "ended")
        assert batch["end"]["unserved"] == 0
        assert batch["body"]["reserved"]["usd"] >= sum(call["cost_usd"] for call in calls)
        assert sorted(batch["body"]["rows"]) == sorted(call["call_key"] for call in calls)


@BOTH
def test_the_keys_are_those_of_live_calls_so_that_either_answers_the_other(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind) as there:
        there.ask()
        ledger = Ledger(there.path)
        live = there.gateway(ledger)

        async def ask_live() -> list[Any]:
            lm = there.model()
            try:
                return [await live.complete("model", lm, ask(f"row {n}"), "c") for n in range(ROWS)]
            finally:
                await lm.close()

        with contextlib.closing(ledger):
            assert texts(asyncio.run(ask_live())) == expected()
        assert there.server.requests == []
        assert Counter(call["state"] for call in there.calls()) == {"ok": ROWS, "cached": ROWS}


def test_what_is_asked_outside_of_a_set_and_a_set_of_few_calls_goes_live(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        assert texts(there.ask(9)) == expected(9)
        assert there.provider.jobs == {}
        assert len(there.server.requests) == 9
        assert not half_price(there.calls())


def test_with_batch_only_a_set_of_few_calls_is_a_batch(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        assert texts(there.ask(2, only=True)) == expected(2)
        assert there.server.requests == []


@pytest.mark.parametrize(("most", "size"), [("MOST_ROWS", 5), ("MOST_BYTES", 5 * ROW_BYTES + 500)])
def test_a_set_that_is_too_large_for_a_batch_is_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, size: int
) -> None:
    monkeypatch.setattr(batches, most, size)
    with world(tmp_path) as there:
        assert texts(there.ask()) == expected()
        assert sorted(len(job.rows) for job in there.provider.jobs.values()) == [2, 5, 5]
        assert there.server.requests == []


# -- rows that fail ---------------------------------------------------------------------------------------------------


@BOTH
def test_rows_that_were_not_asked_or_failed_go_one_by_one(tmp_path: Path, kind: str) -> None:
    lost = {1: EXPIRED, 4: 500, 7: EXPIRED}
    with world(tmp_path, kind, row=lambda number: lost.get(number, 200)) as there:
        assert texts(there.ask()) == expected()
        assert len(there.server.requests) == len(lost)
        calls = there.calls()
        assert Counter(call["state"] for call in calls) == {"ok": ROWS, "error": 1}
        (failed,) = [call for call in calls if call["state"] == "error"]
        assert (failed["error_class"], failed["http_status"], failed["cost_usd"]) == ("transient", 500, 0.0)
        assert half_price([call for call in calls if call["state"] == "ok" and call["latency_s"] is None])
        assert sum(call["state"] == "ok" and call["latency_s"] is not None for call in calls) == len(lost)
        assert there.batches()[0]["end"]["unserved"] == 2
        assert "2 of its 12 calls are asked live" in there.lines[-1]


@BOTH
def test_with_batch_only_they_stay_without_an_answer_and_say_why(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind, course=("in_progress", "expired")) as there:
        replies = there.ask(only=True)
        assert there.server.requests == []
        unanswered = [each for each in replies if isinstance(each, RowRefused)]
        assert len(unanswered) == ROWS // 2
        assert "drop --batch-only to ask it live" in str(unanswered[0])


@BOTH
def test_a_row_that_is_refused_is_classified_as_a_live_call_is(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind, row=lambda number: 400 if number == 3 else 200) as there:
        replies = there.ask()
        (refusal,) = [each for each in replies if isinstance(each, Exception)]
        assert isinstance(refusal, RowRefused)
        assert there.server.requests == []
        assert [call["error_class"] for call in there.calls() if call["state"] == "error"] == ["permanent_row"]


@pytest.mark.parametrize("answered", [True, False])
def test_a_batch_refused_in_the_same_words_stops_the_run_if_its_prompt_was_answered_before(
    tmp_path: Path, answered: bool
) -> None:
    with world(tmp_path) as there, contextlib.closing(open_ledger(there.path)) as ledger:

        async def go() -> list[Any]:
            gateway = there.gateway(ledger)
            if answered:
                assert texts(await there.asked(gateway)) == expected()
            there.provider.row = lambda number: 400
            return await there.asked(gateway, max_tokens=9)

        replies = asyncio.run(go())
        assert all(isinstance(each, RowRefused | RunRefused) for each in replies)
        assert any(isinstance(each, RunRefused) for each in replies) is answered


def test_a_parameter_that_a_model_refuses_is_left_out_in_a_second_batch(tmp_path: Path) -> None:
    """All rows of the first are refused, which costs nothing; live they would cost twice as much."""

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(text=f"reply to {messages[-1]['content']}")

    with world(tmp_path) as there:
        told = {"error": {"message": "Unsupported parameter: temperature is not supported", "code": "unsupported"}}
        there.provider.refused = lambda body: told if "temperature" in body else None
        assert texts(there.ask()) == expected()
        assert there.server.requests == []
        assert [len(job.rows) for job in there.provider.jobs.values()] == [ROWS, ROWS]
        calls = there.calls()
        assert Counter(call["error_class"] for call in calls) == {"temperature_refused": ROWS, None: ROWS}
        assert half_price([call for call in calls if call["state"] == "ok"])


def test_partial_results_are_taken_while_the_batch_is_under_way(tmp_path: Path) -> None:
    """The batch ends only once they are in the ledger."""
    with world(tmp_path, course=("validating", "in_progress"), partial=5) as there:
        settled: list[int] = []

        def disturb(seen: Seen) -> None:
            with contextlib.closing(sqlite3.connect(f"file:{there.path}?mode=ro", uri=True)) as db:
                settled.append(db.execute("SELECT COUNT(*) FROM calls WHERE state = 'ok'").fetchone()[0])
            if settled[-1] == 5:
                there.provider.course = ("completed",)

        there.provider.disturb = disturb
        assert texts(there.ask()) == expected()
        assert settled[-1] < ROWS
        assert any("5 of 12 done" in line for line in there.lines)


def test_a_batch_that_fails_whole_is_told_in_the_providers_words_and_its_rows_go_live(tmp_path: Path) -> None:
    with world(tmp_path, course=("validating", "failed"), words="enqueued token limit reached") as there:
        assert texts(there.ask()) == expected()
        assert "failed (enqueued token limit reached); 12 of its 12 calls are asked live" in there.lines[-1]
        assert there.batches()[0]["end"]["status"] == "failed"


# -- a provider that fails --------------------------------------------------------------------------------------------


FAULTS = [Fault(503, body={"error": {"message": "busy"}}), Fault(429, {"retry-after-ms": "20"}), Fault(raw=b"")]


def failing(path: str, method: str, faults: Iterable[Fault]) -> Any:
    """Disturbs requests to an address by these faults, one after the other."""
    left = iter(faults)
    return lambda seen: next(left, None) if (seen.method, seen.path) == (method, path) else None


@BOTH
@pytest.mark.parametrize("step", ["submit", "look", "results"])
def test_a_failed_step_is_retried_and_nothing_is_submitted_twice(tmp_path: Path, kind: str, step: str) -> None:
    results = "/v1/files/results-ok-batch_1/content" if kind == "openai" else f"{MESSAGES}/batch_1/results"
    method = "POST" if step == "submit" else "GET"
    path = {"submit": CREATE[kind], "look": f"{CREATE[kind]}/batch_1", "results": results}[step]
    with world(tmp_path, kind, disturb=failing(path, method, FAULTS)) as there:
        assert texts(there.ask(max_wait=300)) == expected()
        assert len(there.provider.jobs) == 1
        assert there.server.requests == []


@BOTH
def test_a_submission_whose_reply_is_lost_is_found_again_among_those_of_others(tmp_path: Path, kind: str) -> None:
    """The provider has it; of Anthropic's others one has as many rows, and shows only at its end that it is another."""
    with world(tmp_path, kind) as there:
        provider, lost = there.provider, [True]

        def disturb(seen: Seen) -> Fault | None:
            if (seen.method, seen.path) != ("POST", CREATE[kind]) or not lost.pop():
                return None
            lost.append(False)
            provider.answer(seen)
            for number in range(3):
                body = {"messages": [{"role": "user", "content": f"of another, {number}"}]}
                rows = [{"custom_id": f"other-{row}", "params": body} for row in range(ROWS + number)]
                provider.submit({"requests": rows})
            return Fault(raw=b"")

        provider.disturb = disturb
        assert texts(there.ask()) == expected()
        assert provider.seen.count(("POST", CREATE[kind])) == 1
        assert there.server.requests == []
        assert there.batches()[0]["end"]["job"] == "batch_1"


@BOTH
def test_a_provider_that_stays_away_ends_the_run_and_the_batch_is_taken_up_later(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind, disturb=failing(f"{CREATE[kind]}/batch_1", "GET", repeat(FAULTS[0]))) as there:
        replies = there.ask(max_wait=0.2)
        assert {type(each) for each in replies} == {RunRefused}
        assert "resume when the provider is back" in str(replies[0])
        there.provider.disturb = lambda seen: None
        assert texts(there.ask(resumed=True)) == expected()
        assert len(there.provider.jobs) == 1


def test_a_batch_that_the_provider_forgot_is_bought_again(tmp_path: Path) -> None:
    with world(tmp_path, course=("in_progress",)) as there:
        there.ask(wait=0.1)
        there.provider.jobs.clear()
        there.provider.course = ("completed",)
        assert texts(there.ask(resumed=True)) == expected()
        assert len(there.server.requests) == ROWS  # of a batch that is gone the rows are asked live
        assert there.batches()[0]["end"]["status"] == "gone"


def test_results_of_other_rows_and_second_results_of_a_row_are_not_taken(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        provider, real = there.provider, there.provider._results

        def results(job: Any, kind: str) -> str:
            text = real(job, kind)
            row = json.loads(text.splitlines()[0])
            row["response"]["body"]["choices"][0]["message"]["content"] = "forged"
            stranger = {**row, "custom_id": "b_0-k_0"}
            unknown = {**row, "custom_id": row["custom_id"].split("-")[0] + "-k_0"}
            return f"{json.dumps(stranger)}\n{json.dumps(unknown)}\n{text}{json.dumps(row)}\n"

        provider._results = results  # type: ignore[method-assign]
        assert texts(there.ask()) == expected()


# -- results that cannot be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "damage"), [("anthropic", DAMAGE["cut"]), *(("openai", damage) for damage in DAMAGE.values())]
)
def test_a_line_of_results_that_cannot_be_read_costs_its_row_alone(
    tmp_path: Path, kind: str, damage: Callable[[str], str]
) -> None:
    with world(tmp_path, kind) as there:
        there.provider.damage = damage
        assert texts(there.ask()) == expected()
        assert len(there.provider.jobs) == 1
        assert len(there.server.requests) == 1
        assert there.batches()[0]["end"]["unserved"] == 1
        assert there.batches()[0]["end"]["words"] == "1 line of its results cannot be read"
        assert "(1 line of its results cannot be read); 1 of its 12 calls are asked live" in there.lines[-1]


@BOTH
def test_with_batch_only_the_row_of_an_unreadable_line_stays_without_an_answer(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind) as there:
        there.provider.damage = DAMAGE["cut"]
        (refused,) = [each for each in there.ask(only=True) if isinstance(each, Exception)]
        assert isinstance(refused, RowRefused)
        assert "(1 line of its results cannot be read); drop --batch-only to ask it live" in str(refused)
        assert there.server.requests == []


@BOTH
def test_results_of_which_nothing_can_be_read_are_fetched_again_and_then_given_up(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, kind) as there:
        pages = [HTML]
        there.provider.damage = lambda text: pages.pop() if pages else text
        assert texts(there.ask()) == expected()
        assert there.server.requests == []
    there.path.unlink()
    with world(tmp_path, kind) as there:
        there.provider.damage = lambda text: HTML
        assert texts(there.ask(max_wait=0.05)) == expected()
        assert len(there.server.requests) == ROWS
        assert "(its results are not JSON Lines); 12 of its 12 calls are asked live" in there.lines[-1]


def test_a_status_as_text_is_a_status(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        there.provider.damage = lambda text: text.replace('"status_code": 200', '"status_code": "200"')
        assert texts(there.ask()) == expected()
        assert there.server.requests == []


def test_a_batch_that_is_complete_is_not_said_to_be_under_way(tmp_path: Path) -> None:
    away = failing("/v1/files/results-ok-batch_1/content", "GET", repeat(Fault(503)))
    with world(tmp_path, disturb=away) as there, contextlib.closing(open_ledger(there.path)) as ledger:

        async def go() -> tuple[list[Any], Batches]:
            gateway = there.gateway(ledger, max_wait=0.05)
            replies = await there.asked(gateway)
            assert gateway.batches is not None
            return replies, gateway.batches

        replies, batches = asyncio.run(go())
        assert {type(each) for each in replies} == {RunRefused}
        assert batches.left() == {}
        assert batches.left(is_over=True) == {"run-1": ["batch_1"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "left"),
    [("POST", BATCHES, 401, 0), ("POST", BATCHES, 503, 1), ("GET", f"{BATCHES}/batch_1", 401, 1)],
)
def test_a_batch_is_left_at_the_provider_unless_it_was_surely_not_taken(
    tmp_path: Path, method: str, path: str, status: int, left: int
) -> None:
    away = failing(path, method, repeat(Fault(status)))
    with world(tmp_path, disturb=away) as there, contextlib.closing(open_ledger(there.path)) as ledger:
        gateway = there.gateway(ledger, max_wait=0.05)
        assert {type(each) for each in asyncio.run(there.asked(gateway))} == {RunRefused}
        assert gateway.batches is not None
        assert sum(map(len, gateway.batches.left().values())) == left


# -- limits -----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_the_cap_is_not_submitted(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        replies = there.ask(budget=Budget(max_calls=10))
        assert sum(isinstance(each, BudgetExhausted) for each in replies) == 2
        assert [len(job.rows) for job in there.provider.jobs.values()] == [10]


def test_a_cap_in_dollars_pays_twice_as_many_calls(tmp_path: Path) -> None:
    with world(tmp_path) as there:
        there.ask()
        most = there.batches()[0]["body"]["reserved"]["usd"]
        there.path.unlink()
        assert texts(there.ask(budget=Budget(max_cost=most))) == expected()
        there.path.unlink()
        assert any(isinstance(each, BudgetExhausted) for each in there.ask(budget=Budget(max_cost=most / 3)))


def test_a_batch_is_waited_for_so_long_and_goes_on_without_us(tmp_path: Path) -> None:
    with world(tmp_path, course=("in_progress",)) as there:
        replies = there.ask(wait=0.1)
        assert {type(each) for each in replies} == {RunRefused}
        assert "has not ended within 0.1 seconds (in_progress, 0 of 12 done); it continues at the provider" in str(
            replies[0]
        )
        there.provider.course = ("completed",)
        assert texts(there.ask(resumed=True)) == expected()
        assert len(there.provider.jobs) == 1
        assert there.server.requests == []


def test_the_time_limit_ends_the_wait_for_a_batch(tmp_path: Path) -> None:
    with world(tmp_path, course=("in_progress",)) as there:
        replies = there.ask(budget=Budget(time_limit=0.7))
        assert {type(each) for each in replies} == {BudgetExhausted}
        assert "time_limit" in str(replies[0])


def test_who_asks_for_a_row_after_its_batch_was_given_up_is_told_so(tmp_path: Path) -> None:
    with world(tmp_path, course=("in_progress",)) as there, contextlib.closing(open_ledger(there.path)) as ledger:

        async def go() -> list[Any]:
            gateway = there.gateway(ledger, wait=0.1)
            return [each for _ in range(2) for each in await there.asked(gateway)]

        assert {type(each) for each in asyncio.run(go())} == {RunRefused}


def test_an_interrupted_run_leaves_the_batch_and_takes_it_up_again(tmp_path: Path) -> None:
    with world(tmp_path, course=("in_progress",)) as there:

        async def interrupted(ledger: Ledger) -> dict[str, list[str]]:
            gateway = there.gateway(ledger)
            asking = asyncio.create_task(there.asked(gateway))
            await until(lambda: there.provider.seen.count(("GET", f"{BATCHES}/batch_1")) > 1)
            gateway.stop(Interrupted())
            assert gateway.in_flight() == 0
            await gateway.drain()
            assert {type(each) for each in await asking} == {Interrupted}
            assert gateway.batches is not None
            return gateway.batches.left()

        with contextlib.closing(open_ledger(there.path)) as ledger:
            assert asyncio.run(interrupted(ledger)) == {"run-1": ["batch_1"]}
        assert there.calls() == []
        there.provider.course = ("completed",)
        assert texts(there.ask(resumed=True)) == expected()
        assert len(there.provider.jobs) == 1


def test_a_row_that_is_being_recorded_when_the_run_is_stopped_is_paid_and_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path) as there, contextlib.closing(open_ledger(there.path)) as ledger:
        gateway, record = there.gateway(ledger), ledger.record

        async def stopping(*given: Any) -> None:
            gateway.stop(Interrupted())
            await asyncio.sleep(0)
            await record(*given)

        monkeypatch.setattr(ledger, "record", stopping)
        replies = asyncio.run(there.asked(gateway))
        assert sorted(type(each).__name__ for each in replies) == ["Completion"] + ["Interrupted"] * (ROWS - 1)
        assert gateway.account.total_paid.calls == len(there.calls()) == 1


# -- kills ------------------------------------------------------------------------------------------------------------


class Kills:
    """What a kill would leave at every step of one run: the ledger as it is on the disk, and the provider."""

    def __init__(self, there: World, folder: Path) -> None:
        self.there, self.folder = there, folder
        self.left: list[tuple[str, Path, dict[str, Any], dict[str, Any]]] = []

    def note(self, step: str) -> None:
        copied = self.folder / f"{len(self.left)}.db"
        with (
            contextlib.closing(sqlite3.connect(f"file:{self.there.path}?mode=ro", uri=True)) as db,
            contextlib.closing(sqlite3.connect(copied)) as copy_of,
        ):
            db.backup(copy_of)
        provider = self.there.provider
        self.left.append((step, copied, copy.deepcopy(provider.jobs), copy.deepcopy(provider.files)))


@BOTH
def test_a_kill_at_any_step_loses_no_row_and_submits_nothing_twice(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every request to the provider, before it has it and when its reply is lost, and at every commit."""
    with world(tmp_path, kind, course=("validating", "in_progress", "completed"), partial=4) as there:
        (tmp_path / "kills").mkdir()
        kills, real, commit = Kills(there, tmp_path / "kills"), there.provider.answer, Ledger.commit

        def answer(seen: Seen) -> Fault | None:
            kills.note(f"before {seen.method} {seen.path}")
            fault = real(seen)
            kills.note(f"after {seen.method} {seen.path}")
            return fault

        async def committed(ledger: Ledger) -> None:
            await commit(ledger)
            kills.note("a commit")

        with monkeypatch.context() as patch:
            patch.setattr(there.provider, "answer", answer)
            patch.setattr(Ledger, "commit", committed)
            whole = texts(there.ask())
        assert whole == expected()
        steps = Counter(step for step, *_ in kills.left)
        assert steps["a commit"] >= ROWS
        assert len(steps) >= 6
        for step, path, jobs, files in kills.left:
            there.path = path
            there.provider.jobs, there.provider.files = jobs, files
            assert texts(there.ask(resumed=True)) == expected(), step
            assert set(there.provider.asked.values()) == {1}, step
            assert there.server.requests == [], step
            calls = there.calls()
            assert [call["state"] for call in calls] == ["ok"] * ROWS, step
            assert half_price(calls), step
            assert [batch["end"] is None for batch in there.batches()].count(True) == 0, step
