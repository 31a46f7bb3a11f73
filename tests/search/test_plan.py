"""A plan fits its budget, whatever the numbers, or is refused before any call."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import BudgetRefused
from agent.search.plan import EFFORT_CALLS, FEWEST_ROWS, make_plan, survivors
from agent.types import Budget
from tests.toys import make_task

TASK = make_task(3)


def sized(dev: int, test: int):
    """A task whose splits have these lengths."""
    return make_task(3, dev=(TASK.dev[0],) * dev, test=(TASK.test[0],) * test)


def plan_for(calls, dev, test, proposer=True):
    return make_plan(sized(dev, test), Budget(max_calls=calls), "standard", proposer)


@given(st.integers(0, 20_000), st.integers(1, 3_000), st.integers(1, 3_000), st.booleans())
def test_no_plan_is_larger_than_its_budget(calls, dev, test, proposer):
    try:
        plan = plan_for(calls, dev, test, proposer)
    except BudgetRefused:
        assume(False)
    fixed = plan.baseline_calls + plan.test_calls + plan.final_calls
    assert fixed + plan.rounds * plan.round_calls <= calls
    assert plan.calls == calls
    assert 1 <= plan.dev_rows <= dev
    assert 1 <= plan.test_rows <= test
    assert 0 < plan.rungs[0] <= plan.rungs[1] <= plan.dev_rows
    assert plan.final_calls >= 0
    assert min(plan.dev_rows, plan.test_rows) >= min(FEWEST_ROWS, dev, test)


@given(st.integers(84, 20_000), st.integers(10, 3_000), st.integers(10, 3_000), st.booleans())
def test_whatever_is_not_refused_buys_a_round_of_search(calls, dev, test, proposer):
    assert plan_for(calls, dev, test, proposer).rounds >= 1


@given(st.integers(0, 83), st.integers(10, 3_000), st.integers(10, 3_000))
def test_too_few_calls_are_refused_with_exit_code_3_and_the_number_that_would_do(calls, dev, test):
    with pytest.raises(BudgetRefused, match=f"max_calls = {calls} is too few .* give at least 84") as caught:
        plan_for(calls, dev, test)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_the_number_that_the_refusal_names_does_do():
    assert plan_for(84, 1000, 1000).rounds >= 1


@pytest.mark.parametrize("effort", EFFORT_CALLS)
def test_an_effort_is_a_number_of_calls_and_a_cap_replaces_it(effort):
    assert make_plan(sized(100, 160), Budget(), effort, False).calls == EFFORT_CALLS[effort]
    assert make_plan(sized(100, 160), Budget(max_calls=333), effort, False).calls == 333


def test_without_a_proposer_no_call_is_set_aside_for_one():
    assert plan_for(1400, 100, 160, proposer=False).proposals == 0


@given(st.integers(2, 100))
def test_fewer_go_on_than_start_but_never_fewer_than_two(batch):
    assert 2 <= survivors(batch) <= batch


def test_the_plan_as_data_holds_every_number_that_a_reader_adds_up():
    data = plan_for(1400, 100, 160).as_dict()
    assert data["baseline_calls"] == data["dev_rows"] + data["noise_rows"]
    assert data["test_calls"] == 2 * data["test_rows"]
    assert data["rounds"] >= 1
