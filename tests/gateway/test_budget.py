"""No cap is passed in any order of reservations and charges, and bills above a reservation are learnt from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted, RateLimited, RowRefused, TransportUnknown
from agent.gateway.budget import LANDING_SECONDS, MARGIN, STEADY, Account, Bills, Excess, HeldBack, times
from agent.gateway.gateway import TOOLS_TOKENS
from agent.gateway.prices import fixed_price
from agent.ledger.resume_state import OVERBILLED, ResumeState
from agent.ledger.store import Ledger
from agent.types import Budget, Completion, Request, Spend, Tool, Usage
from tests.gateway.doors import Messages, burst, classes, gateway
from tests.gateway.virtual import LoopClock
from tests.ledger.ledgers import read
from tests.toys import FakeModel, ask, open_ledger

SPENDS = st.builds(Spend, st.just(1), st.integers(0, 50), st.floats(0, 1))
CAPS = st.builds(Budget, st.none() | st.integers(0, 20), st.none() | st.integers(0, 300), st.none() | st.floats(0, 5))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), SPENDS, st.floats(0, 1)),
        st.tuples(st.sampled_from(["charge", "charge whole", "release"]), st.integers(0, 99), st.floats(0, 1)),
    ),
    max_size=60,
)


def room(budget: Budget, total: Spend) -> float:
    """How far `total` is below the nearest cap, in the unit of that cap; negative: above it."""
    pairs = ((budget.max_calls, total.calls), (budget.max_tokens, total.tokens), (budget.max_cost, total.usd))
    return min((cap - spent for cap, spent in pairs if cap is not None), default=math.inf)


@given(CAPS, STEPS, st.sampled_from(["model", "proposer", "judge"]), SPENDS)
def test_a_reservation_is_refused_exactly_where_what_is_paid_and_open_would_pass_a_cap(
    budget: Budget, steps: list[Any], role: Any, paid: Spend
) -> None:
    """Also in a run that is resumed with something paid."""
    account, opened = Account(budget, ResumeState(paid={"model": paid})), list[Spend]()
    for verb, what, share in steps:
        if verb == "reserve":
            left = room(budget, sum(opened, paid) + what)
            try:
                account.reserve(what)
                opened.append(what)
                assert left > -1e-9
            except BudgetExhausted:
                assert left < 1e-9
        elif opened:
            held = opened.pop(what % len(opened))
            account.release(held)
            if verb != "release":
                part = 1.0 if verb == "charge whole" else share
                spend = Spend(1, int(held.tokens * part), held.usd * part)
                account.charge(role, spend)
                paid += spend
        assert account.total_paid.usd == pytest.approx(paid.usd)
        assert (account.total_paid.calls, account.total_paid.tokens) == (paid.calls, paid.tokens)


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget(max_calls=0), "max_calls = 0"),
        (Budget(max_calls=5, max_tokens=9, max_cost=0.5), "max_tokens = 9"),
        (Budget(max_tokens=0), "max_tokens = 0"),
        (Budget(max_cost=0.5), "max_cost = 0.5"),
        (Budget(max_cost=0.0), "max_cost = 0"),
        (Budget(time_limit=0.0), "time_limit = 0"),
    ],
)
def test_a_refusal_names_the_cap_in_one_line(budget: Budget, name: str) -> None:
    with pytest.raises(BudgetExhausted, match=rf"^the next call would pass the cap \({name}\); give more$"):
        Account(budget).reserve(Spend(1, 10, 0.75))


def test_a_resumed_account_continues_from_calls_and_dollars_paid_and_from_its_seconds() -> None:
    past = ResumeState(paid={"model": Spend(3), "judge": Spend(1)}, seconds=30.0)
    account = Account(Budget(max_calls=5, time_limit=60.0), past)
    assert account.total_paid == Spend(4)
    account.reserve(Spend(1))
    with pytest.raises(BudgetExhausted, match="max_calls = 5"):
        account.reserve(Spend(1))
    assert 30.0 <= account.seconds < 60.0
    with pytest.raises(BudgetExhausted, match="time_limit = 60"):
        Account(Budget(time_limit=60.0), ResumeState(seconds=61.0)).reserve(Spend(1))


async def test_time_left_is_the_share_that_is_not_held_back_and_calls_in_flight_have_ten_more_seconds() -> None:
    account = Account(Budget(time_limit=60.0), ResumeState(seconds=20.0), clock=LoopClock())
    assert (account.time_left(), account.landing_left()) == (40.0, 40.0 + LANDING_SECONDS)
    account.hold_back(HeldBack(0, 0.5))
    assert (account.time_left(), account.landing_left()) == (10.0, 50.0)
    assert (Account(Budget()).time_left(), Account(Budget()).landing_left()) == (math.inf, None)


async def test_calls_that_the_time_pays_for_are_estimated_by_the_pace() -> None:
    past = ResumeState(paid={"model": Spend(25), "judge": Spend(5)}, seconds=60.0)
    assert Account(Budget(time_limit=100.0), past, clock=LoopClock()).payable_in_time() == pytest.approx(50)
    assert Account(Budget(), past).payable_in_time() == math.inf
    assert Account(Budget(time_limit=100.0)).payable_in_time() == math.inf, "nothing was called yet"


# -- what the end of the run needs -------------------------------------------------------------------------------------


def test_calls_held_back_are_there_at_the_end() -> None:
    account = Account(Budget(max_calls=10, max_tokens=1000, max_cost=1.0))
    account.hold_back(HeldBack(4, 0.5))
    for _ in range(6):
        account.reserve(Spend(1, 10, 0.01))
    with pytest.raises(BudgetExhausted, match=r"max_calls = 10, 4 of it kept for the sealed test"):
        account.reserve(Spend(1))
    account.hold_back(HeldBack())
    for _ in range(4):
        account.reserve(Spend(1, 10, 0.01))
    with pytest.raises(BudgetExhausted, match="max_calls = 10"):
        account.reserve(Spend(1))


@pytest.mark.parametrize(
    ("budget", "spend"),
    [
        (Budget(max_tokens=1000), Spend(1, 501)),
        (Budget(max_cost=1.0), Spend(1, 0, 0.501)),
        (Budget(time_limit=100.0), Spend(1)),
    ],
)
def test_a_share_of_every_cap_is_held_back(budget: Budget, spend: Spend) -> None:
    account = Account(budget, ResumeState(seconds=51.0))
    account.reserve(spend)
    account.release(spend)
    account.hold_back(HeldBack(0, 0.5))
    with pytest.raises(BudgetExhausted):
        account.reserve(spend)
    account.hold_back(HeldBack())
    account.reserve(spend)


def spent(cap: int | None, home: int, lost: int, kept: int) -> Account:
    account = Account(Budget(max_calls=cap))
    for _ in range(home):
        account.charge("model", Spend(1))
        account.use("model", Usage(), 0.0, cached=False)
    for _ in range(lost):
        account.lose("model", Spend(1))
        account.failed += 1
    account.hold_back(HeldBack(kept))
    return account


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_payable_replies_can_be_bought_if_as_many_attempts_are_lost_as_so_far(
    cap: int, home: int, lost: int, kept: int
) -> None:
    account = spent(cap, home, lost, kept)
    payable, rate = account.payable(), min(0.25, lost / max(1, home))
    assert payable <= max(0, cap - home - lost - kept)
    for _ in range(int(payable * (1 + rate) + 2 * (payable * rate) ** 0.5)):
        account.reserve(Spend(1))  # never refused


@pytest.mark.parametrize(
    ("cap", "home", "lost", "kept", "payable"),
    [(100, 30, 0, 20, 50), (100, 40, 4, 10, 35), (200, 10, 10, 40, 90), (20, 10, 2, 20, 0), (None, 1, 1, 1, math.inf)],
)
def test_payable_replies_by_losses_so_far(cap: int, home: int, lost: int, kept: int, payable: float) -> None:
    assert spent(cap, home, lost, kept).payable() == payable


# -- charges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "charge", "lost"),
    [
        (RateLimited("slow"), Spend(), 0),
        (RowRefused("no"), Spend(1), 1),
        (TransportUnknown("reset"), Spend(1, 10, 0.5), 1),
    ],
)
def test_a_failed_attempt_is_charged_by_what_the_provider_may_have_done(error: Any, charge: Spend, lost: int) -> None:
    account, worst = Account(Budget(max_calls=1)), Spend(1, 10, 0.5)
    account.reserve(worst)
    assert account.failed_attempt("model", worst, error) == charge == account.total_paid
    assert (account.lost, account.failed, account.limited, account.lost_usd) == (lost, lost, 1 - lost, charge.usd)


def test_used_counts_cached_calls_and_paid_does_not() -> None:
    account = Account(Budget())
    account.use("model", Usage(3, 2, 1), 0.25, cached=True, candidate_id="c")
    account.use("judge", Usage(3, 2, 0), 0.25, cached=False)
    assert account.used_for == {"c": Spend(1, 5, 0.25), "": Spend(1, 5, 0.25)}
    assert (account.total_used, account.total_paid) == (Spend(2, 10, 0.5), Spend())
    assert (account.cached, account.usage) == (1, Usage(6, 4, 1))


def test_passing_a_cap_is_reported_with_its_reason() -> None:
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


# -- bills above a reservation -----------------------------------------------------------------------------------------

CAPPED = Budget(max_tokens=1000, max_cost=1.0)
WORST = Spend(1, 100, 0.01)


def test_a_dearer_reply_scales_later_reservations_of_its_model_only() -> None:
    bills = Bills(CAPPED)
    assert bills.read("m", WORST, WORST) is None
    assert bills.reserved("m", WORST) is WORST
    assert (bills.is_predictable("m"), bills.most) == (True, 1.0)
    assert bills.read("m", WORST, Spend(1, 300, 0.02)) == Excess(3.0, 2.0)
    assert bills.reserved("m", WORST) == Spend(1, round(300 * MARGIN), pytest.approx(0.02 * MARGIN))
    assert bills.reserved("other", WORST) == WORST
    assert (bills.is_predictable("m"), bills.is_predictable("other")) == (False, True)
    assert bills.read("m", WORST, Spend(1, 100, 0.05)) == Excess(3.0, 5.0), "the excess of the other unit stays"


def test_bills_are_predictable_again_after_some_replies_in_a_row() -> None:
    bills = Bills(CAPPED, {"m": Excess(3.0, 1.0)})
    assert (bills.reserved("m", WORST).tokens, bills.most) == (300 * MARGIN, 3.0)
    for _ in range(STEADY - 1):
        assert bills.read("m", WORST, Spend(1, 375, 0.01)) is None
    assert not bills.is_predictable("m")
    assert bills.read("m", WORST, Spend(1, 900, 0.01)) == Excess(9.0, 1.0), "the row starts again"
    for _ in range(STEADY):
        assert not bills.is_predictable("m")
        bills.read("m", WORST, WORST)
    assert (bills.is_predictable("m"), bills.most) == (True, 9.0)


def test_calls_whose_price_only_replies_tell_are_reserved_at_the_dearest_reply_of_their_model() -> None:
    bills, unpriced = Bills(CAPPED), Spend(1, 100)
    for usd in (0.02, 0.05, 0.03):
        assert bills.read("m", unpriced, Spend(1, 100, usd)) is None
    assert bills.reserved("m", unpriced) == Spend(1, 100, 0.05)
    assert bills.reserved("other", unpriced) == unpriced


@pytest.mark.parametrize(
    ("budget", "excess"),
    [(Budget(max_calls=9), None), (Budget(max_tokens=9), Excess(3.0)), (Budget(max_cost=9.0), Excess(1.0, 2.0))],
)
def test_only_capped_units_count(budget: Budget, excess: Excess | None) -> None:
    bills = Bills(budget)
    assert bills.read("m", WORST, Spend(1, 300, 0.02)) == excess
    assert bills.is_predictable("m") is (excess is None)


@given(st.lists(st.integers(0, 10**12)))
def test_reservations_never_fall_and_cover_the_last_bill(tokens: list[int]) -> None:
    bills, before = Bills(CAPPED), WORST.tokens
    for paid in tokens:
        bills.read("m", WORST, Spend(1, paid, 0.0))
        now = bills.reserved("m", WORST).tokens
        assert now >= max(before, paid)
        before = now


@pytest.mark.parametrize(
    ("excess", "told"), [(1.25, "1.2 times"), (9.94, "9.9 times"), (9.99, "10 times"), (2e6, "2,000,000 times")]
)
def test_an_excess_is_written_in_few_digits(excess: float, told: str) -> None:
    assert times(excess) == told


# -- a provider that bills too much ------------------------------------------------------------------------------------


class Billing(FakeModel):
    """Bills its reply number n at `tokens(n)` completion tokens."""

    def __init__(self, tokens: Any, concurrency: int | None = None) -> None:
        super().__init__(lambda request: "ok", concurrency=concurrency)
        self._tokens = tokens
        self.flying = 0
        self.widths: list[int] = []  # calls in flight when each arrived

    async def complete(self, request: Request) -> Completion:
        self.flying += 1
        self.widths.append(self.flying)
        number = len(self.seen)
        reply = await super().complete(request)
        await LoopClock().sleep(0.005)
        self.flying -= 1
        return Completion(reply.text, reply.finish, Usage(0, self._tokens(number)), reply.model)


def reserved_tokens(ledger: Ledger) -> list[int]:
    rows = read(ledger.path, "SELECT reserved_tokens FROM calls WHERE state = 'ok' ORDER BY id")
    return [tokens for (tokens,) in rows]


async def test_tools_are_reserved_as_well(ledger: Ledger) -> None:
    request, door = ask("a"), gateway(ledger, Budget(max_tokens=9000))
    tool = Tool("stock", " ".join(["word"] * 900), '{"type": "object", "properties": {}}')
    for asked in (request, replace(request, tools=(tool,))):
        await door.complete("model", FakeModel(lambda request: "ok"), asked)
    plain, with_tools = reserved_tokens(ledger)
    assert with_tools - plain > 900 + TOOLS_TOKENS


@pytest.mark.parametrize("width", [1, 32])
async def test_no_cap_is_passed_if_the_first_bill_is_too_high(ledger: Ledger, width: int) -> None:
    """Each reply costs 20 times its reservation: one call is in flight before that is known."""
    lm, messages = Billing(lambda number: 20 * 14), Messages()
    budget, prices = Budget(max_tokens=400, max_cost=1.0), {lm.name: fixed_price(0.0, 1000.0)}
    door = gateway(ledger, budget, prices=prices, max_concurrency=width, observer=messages)
    results = await burst(door, lm, 60)
    ends = [result for result in results if isinstance(result, BudgetExhausted)]
    assert (len(lm.seen), len(ends)) == (1, 59)
    assert door.account.total_paid.tokens == 280
    assert set(classes(ledger)) <= {"ok", "not_sent"}
    (line,) = messages.lines
    assert "its reservation: 280 tokens ($0.2800), not 18 ($0.0080)" in line
    assert str(ends[0]) == (
        "the next call would pass the cap (max_tokens = 400), because replies cost up to 35 times their reservation; "
        "give more"
    )


async def test_a_cap_is_passed_by_calls_in_flight_at_most(ledger: Ledger) -> None:
    """A provider that stays within reservations until eight calls are in flight."""
    lm = Billing(lambda number: 18 if number < 7 else 20 * 14)
    door = gateway(ledger, Budget(max_tokens=400), max_concurrency=8)
    results = await burst(door, lm, 60)
    paid = door.account.total_paid
    (told,) = {str(result) for result in results if isinstance(result, BudgetExhausted)}
    assert 400 < paid.tokens <= 7 * 18 + 8 * 280
    assert told.startswith(f"paid {paid.tokens:,} tokens, which passes the cap (max_tokens = 400) by ")


async def test_after_a_high_bill_calls_run_one_at_a_time_until_bills_are_predictable(ledger: Ledger) -> None:
    lm = Billing(lambda number: 100)
    door = gateway(ledger, Budget(max_tokens=10**6), max_concurrency=4)
    await burst(door, lm, 1 + STEADY + 20)
    assert set(lm.widths[: 1 + STEADY]) == {1}
    assert max(lm.widths[1 + STEADY :]) == 4
    plain, *learnt = reserved_tokens(ledger)
    assert (plain, set(learnt)) == (18, {125})
    assert door.account.overspent() == ""


async def test_bills_within_reservations_reach_full_width_after_a_few_replies(ledger: Ledger) -> None:
    lm, messages = Billing(lambda number: 18), Messages()
    door = gateway(ledger, CAPPED, max_concurrency=8, observer=messages)
    await burst(door, lm, 40)
    assert lm.widths[:3] == [1, 1, 2]
    assert lm.widths.index(8) < 16
    assert set(reserved_tokens(ledger)) == {18}
    assert messages.lines == []
    assert read(ledger.path, f"SELECT 1 FROM events WHERE kind = '{OVERBILLED}'") == []


@pytest.mark.parametrize(
    ("budget", "here"), [(Budget(max_calls=90), False), (Budget(max_cost=1.0), False), (CAPPED, True)]
)
async def test_no_call_waits_for_a_bill_that_no_cap_depends_on(ledger: Ledger, budget: Budget, here: bool) -> None:
    """Without a cap on tokens, or on the dollars of a priced model; and for a model in this process."""
    lm = Billing(lambda number: 18, concurrency=8 if here else None)
    await burst(gateway(ledger, budget, max_concurrency=8), lm, 8)
    assert lm.widths == [*range(1, 9)]


async def test_each_new_record_is_in_the_ledger_and_a_resumed_run_reserves_alike(tmp_path: Path) -> None:
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
    account = Account(Budget(max_tokens=10**6), again.resume_run("run-1", {}))
    assert account.bills.reserved("fake/m", WORST) == expected
    resumed, more = gateway(again, account=account, max_concurrency=4), Billing(lambda number: 400)
    await burst(resumed, more, 30)
    assert set(more.widths[:STEADY]) == {1}
    assert max(more.widths) > 1
    again.close()
