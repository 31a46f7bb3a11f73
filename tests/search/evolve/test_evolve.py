"""The default search as a whole: fair, bounded, repeatable, and never worse than where it began."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import RowRefused
from agent.ledger.store import Ledger
from agent.programs.moves.prompt_moves import PromptMoves
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.context import SearchContext
from agent.search.evolve.decisions import MOST_FINALISTS
from agent.search.evolve.evolve import Search, finish, search
from agent.search.study import OPERATOR, PARENT, TOLD, StudyTrial, folded
from agent.types import FRESH, Budget, Proposal, Request
from tests.search.worlds import (
    TASK,
    Jumbled,
    Searched,
    Strategy,
    front_and_row,
    good_words,
    made_search,
    proposer,
    pupil,
    searched,
    winner_of,
    with_baseline,
)
from tests.toys import TEAMS, FakeModel, make_task, open_ledger

CALLS = 400


def failing(request: Request) -> str:
    raise RowRefused("the request is too long")


AUTHORS: dict[str, Callable[[], FakeModel | None]] = {
    "none": lambda: None,
    "good": lambda: proposer(good_words),
    "junk": lambda: proposer(lambda number: "junk"),
    "failing": lambda: FakeModel(failing, "fake/author"),
}


class Ended:
    """A whole search, its target and its proposer."""

    def __init__(self, folder: Path, author: str, order: int = 1, seed: int = 0, strategy: Strategy = search) -> None:
        self.target = Jumbled(pupil(), order)
        self.author = AUTHORS[author]()
        budget = Budget(max_calls=CALLS)
        more = {"budget": budget, "seed": seed}
        self.found: Searched = asyncio.run(searched(folder, strategy, self.target, self.author, **more))

    @property
    def asked(self) -> int:
        return len(self.author.seen) if self.author else 0


@pytest.fixture(scope="module", params=["none", "good", "junk"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return Ended(tmp_path_factory.mktemp("search"), request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return Ended(tmp_path_factory.mktemp("plain"), "good")


# -- fair --------------------------------------------------------------------------------------------------------------


def test_each_row_of_a_candidate_is_bought_once(ended: Ended) -> None:
    bought = Counter((o.candidate_id, o.example_id) for _, o in ended.found.bought)
    assert set(bought.values()) == {1}
    assert len(ended.target.seen) == len({str(request.messages) for request in ended.target.seen})


def test_rungs_are_climbed_one_at_a_time_and_all_see_the_same_rows(ended: Ended) -> None:
    found = ended.found
    rungs, seen = found.context.plan.rungs, dict[str, int]()
    for stage, wanted in found.wanted[1:]:
        for candidate_id, rows in wanted.items():
            if stage != "finalists":
                before = seen.get(candidate_id, 0)
                assert rows == rungs[rungs.index(before) + 1 if before else 0]
            seen[candidate_id] = rows
    order = [row.id for row in found.context.dev]
    for candidate_id, outcomes in found.trials.outcomes.items():
        assert [o.example_id for o in outcomes] == order[: len(outcomes)], candidate_id


@pytest.mark.parametrize("dear", [1, 3, 999])
async def test_what_the_caps_do_not_pay_any_more_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dear: int
) -> None:
    """Of a queue in which the first `dear` candidates cost too much."""
    ledger = open_ledger(tmp_path / "ledger.db")
    found = made_search(ledger, FakeModel(pupil()))
    moves = PromptMoves(TASK, found.context)
    loop, ids = Search(found.context, moves), found.context.admit(moves.designs())
    loop._waiting.extend(ids)
    monkeypatch.setattr(loop, "_room", lambda: 1000)
    monkeypatch.setattr(loop, "_fits", lambda wanted: not set(wanted) & set(ids[:dear]) and dear < 999)
    planned = [candidate_id for candidate_id, _ in await loop._next()]
    assert planned[: len(ids) - dear] == ids[dear : dear + len(planned)]
    assert bool(planned) == (dear < 999)
    ledger.close()


async def test_a_prompt_that_is_right_on_all_of_dev_ends_it_however_sure_the_model_was(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    found = made_search(ledger, FakeModel(pupil(lambda front: 1.0)))
    await with_baseline(found)
    trials, own = found.trials, found.context.baseline.id
    trials.record(own, [replace(outcome, signal=0.6) for outcome in trials.outcomes[own]])
    loop = Search(found.context, found.context.program.moves(found.context))
    assert loop._stop_reason() == f"the leader is right on all {found.context.plan.dev_rows} dev rows"
    first, *rest = trials.outcomes[own]
    trials.record(own, [replace(first, value=None), *rest])  # a row without a score
    trials.settle(own, "complete", "")
    assert "right on all" in loop._stop_reason()
    ledger.close()


# -- bounded -----------------------------------------------------------------------------------------------------------


def test_it_ends_inside_its_budget_and_leaves_the_finalists_and_the_sealed_test_theirs(ended: Ended) -> None:
    context, plan = ended.found.context, ended.found.context.plan
    assert ended.found.stop is None
    assert len(ended.target.seen) + ended.asked <= CALLS - plan.test_calls
    assert ended.found.left_at["finalists"] + plan.slack >= plan.final_calls
    assert ended.found.left_at["finalists"] >= plan.last_climb, "one is paid where all that is spare was lost"
    late = [wanted for stage, wanted in ended.found.wanted if stage == "finalists"]
    assert len(late) <= MOST_FINALISTS
    assert all(rows == len(context.dev) for wanted in late for rows in wanted.values())


# -- repeatable --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 3])
def test_same_seed_and_replies_give_the_same_trials_in_whatever_order_the_replies_come(
    plain: Ended, tmp_path: Path, order: int
) -> None:
    again = Ended(tmp_path / "again", "good", order)
    came, first = ([o.example_id for _, o in each.found.bought] for each in (again, plain))
    assert came != first, "the replies did come in another order"
    assert again.found.trial_lines() == plain.found.trial_lines()
    assert [e.candidate for e in again.found.written.admitted] == [e.candidate for e in plain.found.written.admitted]
    assert again.found.written.events == plain.found.written.events


LONGER = make_task(80)
GOOD, LUCKY, POOR = (PromptCandidate("zero-shot", "turns", f"A {word} wording.") for word in ("good", "lucky", "poor"))


async def test_one_that_few_rows_flatter_falls_before_the_whole_of_dev_is_paid(ledger: Ledger) -> None:
    place: dict[str, int] = {}

    def answer(request: Request) -> str:
        front, row = front_and_row(request)
        at, right = place[row.split("\n")[0]], row.split()[4]
        is_right = at < first if "lucky" in front else at % 10 < (6 if "good" in front else 2)
        return right if is_right else TEAMS[(TEAMS.index(right) + 1) % len(TEAMS)]

    found = made_search(ledger, FakeModel(answer), task=LONGER, budget=Budget(max_calls=900))
    context, trials = found.context, found.trials
    place.update({row.inputs["message"]: at for at, row in enumerate(context.dev)})
    _, first, *_, last, _ = context.plan.rungs
    context.adopt(Proposal(context.baseline, {}, "baseline", None, ""))
    context.admit([Proposal(made, {}, "op", None, "") for made in (GOOD, LUCKY, POOR)])
    await context.see([context.baseline.id, POOR.id], 2 * first)
    await context.see([GOOD.id], last)
    await context.see([LUCKY.id], first)
    assert trials.parents(1)[0].proposal.candidate == LUCKY, "the rows that it saw speak for it"
    await finish(context, ())
    assert first < len(trials.outcomes[LUCKY.id]) < len(context.dev)
    assert len(trials.outcomes[GOOD.id]) == len(context.dev)
    assert {trial.state for trial in trials.by_id.values()} <= {"complete", "pruned"}


async def test_with_calls_for_one_finalist_the_best_is_paid_and_not_the_worst(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> str:
        front, row = front_and_row(request)
        right = row.split()[4]
        is_right = "poor" not in front and "baseline" not in front
        return right if is_right else TEAMS[(TEAMS.index(right) + 1) % len(TEAMS)]

    found = made_search(ledger, FakeModel(answer), task=LONGER, budget=Budget(max_calls=900))
    context, trials, first = found.context, found.trials, found.context.plan.rungs[0]
    context.adopt(Proposal(context.baseline, {}, "baseline", None, ""))
    context.admit([Proposal(made, {}, "op", None, "") for made in (GOOD, LUCKY, POOR)])
    await context.see([GOOD.id, LUCKY.id, POOR.id], first)
    spent, rows = context.account.total_used.calls, len(context.dev) - first
    monkeypatch.setattr(context, "payable", lambda: spent + rows + 10 - context.account.total_used.calls)
    await finish(context, ())
    assert trials.in_state("complete") == [GOOD.id]


# -- by a study --------------------------------------------------------------------------------------------------------


async def by_study(context: SearchContext) -> None:
    context.options = context.options.changed(sampler="tpe")
    await search(context)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return Ended(tmp_path_factory.mktemp("whole"), "good", strategy=by_study).found


def test_it_spends_what_the_plan_leaves_and_ends_no_worse_than_it_began(whole: Searched) -> None:
    context, trials = whole.context, whole.trials
    assert whole.stop is None
    assert len(trials.by_id) > 8
    assert not trials.in_state("incomplete")
    assert (trials.mean(winner_of(context).id) or 0.0) >= (trials.mean(context.baseline.id) or 0.0)


def test_every_trial_is_told_with_its_parameters_rows_and_state(whole: Searched) -> None:
    trials = whole.trials
    told = [body["trials"] for kind, body in whole.written.events if kind == TOLD]
    study = folded([[StudyTrial.from_dict(each) for each in batch] for batch in told])
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
