"""A resumed run takes its own replies first, pays for nothing twice, and writes nothing down twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BudgetExhausted, Interrupted, RowRefused, TransportUnknown
from agent.gateway.budget import Account, Spend
from agent.gateway.gateway import Gateway
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger, NewRun
from agent.types import Budget, Completion, Request
from tests.gateway.doors import gateway, scripted
from tests.ledger.ledgers import read
from tests.toys import FakeModel, GatedModel, ask, make_task, open_ledger, until

Walk = Callable[[Gateway, FakeModel], Any]
PRICES = {"fake/m": fixed_price(0.0, 1e6)}


def counting() -> FakeModel:
    """Every reply is another one, so that it shows which was taken."""
    lm = FakeModel(lambda request: f"{request.messages[-1].content}-{len(lm.seen)}")
    return lm


async def first_time(ledger: Ledger, walk: Walk, lm: FakeModel, **more: Any) -> list[Completion]:
    door = gateway(ledger, prices=PRICES, **more)
    found = await walk(door, lm)
    await ledger.commit()
    ledger.close()
    return list(found)


async def again(path: Path, walk: Walk, lm: FakeModel, **more: Any) -> tuple[list[Completion], Gateway]:
    """The run is resumed and walks the same way; the ledger is closed afterwards."""
    ledger = Ledger(path)
    past = ledger.resume_run("run-1", {})
    account = Account(more.pop("budget", Budget()), past)
    door = gateway(ledger, account=account, prices=PRICES, **more)
    found = await walk(door, lm)
    await ledger.commit()
    ledger.close()
    return list(found), door


async def one_by_one(door: Gateway, lm: FakeModel) -> list[Completion]:
    return [await door.complete("model", lm, ask(text), "c") for text in ("a", "b", "a", "c", "a")]


async def together(door: Gateway, lm: FakeModel) -> list[Completion]:
    return await asyncio.gather(*(door.complete("model", lm, ask(text), "c") for text in ("a", "b", "a", "c", "a")))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("walk", [one_by_one, together])
async def test_the_same_way_again_gets_the_same_replies_for_nothing(
    ledger: Ledger, walk: Walk, use_cache: bool
) -> None:
    first = await first_time(ledger, walk, counting(), use_cache=use_cache)
    rows = read(ledger.path, "SELECT * FROM calls")
    lm = counting()
    second, door = await again(ledger.path, walk, lm, use_cache=use_cache)
    assert second == first
    assert lm.seen == []
    assert read(ledger.path, "SELECT * FROM calls") == rows, "nothing is recorded twice, hits neither"
    assert door.account.total_used.calls == 5


async def test_an_account_goes_on_from_what_was_paid(ledger: Ledger) -> None:
    async def walk(door: Gateway, lm: FakeModel) -> list[Any]:
        jobs = [door.complete("model", lm, ask(text, max_tokens=1)) for text in "ab"]
        return [await asyncio.gather(job, return_exceptions=True) for job in jobs]

    await first_time(ledger, walk, scripted("one", TransportUnknown("reset")))
    lm = scripted("two")
    found, door = await again(ledger.path, walk, lm, budget=Budget(max_calls=5, max_cost=5.0))
    assert [reply.text for (reply,) in found] == ["one", "two"]
    assert len(lm.seen) == 1
    assert door.account.total_paid.calls == 5, "one, three resets, and one more"
    assert door.account.total_paid.usd == pytest.approx(5.0)
    assert door.account.total_used.calls == 2


async def test_a_cap_counts_what_was_paid_before(ledger: Ledger) -> None:
    await first_time(ledger, one_by_one, counting())
    lm = counting()

    async def further(door: Gateway, lm: FakeModel) -> list[Completion]:
        await one_by_one(door, lm)
        return [await door.complete("model", lm, ask("new"))]

    with pytest.raises(BudgetExhausted):
        await again(ledger.path, further, lm, budget=Budget(max_calls=3))
    assert lm.seen == []


async def test_after_what_stands_a_run_buys_on(ledger: Ledger) -> None:
    await first_time(ledger, one_by_one, counting(), use_cache=False)
    lm = counting()

    async def further(door: Gateway, lm: FakeModel) -> list[Completion]:
        return [*(await one_by_one(door, lm)), *(await one_by_one(door, lm))]

    found, _ = await again(ledger.path, further, lm, use_cache=False)
    assert [reply.text for reply in found[5:]] == ["a-1", "b-2", "a-3", "c-4", "a-5"]
    assert states_of(ledger.path) == {"ok": 10}


def states_of(path: Path) -> dict[str, int]:
    return dict(read(path, "SELECT state, COUNT(*) FROM calls GROUP BY state"))


async def test_its_own_replies_come_before_those_of_others(ledger: Ledger) -> None:
    """Another run had bought the same calls before; this one did not take them, and does not take them now."""
    ledger.begin_run(NewRun("other", make_task(), "m"))
    others = FakeModel(lambda request: "the other run's")
    await together(gateway(ledger, run_id="other"), others)
    first = await first_time(ledger, together, counting(), use_cache=False)
    assert "the other run's" not in {reply.text for reply in first}
    second, _ = await again(ledger.path, together, counting(), use_cache=False)
    assert second == first, "those that flew together, too"


async def test_what_came_from_another_run_comes_from_it_again_and_stays_a_hit(ledger: Ledger) -> None:
    ledger.begin_run(NewRun("other", make_task(), "m"))
    await one_by_one(gateway(ledger, run_id="other"), counting())
    first = await first_time(ledger, one_by_one, counting())
    rows = states_of(ledger.path)
    second, door = await again(ledger.path, one_by_one, counting())
    assert second == first
    assert states_of(ledger.path) == rows
    assert door.account.cached == 5
    assert door.account.total_paid == Spend()


def refusing(text: str = "no") -> FakeModel:
    class Refusing(FakeModel):
        async def complete(self, request: Request) -> Completion:
            return replace(await super().complete(request), finish="refusal")

    return Refusing(lambda request: text)


async def test_another_runs_refusal_is_never_served(ledger: Ledger) -> None:
    ledger.begin_run(NewRun("other", make_task(), "m"))
    await gateway(ledger, run_id="other").complete("model", refusing(), ask("a"))
    lm = scripted("billing")
    assert (await gateway(ledger).complete("model", lm, ask("a"))).text == "billing"
    assert len(lm.seen) == 1


@pytest.mark.parametrize("twins", [1, 3])
async def test_its_own_refusal_is_not_bought_again_by_a_run_that_is_resumed(ledger: Ledger, twins: int) -> None:
    async def walk(door: Gateway, lm: FakeModel) -> list[Completion]:
        return await asyncio.gather(*(door.complete("model", lm, ask("a"), "c") for _ in range(twins)))

    first = await first_time(ledger, walk, refusing())
    lm = scripted("billing")
    second, _ = await again(ledger.path, walk, lm)
    assert second == first
    assert lm.seen == []


async def test_a_failed_row_is_tried_again_when_the_run_is_resumed(ledger: Ledger) -> None:
    async def walk(door: Gateway, lm: FakeModel) -> list[Any]:
        return await asyncio.gather(door.complete("model", lm, ask("a")), return_exceptions=True)

    (first,) = await first_time(ledger, walk, scripted(RowRefused("not today")))
    assert isinstance(first, RowRefused)
    (second,), _ = await again(ledger.path, walk, scripted("billing"))
    assert second.text == "billing"


async def test_a_reply_whose_text_was_erased_is_bought_again(ledger: Ledger) -> None:
    await first_time(ledger, one_by_one, counting())
    with closing(Ledger(ledger.path)) as opened:
        opened.erase([digest for (digest,) in read(ledger.path, "SELECT response_hash FROM calls")], "a", "r")
    lm = counting()
    found, _ = await again(ledger.path, one_by_one, lm)
    assert len(lm.seen) == 3
    assert [reply.text for reply in found] == ["a-1", "b-2", "a-1", "c-3", "a-1"]


@pytest.mark.parametrize("landed", [0, 1, 3, 5, 7])
async def test_a_run_that_is_left_at_any_point_ends_as_if_it_had_not_been(tmp_path: Path, landed: int) -> None:
    """Twelve calls of which four are twins; it is stopped after some have landed, drained, and resumed."""
    texts = [f"{n % 8}" for n in range(12)]

    async def walk(door: Gateway, lm: FakeModel) -> list[Any]:
        jobs = (door.complete("model", lm, ask(text), "c") for text in texts)
        return await asyncio.gather(*jobs, return_exceptions=True)

    ledger = open_ledger(tmp_path / "ledger.db")
    slow = GatedModel(lambda request: f"reply to {request.messages[-1].content}")
    door = gateway(ledger, max_concurrency=2)
    job = asyncio.ensure_future(walk(door, slow))
    if landed:
        slow.open.set()
        await until(lambda: len(slow.seen) >= landed or job.done())
        slow.open.clear()
    door.stop(Interrupted())
    slow.open.set()
    await job
    await door.drain()
    ledger.close()
    before = states_of(ledger.path)
    lm = FakeModel(lambda request: f"reply to {request.messages[-1].content}")
    found, resumed = await again(ledger.path, walk, lm)
    assert [reply.text for reply in found] == [f"reply to {text}" for text in texts]
    assert len(lm.seen) == 8 - before.get("ok", 0)
    assert states_of(ledger.path)["ok"] == 8 == resumed.account.total_paid.calls
    assert set(states_of(ledger.path)) <= {"ok", "cached", "error"}
    assert resumed.account.total_used.calls == 12
