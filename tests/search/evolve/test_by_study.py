"""The default search with a study in the place of the bandit: the same search, repeatable, and told as it went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.search.context import SearchContext
from agent.search.evolve.evolve import search
from agent.search.study import OPERATOR, PARENT, TOLD, StudyTrial, folded
from agent.types import FRESH, Budget
from tests.search.worlds import FakeModel, Jumbled, Searched, good_words, proposer, pupil, searched, winner_of


def by(sampler: str, pruner: str = "race") -> Callable[[SearchContext], Any]:
    async def run(context: SearchContext) -> None:
        context.sampler, context.pruner = sampler, pruner
        await search(context)

    return run


def ended(
    folder: Path, strategy: Callable[[SearchContext], Any], order: int = 1, author: bool = False, calls: int = 400
) -> Searched:
    model = Jumbled(pupil(), order)
    asked: FakeModel | None = proposer(good_words) if author else None
    return asyncio.run(searched(folder, strategy, model, asked, budget=Budget(max_calls=calls)))


def told(found: Searched) -> list[StudyTrial]:
    bodies = [body for kind, body in found.written.events if kind == TOLD]
    return folded([[StudyTrial.from_dict(each) for each in body["trials"]] for body in bodies])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return ended(tmp_path_factory.mktemp("whole"), by("tpe"), author=True)


def test_it_spends_what_the_plan_leaves_and_ends_no_worse_than_it_began(whole: Searched) -> None:
    context, trials = whole.context, whole.trials
    assert whole.stop is None
    assert len(trials.by_id) > 8
    assert not trials.in_state("incomplete")
    assert (trials.mean(winner_of(context).id) or 0.0) >= (trials.mean(context.baseline.id) or 0.0)


def test_every_trial_is_told_with_its_parameters_rows_and_state(whole: Searched) -> None:
    trials, study = whole.trials, told(whole)
    assert {one.candidate_id for one in study} == set(trials.by_id) - {whole.context.baseline.id}
    for one in study:
        proposal = trials.proposals[one.candidate_id]
        assert one.state == trials.by_id[one.candidate_id].state
        assert max(one.steps, default=0) == len(trials.outcomes.get(one.candidate_id, ()))
        assert set(one.steps) <= set(whole.context.plan.rungs)
        if one.params[OPERATOR] == FRESH:
            assert proposal.parent_id is None
            assert {name: one.params[name] for name in one.params if name != OPERATOR} == dict(proposal.place)
        else:
            assert PARENT in one.params
            assert all(name.startswith(f"{one.params[OPERATOR]}.") for name in set(one.params) - {OPERATOR, PARENT})
    assert len({one.params[OPERATOR] for one in study}) > 2
