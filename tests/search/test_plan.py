"""A plan fits its budget, whatever the numbers, or is refused before any call."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.errors import BudgetRefused, InputError
from agent.gateway.budget import Account
from agent.gateway.prices import fixed_price
from agent.options.run import RunOptions
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
from agent.search.plan import (
    DEV_SHARE,
    ENOUGH_CANDIDATES,
    FEWEST_ROWS,
    Plan,
    calls_for,
    make_plan,
    migration_plan,
    plan_run,
    scoring_plan,
)
from agent.search.registered import Strategy
from agent.search.trials import Trials
from agent.types import Budget, MetricSpec, Outcome, Prediction, Spend, Tool, Usage
from tests.toys import FakeModel, make_task

TASK = make_task(3)
MODEL = FakeModel(lambda request: "")


def sized(dev: int, test: int):
    """A task whose splits have these lengths."""
    return make_task(3, dev=(TASK.dev[0],) * dev, test=(TASK.test[0],) * test)


def planned(calls, dev, test, proposer=True):
    return make_plan(sized(dev, test), Means(Budget(max_calls=calls)), proposer)


def fewest(dev=1_000, test=1_000):
    """The number that a refusal names."""
    with pytest.raises(BudgetRefused) as caught:
        planned(1, dev, test)
    return int(str(caught.value).split()[-1])


@given(st.integers(0, 20_000), st.integers(1, 3_000), st.integers(1, 3_000), st.booleans(), st.integers(2, 12))
def test_no_plan_is_larger_than_its_budget_and_each_buys_new_candidates(calls, dev, test, proposer, times):
    try:
        plan = planned(calls, dev, test, proposer)
    except BudgetRefused:
        assume(False)
    assert plan.baseline_calls + plan.search_calls + plan.test_calls <= calls
    assert plan.calls == calls
    assert 1 <= plan.dev_rows <= dev
    assert 1 <= plan.test_rows <= test
    assert plan.noise_rows <= plan.dev_rows
    assert list(plan.rungs) == sorted(set(plan.rungs))
    assert 0 < plan.rungs[0] <= plan.rungs[-1] == plan.dev_rows
    assert plan.final_calls >= 0
    assert 0 < plan.test_share < 1
    assert min(plan.dev_rows, plan.test_rows) >= min(FEWEST_ROWS, dev, test)
    if min(dev, test) >= 10:
        assert plan.search_calls - plan.final_calls - plan.proposals >= 2 * plan.rungs[0]
    longer = plan.of_longer_runs(sized(dev, test), times)  # gives up rows, and leaves calls to the search
    assert min(plan.first_rows, plan.dev_rows) <= longer.dev_rows == longer.rungs[-1] <= plan.dev_rows
    assert longer.test_rows <= plan.test_rows
    assert (longer.calls, longer.noise_rows, longer.first_rows) == (plan.calls, plan.noise_rows, plan.first_rows)
    old, new = (each.in_calls(calls, 1, times) for each in (plan, longer))
    assert new.search_calls >= old.search_calls
    assert new.test_calls <= old.test_calls


@pytest.mark.parametrize("each", [1, 3])
def test_a_strategy_says_what_it_needs_and_the_refusal_how_many_calls_that_is(each):
    program = SimpleNamespace(task=sized(200, 300), calls=each, is_fixed=False, references=dict)
    costs = call_costs(TASK, {"model": [MODEL.name], "proposer": [], "judge": []}, {})

    def plan_of(calls, needs, lacks=""):
        strategy = Strategy(name="mine", about="", search=None, enough=needs, lacks=lacks)
        return plan_run(program, strategy, RunOptions(max_calls=calls), costs, False)

    def needs(task, plan, calls_each):
        return plan.search_calls * calls_each >= 900

    with pytest.raises(BudgetRefused, match="are too few for --strategy mine on this task; give at least") as caught:
        plan_of(600 * each, needs)
    enough = int(str(caught.value).split()[-1])
    assert plan_of(enough, needs).search_calls * each >= 900
    with pytest.raises(BudgetRefused):
        plan_of(enough - 10, needs)
    with pytest.raises(BudgetRefused, match=r"no number of calls is enough: there is no moon$"):
        plan_of(600 * each, lambda task, plan, calls_each: False, "there is no moon")


def test_a_plan_in_runs_is_put_into_calls_and_a_part_of_a_run_may_be_left_over():
    runs = planned(400, 100, 160)
    calls = runs.in_calls(1202, 3, 4)
    assert (calls.calls, calls.calls_each, calls.test_calls) == (1202, 4, 4 * runs.test_calls)
    assert runs.in_calls(5000, 3, 3).calls == 401 * 3 - 1, "no more than the plan was made for"


@given(st.integers(10, 3_000), st.integers(10, 3_000), st.data())
def test_too_few_calls_are_refused_with_exit_code_3_and_the_number_that_would_do(dev, test, data):
    needed = fewest()
    assert planned(needed, dev, test)
    calls = data.draw(st.integers(0, int(needed * 0.9)))
    with pytest.raises(BudgetRefused, match=f"max_calls = {calls} is too few .* give at least {needed}") as caught:
        planned(calls, dev, test)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2_000), st.integers(1, 500), st.integers(1, 500), st.integers(1, 4))
def test_a_plan_without_a_search_pays_all_rows_or_as_many_as_it_can(calls, dev, test, repeats):
    task = replace(sized(dev, test), repeats=repeats)
    try:
        plan = scoring_plan(task, Means(Budget(max_calls=calls)))
    except BudgetRefused as refused:
        named = int(str(refused).split()[-1])
        assert calls < named
        assert scoring_plan(task, Means(Budget(max_calls=named)))
        return
    assert plan.baseline_calls + plan.test_calls + plan.slack == plan.calls <= calls
    assert plan.search_calls == plan.final_calls == plan.proposals == 0
    assert min(plan.dev_rows, plan.test_rows) >= min(FEWEST_ROWS, dev, test)
    assert 0 < plan.test_share < 1
    all_rows = dev + test + (repeats - 1) * min(test, 20) * (repeats > 1)
    paid = calls - math.ceil(0.1 * calls)
    assert ((plan.dev_rows, plan.test_rows) == (dev, test)) == (all_rows <= paid)
    assert (plan.noise_rows > 0) == (calls >= 300 and all_rows < paid)


def test_700_calls_on_a_file_of_330_rows_try_40_candidates_and_the_default_run_tests_all_rows_of_before():
    small, usual = planned(700, 78, 130), planned(1200, 104, 160)
    assert small.candidates >= 40
    assert small.test_calls >= 0.23 * 700 - 2
    assert (usual.test_rows, usual.candidates >= 40) == (160, True)


def test_a_plan_that_was_kept_comes_back_and_one_of_another_version_is_named():
    plan = planned(1400, 100, 160)
    kept = {**plan.as_dict(), "rungs": list(plan.rungs)}
    assert Plan.restored(kept) == plan
    del kept["finalists"]
    with pytest.raises(InputError, match=r"no 'finalists'.*another version.*start a new run"):
        Plan.restored(kept)


@given(st.integers(20, 900), st.integers(1, 4))
@example(42, 1)  # 599 calls pay 42 rows, 600 pay 41: they buy a dev row more
@example(55, 2)
@example(48, 4)
def test_the_calls_that_are_named_for_test_rows_pay_them_and_little_less_does_not(rows, repeats):
    task = make_task(1000, repeats=repeats)
    plan = make_plan(task, Means(Budget(3000)), True)
    calls = calls_for(rows, task, plan)

    def least(calls):  # whatever the user's own prompt scores
        return make_plan(task, Means(Budget(calls)), True).tested_for(0).test_rows

    assert least(calls) >= rows
    assert least(calls - 20) < rows


CALL = Spend(1, 100, 0.01)


def migrated(calls: int, rows: int = 60, sealed: int = 80, **caps: Any) -> Plan:
    return migration_plan(make_task(rows), Means(Budget(max_calls=calls, **caps)), sealed, CALL)


@given(st.integers(60, 2000), st.integers(10, 200), st.integers(10, 200))
def test_the_parts_of_the_plan_fit_into_its_calls(calls: int, rows: int, sealed: int) -> None:
    plan = migrated(calls, rows, sealed)
    assert plan.test_rows <= min(sealed, 0.45 * calls)
    assert plan.dev_rows <= rows
    spent = plan.baseline_calls + plan.final_calls + plan.test_calls + plan.slack
    assert spent <= calls
    assert plan.test_calls == plan.test_rows, "one prompt: the old model's replies are in the ledger"
    assert Plan.restored(plan.as_dict()).test_calls == plan.test_calls
    assert plan.as_dict()["search_calls"] >= plan.final_calls


def test_caps_on_tokens_and_dollars_shorten_the_plan_or_refuse_it() -> None:
    assert migrated(150, max_tokens=10_000).calls == migrated(150, max_cost=1.0).calls == 100
    assert migrated(150, max_tokens=10**6).calls == 150
    with pytest.raises(BudgetRefused, match=r"takes at least \d+: max_tokens = 2000 \(give at least "):
        migrated(150, max_tokens=2000)


@given(st.integers(100, 5_000), st.integers(20, 500), st.integers(20, 1_000), st.integers(0, 500), st.integers(0, 500))
def test_test_rows_are_given_back_only_where_few_are_tried_and_not_those_that_the_decision_needs(
    calls, dev, test, one, two
):
    plan = planned(calls, dev, test)
    fewer, more = (plan.tested_for(needed) for needed in sorted((one, two)))
    assert fewer.test_rows <= more.test_rows <= plan.test_rows
    assert fewer.test_rows >= min(plan.test_rows, FEWEST_ROWS)
    for needed, found in zip(sorted((one, two)), (fewer, more), strict=True):
        if found.test_rows < plan.test_rows:
            assert plan.candidates < ENOUGH_CANDIDATES
            assert found.test_rows >= min(needed, 0.27 * calls / 2 - 1)


PRICED = make_task(3, dev=TASK.dev * 40, test=TASK.test * 40)
PRICES = {"a/target": fixed_price(1.0, 5.0), "a/proposer": fixed_price(1.0, 5.0)}
ALONE: Models = {"model": ["a/target"], "proposer": [], "judge": []}


def costs() -> CallCosts:
    return call_costs(PRICED, {**ALONE, "proposer": ["a/proposer"]}, PRICES)


def bought(budget: Budget) -> Plan:
    return make_plan(PRICED, Means(budget, costs=costs()), True)


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
    fewer = [make_plan(PRICED, Means(capped, costs=each), False).calls for each in (bare, equipped)]
    assert fewer[0] > fewer[1] > 0


def test_of_several_judges_calls_are_planned_at_the_price_of_the_dearest() -> None:
    task = make_task(metrics=(MetricSpec("judge", "team"),), judges=("a/cheap", "a/dear"))
    prices = {**PRICES, "a/cheap": fixed_price(0.1, 0.1), "a/dear": fixed_price(50.0, 50.0)}
    names = [["a/cheap"], ["a/dear"], ["a/cheap", "a/dear"], ["a/dear", "a/cheap"]]
    cheap, dear, *both = (call_costs(task, {**ALONE, "judge": each}, prices).least.usd for each in names)
    assert both == [dear, dear]
    assert cheap < dear


@pytest.mark.parametrize(("name", "digits"), [("max_tokens", 0), ("max_cost", 9)])
def test_the_refusal_names_a_cap_that_is_enough(name: str, digits: int) -> None:
    with pytest.raises(BudgetRefused, match=f"{name} = 1e-09" if digits else f"{name} = 1 ") as caught:
        bought(Budget(**{name: 1e-9 if digits else 1}))
    wanted = float(re.search(r"give at least ([\d.e-]+)\)", str(caught.value)).group(1))
    plan = bought(Budget(**{name: wanted * 1.001 if digits else int(wanted)}))
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
    trials.open("own", 0)
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
    found._trials.open("long", 1)
    found._trials.record("long", found._trials.outcomes["own"])  # prompts are three times as long on average
    assert found.of_rows("long", 10) == pytest.approx(10 * (5 / 3 * 100 + 1000) / 1100)


def test_a_prompt_that_picks_is_expected_to_cost_what_others_that_pick_cost() -> None:
    account, trials = Account(Budget(max_cost=1.0)), Trials()
    sizes = {"own": 100, "first": 200, "second": 400}
    for name, dollars in (("own", 1e-4), ("first", 6e-4)):  # three times as dear a token: nothing in the cache
        for _row in range(30):
            account.use("model", Usage(sizes[name]), dollars, False, name)
        trials.open(name, 1)
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
        plan = bought(Budget(max_tokens=cap))
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


def test_a_run_of_two_calls_a_row_leaves_rows_to_the_steps_of_the_search():
    def for_steps(plan):
        return plan.search_calls // plan.calls_a_row - plan.kept_rows

    plan = planned(500, 80, 80)
    made = plan.of_longer_runs(sized(80, 80), 2)
    old, new = (each.in_calls(500, 1, 2) for each in (plan, made))
    assert for_steps(new) >= 4 * for_steps(old)
    assert min(new.dev_rows, new.test_rows) >= 20
