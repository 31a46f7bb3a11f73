"""A provider that bills more than was reserved: it is told and learnt, and a cap is passed by what flew at most."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted
from agent.gateway.budget import MARGIN, STEADY, Account, Bills, Excess, times
from agent.gateway.prices import fixed_price
from agent.ledger.resume_state import OVERBILLED
from agent.ledger.store import Ledger
from agent.types import Budget, Completion, Request, Spend, Usage
from tests.gateway.doors import Messages, burst, classes, gateway, model
from tests.ledger.ledgers import read
from tests.toys import FakeModel, ask, open_ledger
from tests.wire import Fault, WireServer

CAPPED = Budget(max_tokens=1000, max_cost=1.0)
WORST = Spend(1, 100, 0.01)


class Billing(FakeModel):
    """Takes a moment for each reply, and bills it at what `tokens(number)` says, in completion tokens."""

    def __init__(self, tokens: Any, name: str = "fake/m") -> None:
        super().__init__(lambda request: "ok", name)
        self._tokens = tokens
        self.flying = self.most = 0
        self.widths: list[int] = []  # calls in flight when each arrived

    async def complete(self, request: Request) -> Completion:
        self.flying += 1
        self.widths.append(self.flying)
        number = len(self.seen)
        try:
            reply = await super().complete(request)
            await asyncio.sleep(0.005)
        finally:
            self.flying -= 1
        return Completion(reply.text, reply.finish, Usage(0, self._tokens(number)), reply.model)


def reserved_tokens(ledger: Ledger) -> list[int]:
    return [
        tokens for (tokens,) in read(ledger.path, "SELECT reserved_tokens FROM calls WHERE state = 'ok' ORDER BY id")
    ]


# -- what is learnt ----------------------------------------------------------------------------------------------------


def test_a_reply_within_its_reservation_changes_nothing() -> None:
    bills = Bills(CAPPED)
    assert bills.read("m", WORST, WORST) is None
    assert bills.reserved("m", WORST) is WORST
    assert bills.is_predictable("m")
    assert bills.most == 1.0


def test_a_dearer_reply_scales_what_is_reserved_for_its_model_alone() -> None:
    bills = Bills(CAPPED)
    assert bills.read("m", WORST, Spend(1, 300, 0.02)) == Excess(3.0, 2.0)
    assert bills.reserved("m", WORST) == Spend(1, round(300 * MARGIN), pytest.approx(0.02 * MARGIN))
    assert bills.reserved("other", WORST) == WORST
    assert not bills.is_predictable("m")
    assert bills.is_predictable("other")


def test_bills_can_be_told_again_after_some_replies_in_a_row() -> None:
    bills = Bills(CAPPED)
    bills.read("m", WORST, Spend(1, 300, 0.01))
    for _ in range(STEADY - 1):
        assert bills.read("m", WORST, Spend(1, 320, 0.01)) is None
    assert not bills.is_predictable("m")
    assert bills.read("m", WORST, Spend(1, 900, 0.01)) == Excess(9.0, 1.0), "the row begins anew"
    for _ in range(STEADY):
        bills.read("m", WORST, WORST)
    assert bills.is_predictable("m")
    assert bills.most == 9.0


@pytest.mark.parametrize(
    ("budget", "excess"),
    [
        (Budget(), None),
        (Budget(max_calls=9), None),
        (Budget(max_tokens=9), Excess(3.0)),
        (Budget(max_cost=9.0), Excess(1.0, 2.0)),
    ],
)
def test_only_what_is_capped_counts(budget: Budget, excess: Excess | None) -> None:
    bills = Bills(budget)
    assert bills.read("m", WORST, Spend(1, 300, 0.02)) == excess
    assert bills.is_predictable("m") is (excess is None)


@given(st.lists(st.integers(0, 10**12)))
def test_what_is_reserved_never_falls_and_covers_the_last_bill(tokens: list[int]) -> None:
    bills, before = Bills(CAPPED), WORST.tokens
    for paid in tokens:
        bills.read("m", WORST, Spend(1, paid, 0.0))
        now = bills.reserved("m", WORST).tokens
        assert now >= max(before, paid)
        before = now


def test_a_resumed_run_knows_what_was_learnt() -> None:
    bills = Bills(CAPPED, {"m": Excess(3.0, 1.0)})
    assert bills.reserved("m", WORST).tokens == 300 * MARGIN
    assert not bills.is_predictable("m")
    assert bills.most == 3.0


@pytest.mark.parametrize(("excess", "told"), [(1.25, "1.2 times"), (9.99, "10 times"), (2e6, "2,000,000 times")])
def test_the_excess_is_told_in_few_digits(excess: float, told: str) -> None:
    assert times(excess) == told


# -- the cap -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 8, 32])
async def test_no_cap_is_passed_where_the_first_bill_is_too_high(ledger: Ledger, width: int) -> None:
    """Each reply costs 20 times its reservation: one call flies before that is known."""
    lm, messages = Billing(lambda number: 20 * 14), Messages()
    budget, prices = Budget(max_tokens=400, max_cost=1.0), {lm.name: fixed_price(0.0, 1000.0)}
    door = gateway(ledger, budget, prices=prices, max_concurrency=width, observer=messages)
    results = await burst(door, lm, 60)
    ends = [result for result in results if isinstance(result, BudgetExhausted)]
    assert (len(lm.seen), len(ends)) == (1, 59)
    assert door.account.total_paid.tokens == 280
    assert set(classes(ledger)) <= {"ok", "not_sent"}
    (line,) = messages.lines
    assert "its reservation: 280 tokens ($0.2800), " in line
    assert "not 18 ($0.0080)" in line
    fits = "the next call would pass the cap (max_tokens = 400), because "
    assert str(ends[0]).startswith(fits)
    assert f"replies cost up to {times(door.account.bills.most)} their reservation" in str(ends[0])


async def test_a_cap_is_passed_by_what_was_in_flight_at_most(ledger: Ledger) -> None:
    """A provider that keeps to its reservations until eight calls are in flight."""
    lm = Billing(lambda number: 18 if number < 7 else 20 * 14)
    door = gateway(ledger, Budget(max_tokens=400), max_concurrency=8)
    results = await burst(door, lm, 60)
    paid = door.account.total_paid
    (told,) = {str(result) for result in results if isinstance(result, BudgetExhausted)}
    assert 400 < paid.tokens <= 7 * 18 + 8 * 280
    assert told.startswith(f"paid {paid.tokens:,} tokens, which passes the cap (max_tokens = 400) by ")


async def test_after_a_bill_that_is_too_high_one_call_flies_at_a_time_until_bills_can_be_told(ledger: Ledger) -> None:
    lm = Billing(lambda number: 100)
    door = gateway(ledger, Budget(max_tokens=10**6), max_concurrency=4)
    await burst(door, lm, 1 + STEADY + 20)
    assert set(lm.widths[: 1 + STEADY]) == {1}
    assert max(lm.widths[1 + STEADY :]) == 4
    plain, *learnt = reserved_tokens(ledger)
    assert plain == 18
    assert set(learnt) == {125}


async def test_a_provider_that_keeps_to_its_reservations_is_at_full_width_after_a_few_replies(ledger: Ledger) -> None:
    lm, messages = Billing(lambda number: 18), Messages()
    door = gateway(ledger, Budget(max_tokens=10**6, max_cost=1.0), max_concurrency=8, observer=messages)
    await burst(door, lm, 40)
    assert lm.widths[:3] == [1, 1, 2]
    assert lm.widths.index(8) < 16
    assert set(reserved_tokens(ledger)) == {18}
    assert messages.lines == []
    assert read(ledger.path, f"SELECT 1 FROM events WHERE kind = '{OVERBILLED}'") == []


@pytest.mark.parametrize(
    ("budget", "here"), [(Budget(max_calls=90), False), (Budget(max_cost=1.0), False), (CAPPED, True)]
)
async def test_no_call_waits_for_a_bill_where_no_cap_hangs_on_it(ledger: Ledger, budget: Budget, here: bool) -> None:
    """Without a cap on tokens, or on the dollars of a model that has a price; and of a model in this process."""
    lm = Billing(lambda number: 18)
    lm.concurrency = 8 if here else None
    await burst(gateway(ledger, budget, max_concurrency=8), lm, 8)
    assert lm.widths == [*range(1, 9)]


async def test_what_fits_the_cap_is_bought_and_what_was_paid_is_told_where_it_does_not(ledger: Ledger) -> None:
    """A dear provider with a cap that is large enough is no reason to end."""
    lm = Billing(lambda number: 500)
    door = gateway(ledger, Budget(max_tokens=100_000), max_concurrency=8)
    assert all(isinstance(result, Completion) for result in await burst(door, lm, 100))
    assert door.account.overspent() == ""


async def test_each_new_record_is_in_the_ledger_and_a_resumed_run_reserves_as_the_one_before(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    lm = Billing(lambda number: 40 if number < 3 else 400)
    door = gateway(ledger, Budget(max_tokens=10**6), max_concurrency=1)
    for number in range(6):
        await door.complete("model", lm, ask(f"number {number}"))
    await ledger.commit()
    bodies = [json.loads(body) for (body,) in read(ledger.path, f"SELECT body FROM events WHERE kind = '{OVERBILLED}'")]
    assert [told["times"]["tokens"] for told in bodies] == pytest.approx([40 / 18, 400 / 18])
    assert [told["paid"]["tokens"] for told in bodies] == [40, 400]
    expected = door.account.bills.reserved("fake/m", WORST)
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    past = again.resume_run("run-1", {})
    account = Account(Budget(max_tokens=10**6), past)
    assert account.bills.reserved("fake/m", WORST) == expected
    resumed, more = gateway(again, account=account, max_concurrency=4), Billing(lambda number: 400)
    await burst(resumed, more, 30)
    assert set(more.widths[:STEADY]) == {1}
    assert max(more.widths) > 1
    again.close()


def test_what_passes_a_cap_is_told_with_its_reason() -> None:
    account = Account(Budget(max_cost=0.05))
    assert account.overspent() == ""
    account.bills.read("m", WORST, Spend(1, 0, 0.32))
    account.charge("model", Spend(5, 0, 1.6))
    told = (
        "paid $1.6000, which passes the cap (max_cost = 0.05) by $1.5500, "
        "because replies cost up to 32 times their reservation"
    )
    assert account.overspent() == told
    with pytest.raises(BudgetExhausted) as caught:
        account.reserve(Spend(1))
    assert str(caught.value) == f"{told}; give more"


async def test_a_real_provider_that_ignores_max_tokens(ledger: Ledger) -> None:
    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        message = {"role": "assistant", "content": "ok"}
        usage = {"prompt_tokens": 10, "completion_tokens": 4000, "total_tokens": 4010}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Fault(body={"id": "c", "object": "chat.completion", "model": "x", "choices": [choice], "usage": usage})

    with WireServer(reply) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_tokens=20_000), max_concurrency=32)
        results = await burst(door, lm, 100)
        await lm.close()
    assert len(server.requests) == 4
    assert door.account.total_paid.tokens == 4010 * 4 <= 20_000
    (told,) = {str(result) for result in results if isinstance(result, BudgetExhausted)}
    assert told.startswith("the next call would pass the cap (max_tokens = 20000), because replies cost ")
