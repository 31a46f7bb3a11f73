"""A plan fits its budget, whatever the numbers, or is refused before any call."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.errors import BudgetRefused, InputError
from agent.jobs.launch import models_by_role
from agent.search.costs import Means, call_costs
from agent.search.plan import (
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
from agent.types import Budget, Spend
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


@given(st.integers(0, 20_000), st.integers(1, 3_000), st.integers(1, 3_000), st.booleans())
def test_no_plan_is_larger_than_its_budget(calls, dev, test, proposer):
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


@pytest.mark.parametrize("each", [1, 3])
def test_a_strategy_says_what_it_needs_and_the_refusal_how_many_calls_that_is(each):
    program = SimpleNamespace(task=sized(200, 300), calls=each, is_fixed=False)
    costs = call_costs(TASK, models_by_role(MODEL, None, []), {})

    def plan_of(calls, needs, lacks=""):
        strategy = Strategy(name="mine", about="", search=None, enough=needs, lacks=lacks)
        return plan_run(program, strategy, Means(Budget(max_calls=calls), costs=costs), False)

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


@given(st.integers(0, 20_000), st.integers(10, 3_000), st.integers(10, 3_000), st.booleans())
def test_whatever_is_not_refused_buys_new_candidates_beside_the_finalists(calls, dev, test, proposer):
    try:
        plan = planned(calls, dev, test, proposer)
    except BudgetRefused:
        assume(False)
    assert plan.search_calls - plan.final_calls - plan.proposals >= 2 * plan.rungs[0]


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
    assert ((plan.dev_rows, plan.test_rows) == (dev, test)) == (all_rows <= calls - math.ceil(0.1 * calls))


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
