"""Calls are bought once, on the disk before they are sent, and capped; a resumed run takes its own replies first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BudgetExhausted, Interrupted, LedgerError, RowRefused, TransportUnknown
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.gateway.prices import fixed_price
from agent.ledger.resume_state import ResumeState
from agent.ledger.store import Ledger, NewRun
from agent.models.langchain import LangChainModel
from agent.models.model_registry import create_model
from agent.observer import Observer
from agent.types import Budget, Completion, Request, Spend, call_key, endpoint_of, key_of
from tests.gateway.doors import burst, gateway, scripted, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, GatedModel, ask, make_task, open_ledger, until

PRICES = {"fake/m": fixed_price(0.0, 1e6)}


def model(text: str = "ok", name: str = "fake/m") -> FakeModel:
    return FakeModel(lambda request: text, name)


# -- bought once -------------------------------------------------------------------------------------------------------


async def test_an_identical_call_is_bought_once_by_any_run_in_any_role_and_needs_no_budget(ledger: Ledger) -> None:
    lm, first, second = model("billing"), gateway(ledger), gateway(ledger, Budget(max_calls=0))
    one = await first.complete("model", lm, ask("a"))
    two = await second.complete("judge", lm, ask("a", timeout=1.0))
    assert (one.text, one.finish, one.usage) == (two.text, two.finish, two.usage)
    assert len(lm.seen) == 1
    assert first.account.total_paid == first.account.total_used == second.account.total_used
    assert second.account.total_paid == Spend()
    assert (first.account.cached, second.account.cached) == (0, 1)


async def test_whatever_differs_in_what_is_sent_is_another_call(ledger: Ledger) -> None:
    door, lm = gateway(ledger), model()
    changes: list[dict[str, Any]] = [
        {"max_tokens": 9},
        {"temperature": 0.5},
        {"seed": 1},
        {"repeat": 1},
        {"stop": ("x",)},
    ]
    for request in (ask("a"), ask("b"), *(ask("a", **change) for change in changes)):
        await door.complete("model", lm, request)
    assert len(lm.seen) == 7
    assert (await door.complete("model", model("two", "m/2"), ask("a"))).text == "two"


async def test_only_proposer_and_judges_get_room_to_think(ledger: Ledger) -> None:
    lm, door = model("yes"), gateway(ledger, thinking=500)
    for role in ("model", "proposer", "judge"):
        await door.complete(role, lm, ask(role, max_tokens=8))  # type: ignore[arg-type]
    assert [request.max_tokens for request in lm.seen] == [8, 508, 508]


async def test_neither_errors_nor_refusals_of_another_run_are_served_from_the_cache(ledger: Ledger) -> None:
    lm, door = scripted(RowRefused("not today"), "billing"), gateway(ledger)
    with pytest.raises(RowRefused):
        await door.complete("model", lm, ask("a"))
    for _ in range(2):
        assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert len(lm.seen) == 2, "an earlier error does not hide the settled reply"
    ledger.begin_run(NewRun("other", make_task(), "m"))
    await gateway(ledger, run_id="other").complete("model", refusing(), ask("b"))
    assert (await door.complete("model", lm, ask("b"))).text == "billing"


async def test_every_use_of_a_reply_is_observed(ledger: Ledger) -> None:
    class Calls(Observer):
        def on_call_settled(self) -> None:
            used.append(door.account.total_used.calls)

    used: list[int] = []
    door, lm = gateway(ledger, observer=Calls()), model()
    for _ in range(2):
        await door.complete("model", lm, ask("a"))
    assert used == [1, 2]


def test_a_model_at_the_address_in_its_name_keeps_its_key() -> None:
    request, compatible = ask("a"), "openai-compatible/m@http://127.0.0.1:9/v1"
    for lm in map(create_model, ("anthropic/m", "openai/m", "langchain/openai:m", compatible)):
        assert call_key(lm, request) == key_of(lm.name, request.identity())
    assert "endpoint" not in request.identity()


@pytest.mark.parametrize(
    ("provider", "variables", "endpoint"),
    [
        ("azure_openai", {"AZURE_OPENAI_ENDPOINT": "https://x.y/", "OPENAI_API_VERSION": "1-2"}, "https://x.y 1-2"),
        ("anthropic", {"ANTHROPIC_API_URL": "http://user:pass-word1@h:1/v1?key=a#b"}, "http://h:1/v1"),
        ("openai", {"OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_BASE": "http://i/v1"}, "http://i/v1"),
        ("openai", {"OPENAI_BASE_URL": "https://api.openai.com/v1"}, ""),
    ],
)
def test_langchains_address_is_part_of_a_call_without_secrets(
    monkeypatch: pytest.MonkeyPatch, provider: str, variables: dict[str, str], endpoint: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert endpoint_of(LangChainModel("langchain/x", provider, "m")) == endpoint


# -- on the disk -------------------------------------------------------------------------------------------------------


async def test_each_attempt_is_on_the_disk_before_it_is_sent_and_its_reply_before_it_is_returned(
    ledger: Ledger,
) -> None:
    """However many attempts share a commit."""

    def answer(request: Request) -> str:
        said = request.messages[-1].content
        sql = "SELECT k.state FROM calls k JOIN blobs b ON b.hash = k.request_hash WHERE b.body LIKE ?"
        found.extend(read(ledger.path, sql, f'%"{said}"%'))
        return "ok"

    found: list[tuple[str]] = []
    results = await burst(gateway(ledger, max_concurrency=16), FakeModel(answer), 60)
    assert len(found) == len(results) == 60
    assert {state for (state,) in found} <= {"reserved", "sent"}
    assert states(ledger) == {"ok": 60}


@pytest.mark.parametrize(("step", "sent"), [("reserve", 0), ("settle", 1)])
async def test_a_disk_that_refuses_ends_the_call_and_a_sent_call_is_paid(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: str, sent: int
) -> None:
    async def refuse(*args: Any) -> int:
        raise LedgerError("the disk is full")

    lm, door = model(), gateway(ledger)
    monkeypatch.setattr(ledger, step, refuse)
    with pytest.raises(LedgerError):
        await door.complete("model", lm, ask("a"))
    assert len(lm.seen) == sent == door.account.total_paid.calls
    assert door.account.total_used == Spend()


# -- caps --------------------------------------------------------------------------------------------------------------


async def test_calls_in_flight_count_at_their_worst_case(ledger: Ledger) -> None:
    lm = GatedModel(lambda request: "ok")
    door = gateway(ledger, Budget(max_calls=2))
    jobs = [asyncio.ensure_future(door.complete("model", lm, ask(str(n)))) for n in range(3)]
    assert isinstance((await asyncio.gather(jobs[2], return_exceptions=True))[0], BudgetExhausted)
    lm.open.set()
    assert [reply.text for reply in await asyncio.gather(*jobs[:2])] == ["ok"] * 2
    with pytest.raises(BudgetExhausted, match="max_calls = 2"):
        await door.complete("model", lm, ask("more"))
    assert len(lm.seen) == sum(states(ledger).values()) == 2, "a refused reservation sends and records nothing"


@pytest.mark.parametrize(
    ("budget", "price", "tokens"),
    [
        (Budget(max_tokens=250), fixed_price(0.0, 0.0), 90),
        (Budget(max_cost=20.0), lambda usage: float(usage.prompt_tokens - usage.written_prompt_tokens), 8),
        (Budget(max_cost=20.0), lambda usage: float(usage.prompt_tokens), 8),
    ],
    ids=["tokens", "cheaper cache writes", "dollars"],
)
async def test_a_call_crowded_out_by_worst_cases_waits_for_their_cost(
    ledger: Ledger, budget: Budget, price: Any, tokens: int
) -> None:
    """Two calls fit at their worst; all are paid, as each costs less."""
    lm = GatedModel(lambda request: "ok")
    door = gateway(ledger, budget, prices={lm.name: price}, max_concurrency=8)
    door._limiter(lm).width = 8  # as after some replies
    jobs = [asyncio.ensure_future(door.complete("model", lm, ask(str(n), max_tokens=tokens))) for n in range(10)]
    await asyncio.sleep(60)
    assert lm.arrived == 2
    lm.open.set()
    assert [completion.text for completion in await asyncio.gather(*jobs)] == ["ok"] * 10
    with pytest.raises(BudgetExhausted, match=r"max_tokens = 250|max_cost = 20"):
        await door.complete("model", lm, ask(" long" * 250, max_tokens=250))


# -- resumed -----------------------------------------------------------------------------------------------------------

Walk = Callable[[Gateway, FakeModel], Any]


def counting() -> FakeModel:
    """Every reply differs, so that it shows which was taken."""
    lm = FakeModel(lambda request: f"{request.messages[-1].content}-{len(lm.seen)}")
    return lm


def refusing() -> FakeModel:
    class Refusing(FakeModel):
        async def complete(self, request: Request) -> Completion:
            return replace(await super().complete(request), finish="refusal")

    return Refusing(lambda request: "no")


async def first_time(ledger: Ledger, walk: Walk, lm: FakeModel, **more: Any) -> list[Any]:
    found = await walk(gateway(ledger, prices=PRICES, **more), lm)
    await ledger.commit()
    ledger.close()
    return list(found)


async def again(path: Path, walk: Walk, lm: FakeModel, **more: Any) -> tuple[list[Any], Gateway]:
    """The resumed run takes the same way; the ledger is closed afterwards."""
    with closing(Ledger(path)) as ledger:
        account = Account(more.pop("budget", Budget()), ledger.resume_run("run-1", {}))
        door = gateway(ledger, account=account, prices=PRICES, **more)
        found = await walk(door, lm)
        await ledger.commit()
    return list(found), door


async def one_by_one(door: Gateway, lm: FakeModel) -> list[Completion]:
    return [await door.complete("model", lm, ask(text), "c") for text in ("a", "b", "a", "c", "a")]


async def together(door: Gateway, lm: FakeModel) -> list[Completion]:
    return await asyncio.gather(*(door.complete("model", lm, ask(text), "c") for text in ("a", "b", "a", "c", "a")))


@pytest.mark.parametrize("bought_before", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("walk", [one_by_one, together])
async def test_the_same_way_gets_the_same_replies_for_nothing(
    ledger: Ledger, walk: Walk, use_cache: bool, bought_before: bool
) -> None:
    """Whether or not another run had bought the same calls; hits stay hits."""
    ledger.begin_run(NewRun("other", make_task(), "m"))
    if bought_before:
        await together(gateway(ledger, run_id="other"), model("of another run"))
    first = await first_time(ledger, walk, counting(), use_cache=use_cache)
    assert ("of another run" in {reply.text for reply in first}) is (bought_before and use_cache)
    rows, lm = read(ledger.path, "SELECT * FROM calls"), counting()
    second, door = await again(ledger.path, walk, lm, use_cache=use_cache)
    assert (second, lm.seen) == (first, [])
    assert read(ledger.path, "SELECT * FROM calls") == rows, "nothing is recorded twice"
    assert door.account.total_used.calls == 5
    assert door.account.cached == (5 if bought_before and use_cache else 2 * (use_cache or walk is together))


async def test_a_resumed_run_gets_each_of_its_hits_once_and_buys_on_under_the_same_caps(ledger: Ledger) -> None:
    async def further(door: Gateway, lm: FakeModel) -> list[Completion]:
        return [*(await together(door, lm)), *(await one_by_one(door, lm))]

    capped = {"use_cache": False, "budget": Budget(max_calls=8)}
    first = await first_time(ledger, together, counting(), use_cache=False)
    found, _ = await again(ledger.path, further, counting(), **capped)
    assert found[:5] == first
    assert [reply.text for reply in found[5:]] == ["a-1", "b-2", "a-3", "c-4", "a-5"]
    assert dict(read(ledger.path, "SELECT state, COUNT(*) FROM calls GROUP BY state")) == {"ok": 8, "cached": 2}
    lm = counting()
    with pytest.raises(BudgetExhausted):
        await again(ledger.path, lambda door, lm: door.complete("model", lm, ask("new")), lm, **capped)
    assert lm.seen == []


async def test_a_resumed_run_keeps_the_reply_that_an_unfinished_run_had_left_it(ledger: Ledger) -> None:
    """Also without the cache, and though nothing is left of that run any more."""
    ledger.begin_run(NewRun("other", make_task(), "fake/m"))
    bought = await gateway(ledger, run_id="other").complete("model", model("left"), ask("a"))
    past = ResumeState(left={call_key(model(), ask("a")): [1]})

    async def walk(door: Gateway, lm: FakeModel) -> list[Completion]:
        return [await door.complete("model", lm, ask("a"))]

    lm = model("bought again")
    assert await first_time(ledger, walk, lm, use_cache=False, past=past) == [bought]
    assert ((await again(ledger.path, walk, lm, use_cache=False))[0], lm.seen) == ([bought], [])


@pytest.mark.parametrize("first", [TransportUnknown("reset"), RowRefused("not today")])
async def test_a_failed_row_is_retried_by_a_resumed_run_which_counts_what_was_paid(
    ledger: Ledger, first: Exception
) -> None:
    async def walk(door: Gateway, lm: FakeModel) -> list[Any]:
        jobs = [door.complete("model", lm, ask(text, max_tokens=1)) for text in "ab"]
        return [await asyncio.gather(job, return_exceptions=True) for job in jobs]

    await first_time(ledger, walk, scripted("one", first))
    lm = scripted("two")
    found, door = await again(ledger.path, walk, lm)
    assert [reply.text for (reply,) in found] == ["one", "two"]
    assert len(lm.seen) == 1
    unknown = isinstance(first, TransportUnknown)
    assert door.account.total_paid.calls == (5 if unknown else 3)
    assert door.account.total_paid.usd == pytest.approx(5.0 if unknown else 2.0)
    assert (door.account.total_used.calls, door.account.failed) == (2, 3 if unknown else 1)


@pytest.mark.parametrize("twins", [1, 3])
async def test_its_own_refusal_is_not_bought_again_by_a_resumed_run(ledger: Ledger, twins: int) -> None:
    async def walk(door: Gateway, lm: FakeModel) -> list[Completion]:
        return await asyncio.gather(*(door.complete("model", lm, ask("a"), "c") for _ in range(twins)))

    first, lm = await first_time(ledger, walk, refusing()), scripted("billing")
    assert ((await again(ledger.path, walk, lm))[0], lm.seen) == (first, [])


async def test_a_reply_whose_text_was_erased_is_bought_again(ledger: Ledger) -> None:
    await first_time(ledger, one_by_one, counting())
    with closing(Ledger(ledger.path)) as opened:
        opened.erase([digest for (digest,) in read(ledger.path, "SELECT response_hash FROM calls")], "a", "r")
    lm = counting()
    found, _ = await again(ledger.path, one_by_one, lm)
    assert [reply.text for reply in found] == ["a-1", "b-2", "a-1", "c-3", "a-1"]
    assert len(lm.seen) == 3


@pytest.mark.parametrize("settled", [0, 1, 3, 7])
async def test_a_run_stopped_at_any_point_ends_as_if_it_had_not_been(tmp_path: Path, settled: int) -> None:
    """Twelve calls with four twins; the run is stopped, drained and resumed."""
    texts = [f"{n % 8}" for n in range(12)]

    async def walk(door: Gateway, lm: FakeModel) -> list[Any]:
        jobs = (door.complete("model", lm, ask(text), "c") for text in texts)
        return await asyncio.gather(*jobs, return_exceptions=True)

    def counts() -> dict[str, int]:
        return dict(read(tmp_path / "ledger.db", "SELECT state, COUNT(*) FROM calls GROUP BY state"))

    ledger = open_ledger(tmp_path / "ledger.db")
    slow = GatedModel(lambda request: f"reply to {request.messages[-1].content}")
    door = gateway(ledger, max_concurrency=2)
    job = asyncio.ensure_future(walk(door, slow))
    if settled:
        slow.open.set()
        await until(lambda: len(slow.seen) >= settled or job.done())
        slow.open.clear()
    door.stop(Interrupted())
    slow.open.set()
    await job
    await door.drain()
    ledger.close()
    before, lm = counts(), FakeModel(lambda request: f"reply to {request.messages[-1].content}")
    found, resumed = await again(ledger.path, walk, lm)
    assert [reply.text for reply in found] == [f"reply to {text}" for text in texts]
    assert len(lm.seen) == 8 - before.get("ok", 0)
    assert counts()["ok"] == 8 == resumed.account.total_paid.calls
    assert set(counts()) <= {"ok", "cached", "error"}
    assert resumed.account.total_used.calls == 12
