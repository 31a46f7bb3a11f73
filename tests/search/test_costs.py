"""What rows cost of the caps on tokens and dollars, in rows at the mean price so far."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.gateway.budget import Account
from agent.search.costs import CandidateCosts
from agent.search.plan import Plan
from agent.search.trials import Trials
from agent.types import Budget, Outcome, Prediction, Usage

PLAN = Plan(
    calls=1200, dev_rows=60, test_rows=60, noise_rows=0, batch=8, rungs=(8, 60), finalists=3, proposals=0, per_row=2
)
SIZES = {"own": 100, "long": 500}


def costs(target: int, judge: int, budget: Budget) -> CandidateCosts:
    """After the user's own prompt ("own") has seen 60 rows, each with a call of so many tokens and one of a judge."""
    account, trials = Account(budget), Trials()
    for _row in range(60):
        account.use("model", Usage(target), target / 1e6, False, "own")
        account.use("judge", Usage(judge), judge / 1e6, False)
    trials.record("own", [Outcome("own", f"dev-{row}", Prediction({}, ""), (), 1.0) for row in range(60)])
    return CandidateCosts(PLAN, account, trials, "own", SIZES.__getitem__)


@pytest.mark.parametrize("budget", [Budget(max_tokens=1_000_000), Budget(max_cost=1.0)], ids=["tokens", "dollars"])
@pytest.mark.parametrize(("target", "judge"), [(1000, 100), (100, 1000), (500, 500)])
def test_the_only_prompt_there_is_costs_what_a_row_costs(target: int, judge: int, budget: Budget) -> None:
    assert costs(target, judge, budget).of_rows("own", 10) == pytest.approx(10)


@pytest.mark.parametrize("budget", [Budget(max_tokens=1_000_000), Budget(max_cost=1.0)], ids=["tokens", "dollars"])
def test_a_longer_prompt_makes_its_own_calls_dearer_and_not_those_of_the_judge(budget: Budget) -> None:
    assert costs(100, 1000, budget).of_rows("long", 10) == pytest.approx(10 * (5 * 100 + 1000) / 1100)


def test_without_a_cap_on_tokens_or_dollars_nothing_is_priced() -> None:
    found = costs(100, 1000, Budget(max_calls=500))
    assert (found.affordable(), found.of_rows("long", 10), found.longest_prompt()) == (math.inf, 10, math.inf)


def test_of_several_the_last_look_costs_what_the_dearest_does_and_follows_what_was_seen() -> None:
    found = costs(100, 1000, Budget(max_tokens=300_000))
    found._trials.open("own", 0)
    found._trials.settle("own", "complete", "")
    own, long = found.through_test("own"), found.through_test("long")
    assert found.through_test("own", "long", "own") == long > own
    assert found.through_test() == 0.0
    found._trials.record("long", found._trials.outcomes["own"])  # prompts are three times as long on average
    assert found.of_rows("long", 10) == pytest.approx(10 * (5 / 3 * 100 + 1000) / 1100)


def test_the_mean_length_of_prompts_is_worked_out_once_until_outcomes_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = costs(100, 1000, Budget(max_tokens=300_000)), list[str]()
    monkeypatch.setattr(found, "_size", lambda candidate_id: asked.append(candidate_id) or SIZES[candidate_id])
    for _ in range(5):
        found.through_test(*["long"] * 10)
    assert asked.count("own") <= 1


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
