"""What caps on tokens and dollars buy: plans that fit them, and refusals before anything is called."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetRefused
from agent.gateway.budget import Account
from agent.gateway.prices import fixed_price
from agent.search.costs import (
    EFFORT_CALLS,
    LETTERS_A_TOKEN,
    CallCosts,
    CandidateCosts,
    Means,
    Models,
    call_costs,
    largest_calls,
)
from agent.search.plan import DEV_SHARE, FEWEST_ROWS, Plan, make_plan
from agent.search.trials import Trials
from agent.types import Budget, Outcome, Prediction, Tool, Usage
from tests.toys import make_task

TASK = make_task(3)
TASK = make_task(3, dev=TASK.dev * 40, test=TASK.test * 40)
PRICES = {"a/target": fixed_price(1.0, 5.0), "a/proposer": fixed_price(1.0, 5.0)}
ALONE: Models = {"model": ["a/target"], "proposer": [], "judge": []}


def costs() -> CallCosts:
    return call_costs(TASK, {**ALONE, "proposer": ["a/proposer"]}, PRICES)


def planned(budget: Budget) -> Plan:
    return make_plan(TASK, Means(budget, costs=costs()), True)


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


@pytest.mark.parametrize(("name", "digits"), [("max_tokens", 0), ("max_cost", 9)])
def test_the_refusal_names_a_cap_that_is_enough(name: str, digits: int) -> None:
    with pytest.raises(BudgetRefused, match=f"{name} = 1e-09" if digits else f"{name} = 1 ") as caught:
        planned(Budget(**{name: 1e-9 if digits else 1}))
    wanted = float(re.search(r"give at least ([\d.e-]+)\)", str(caught.value)).group(1))
    plan = planned(Budget(**{name: wanted * 1.001 if digits else int(wanted)}))
    assert plan.dev_rows >= 10
    assert plan.test_rows >= 10


PLAN = Plan(
    calls=1200, dev_rows=60, test_rows=60, noise_rows=0, batch=8, rungs=(8, 60), finalists=3, proposals=0, per_row=2
)
SIZES = {"own": 100, "long": 500}


def spent(target: int, judge: int, budget: Budget) -> CandidateCosts:
    """After the user's own prompt ("own") has seen 60 rows, each with a call of `target` tokens and one of a judge."""
    account, trials = Account(budget), Trials()
    for _row in range(60):
        account.use("model", Usage(target), target / 1e6, False, "own")
        account.use("judge", Usage(judge), judge / 1e6, False)
    trials.record("own", [Outcome("own", f"dev-{row}", Prediction({}, ""), (), 1.0) for row in range(60)])
    return CandidateCosts(PLAN, account, trials, "own", SIZES.__getitem__)


@pytest.mark.parametrize("budget", [Budget(max_tokens=1_000_000), Budget(max_cost=1.0)], ids=["tokens", "dollars"])
def test_a_longer_prompt_makes_its_own_calls_dearer_and_not_those_of_the_judge(budget: Budget) -> None:
    assert spent(100, 1000, budget).of_rows("long", 10) == pytest.approx(10 * (5 * 100 + 1000) / 1100)


def test_without_a_cap_on_tokens_or_dollars_nothing_is_priced() -> None:
    found = spent(100, 1000, Budget(max_calls=500))
    assert (found.affordable(), found.of_rows("long", 10), found.longest_prompt()) == (math.inf, 10, math.inf)


def test_of_several_the_last_look_costs_what_the_dearest_does_and_follows_what_was_seen() -> None:
    found = spent(100, 1000, Budget(max_tokens=300_000))
    found._trials.open("own", 0)
    found._trials.settle("own", "complete", "")
    own, long = found.through_test("own"), found.through_test("long")
    assert found.through_test("own", "long", "own") == long > own
    assert found.through_test() == 0.0
    found._trials.record("long", found._trials.outcomes["own"])  # prompts are three times as long on average
    assert found.of_rows("long", 10) == pytest.approx(10 * (5 / 3 * 100 + 1000) / 1100)


def test_a_prompt_that_picks_is_expected_to_cost_what_others_that_pick_cost() -> None:
    account, trials = Account(Budget(max_cost=1.0)), Trials()
    sizes = {"own": 100, "first": 200, "second": 400}
    for name, dollars in (("own", 1e-4), ("first", 6e-4)):  # three times as dear a token: nothing in the cache
        for _row in range(30):
            account.use("model", Usage(sizes[name]), dollars, False, name)
        trials.record(name, [Outcome(name, f"dev-{row}", Prediction({}, ""), (), 1.0) for row in range(30)])
    plan = replace(PLAN, per_row=1)
    found = CandidateCosts(plan, account, trials, "own", sizes.__getitem__, lambda name: name != "own")
    assert found.of_rows("first", 10) == pytest.approx(10 * 6e-4 / 3.5e-4)
    assert found.of_rows("second", 10) == pytest.approx(10 * 12e-4 / 3.5e-4)
    by_length = CandidateCosts(plan, account, trials, "own", sizes.__getitem__)
    assert by_length.of_rows("second", 10) == pytest.approx(10 * 400 / 150)


NEEDED = int(FEWEST_ROWS / DEV_SHARE) + 1


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
