"""The plan of a migration pays a race, a finalist and one sealed test, and the race has the old run's prompts in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetRefused
from agent.ledger.store import Ledger
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.costs import Means
from agent.search.evolve.evolve import search_from
from agent.search.plan import Plan, migration_plan
from agent.types import Budget, Demo, Proposal, Spend
from tests.search.worlds import TASK, made_search, pupil
from tests.toys import FakeModel, make_task

DEMOS = tuple(Demo(row.id, row.inputs, {"team": str(row.labels["team"])}) for row in TASK.train[:3])
SKILLED = PromptCandidate("few-shot", "inline", "Pick the team of this note.", demos=DEMOS)
OTHERS = [PromptCandidate("zero-shot", name, "Which team is it?") for name in ("inline", "turns")]  # type: ignore[arg-type]


CALL = Spend(1, 100, 0.01)


def planned(calls: int, rows: int = 60, sealed: int = 80, **caps: Any) -> Plan:
    return migration_plan(make_task(rows), Means(Budget(max_calls=calls, **caps)), sealed, CALL)


@given(st.integers(60, 2000), st.integers(10, 200), st.integers(10, 200))
def test_the_parts_of_the_plan_fit_into_its_calls(calls: int, rows: int, sealed: int) -> None:
    plan = planned(calls, rows, sealed)
    assert plan.test_rows <= min(sealed, 0.45 * calls)
    assert plan.dev_rows <= rows
    spent = plan.baseline_calls + plan.final_calls + plan.test_calls + plan.slack
    assert spent <= calls
    assert plan.test_calls == plan.test_rows, "one prompt: the old model's replies are in the ledger"
    assert Plan.restored(plan.as_dict()).test_calls == plan.test_calls
    assert plan.as_dict()["search_calls"] >= plan.final_calls


def test_caps_on_tokens_and_dollars_shorten_the_plan_or_refuse_it() -> None:
    assert planned(150, max_tokens=10_000).calls == planned(150, max_cost=1.0).calls == 100
    assert planned(150, max_tokens=10**6).calls == 150
    with pytest.raises(BudgetRefused, match=r"takes at least \d+: max_tokens = 2000 \(give at least "):
        planned(150, max_tokens=2000)


async def test_the_prompts_of_the_old_run_are_raced_and_the_best_sees_all_of_dev(ledger: Ledger) -> None:
    found = made_search(
        ledger, FakeModel(pupil(lambda front: 0.95 if "Pick" in front else 0.3)), budget=Budget(max_calls=300)
    )
    context = found.context
    context.plan = replace(context.plan, tested=1)
    seeds = [Proposal(made, {}, "from-history", None, "was good there") for made in (*OTHERS, SKILLED)]
    await search_from(context, seeds)
    trials = context.trials
    assert trials.by_id[context.baseline.id].number == 0
    assert {seed.candidate.id for seed in seeds} <= set(trials.by_id)
    whole = trials.in_state("complete")
    assert whole
    assert trials.mean(SKILLED.id) is not None
    assert not any(trial.state == "incomplete" for trial in trials.by_id.values())
