"""What caps on tokens and dollars buy: plans that fit them, and refusals before anything is called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetRefused
from agent.gateway.prices import fixed_price
from agent.search.costs import EFFORT_CALLS, LETTERS_A_TOKEN, CallCosts, Means, Models, call_costs, largest_calls
from agent.search.plan import DEV_SHARE, FEWEST_ROWS, Plan, make_plan
from agent.types import Budget, Tool
from tests.toys import make_task

TASK = make_task(3)
TASK = make_task(3, dev=TASK.dev * 40, test=TASK.test * 40)
PRICES = {"a/target": fixed_price(1.0, 5.0), "a/proposer": fixed_price(1.0, 5.0)}
ALONE: Models = {"model": ["a/target"], "proposer": [], "judge": []}
NEEDED = int(FEWEST_ROWS / DEV_SHARE) + 1
"""Calls that compare two prompts on the fewest rows."""


def costs() -> CallCosts:
    return call_costs(TASK, {**ALONE, "proposer": ["a/proposer"]}, PRICES)


def planned(budget: Budget) -> Plan:
    return make_plan(TASK, Means(budget, costs=costs()), True)


def test_room_to_think_makes_every_call_dearer() -> None:
    plain, thinking = (call_costs(make_task(thinking=n), ALONE, {}) for n in (0, 1000))
    assert (thinking.least.tokens, thinking.usual.tokens) == (plain.least.tokens + 500, plain.usual.tokens + 500)


def test_tools_make_every_call_dearer_and_leave_room_for_as_long_a_prompt() -> None:
    tools = tuple(Tool(f"tool{n:04}", "d" * 240, "{}" + " " * 150) for n in range(5))  # 400 letters each
    bare, equipped = (call_costs(make_task(tools=each), ALONE, PRICES) for each in ((), tools))
    assert (equipped.least.tokens, equipped.usual.tokens) == (bare.least.tokens + 500, bare.usual.tokens + 500)
    assert equipped.own_prompt == bare.own_prompt + 500
    assert equipped.least.usd == pytest.approx(bare.least.usd + 500 * bare.usd_a_token)
    most = [largest_calls(make_task(tools=each), 0) for each in ((), tools)]
    assert most[1]["model"].prompt_tokens == most[0]["model"].prompt_tokens + 2000 // LETTERS_A_TOKEN
    assert most[1]["judge"] == most[0]["judge"]
    capped = Budget(max_tokens=50_000)
    fewer = [make_plan(TASK, Means(capped, costs=each), False).calls for each in (bare, equipped)]
    assert fewer[0] > fewer[1] > 0


def test_demos_make_a_call_dearer_and_a_model_without_a_price_costs_nothing() -> None:
    found = costs()
    assert found.usual.tokens > found.least.tokens > found.own_prompt > 0
    assert found.usual.usd > found.least.usd > 0
    free = call_costs(TASK, ALONE, {})
    assert free.usual.usd == free.usd_a_token == 0
    assert free.affordable(Budget(max_cost=0.01), free.usual) is None


@given(st.integers(1, 10**7))
def test_a_plan_spends_what_its_cap_on_tokens_buys_or_is_refused(cap: int) -> None:
    try:
        plan = planned(Budget(max_tokens=cap))
    except BudgetRefused:
        assert cap < NEEDED * costs().least.tokens
        return
    assert cap >= NEEDED * costs().least.tokens
    assert plan.calls * costs().least.tokens <= cap
    assert NEEDED <= plan.calls <= EFFORT_CALLS["standard"]
    assert plan.longest_prompt is not None
    assert plan.search_calls > plan.final_calls
    if plan.longest_prompt > 2 * costs().own_prompt + 50:
        assert plan.longest_prompt * (plan.dev_rows + plan.test_rows) <= cap


@pytest.mark.parametrize(("name", "digits"), [("max_tokens", 0), ("max_cost", 9)])
def test_the_refusal_names_a_cap_that_is_enough(name: str, digits: int) -> None:
    with pytest.raises(BudgetRefused, match=f"{name} = 1e-09" if digits else f"{name} = 1 ") as caught:
        planned(Budget(**{name: 1e-9 if digits else 1}))
    wanted = float(re.search(r"give at least ([\d.e-]+)\)", str(caught.value)).group(1))
    plan = planned(Budget(**{name: wanted * 1.001 if digits else int(wanted)}))
    assert plan.dev_rows >= 10
    assert plan.test_rows >= 10


def test_caps_that_buy_more_than_was_asked_change_no_number_of_calls() -> None:
    assert planned(Budget(max_calls=700, max_cost=100.0)).calls == 700
    assert planned(Budget(max_calls=700)).longest_prompt is None
    assert planned(Budget(max_calls=700)) == make_plan(TASK, Means(Budget(max_calls=700)), True)
