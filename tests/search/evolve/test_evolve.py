"""The default search as a whole: fair, bounded, repeatable, and never worse than where it began."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import RowRefused
from agent.evaluate.evaluator import values
from agent.programs.moves.prompt_moves import PromptMoves
from agent.prompt.techniques import why_rejected
from agent.search.evolve.decisions import MOST_FINALISTS, Bandit, mean
from agent.search.evolve.evolve import Search, search
from agent.search.program import PROPOSED
from agent.types import Budget, Request
from tests.search.worlds import (
    TASK,
    Jumbled,
    Searched,
    good_words,
    made_search,
    proposer,
    pupil,
    searched,
    winner_of,
    with_baseline,
)
from tests.toys import FakeModel, open_ledger

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

    def __init__(self, folder: Path, author: str, order: int = 1, seed: int = 0) -> None:
        self.target = Jumbled(pupil(), order)
        self.author = AUTHORS[author]()
        budget = Budget(max_calls=CALLS)
        more = {"budget": budget, "seed": seed}
        self.found: Searched = asyncio.run(searched(folder, search, self.target, self.author, **more))

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


def test_nobody_climbs_who_is_not_among_the_best_of_its_rung(ended: Ended) -> None:
    """On the rows that all of the rung had seen by then, at least half of them are not better."""
    found = ended.found
    seen = {found.context.baseline.id: len(found.context.dev)}
    scores = {i: values(found.trials.outcomes.get(i, [])) for i in found.trials.by_id}
    climbs = 0
    for stage, wanted in found.wanted[1:]:
        if stage == "finalists":
            break
        for candidate_id in wanted:
            if rows := seen.get(candidate_id):
                here = [mean(scores[i][:rows]) for i, n in seen.items() if n >= rows]
                better = [other for other in here if other > mean(scores[candidate_id][:rows])]
                assert len(better) < len(here) / 2
                climbs += 1
        seen |= wanted
    assert climbs > 0


def test_the_finalists_are_the_best_that_are_left(ended: Ended) -> None:
    trials = ended.found.trials
    full = [i for i, t in trials.by_id.items() if len(trials.outcomes[i]) == len(ended.found.context.dev)]
    assert all(trials.by_id[i].state in ("complete", "pruned") for i in full)
    assert not trials.in_state("incomplete")
    assert len(trials.in_state("complete")) > 1


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
    planned = [each.candidate_id for each in await loop._next()]
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


def test_the_proposer_is_asked_no_more_than_planned_and_never_the_same(ended: Ended) -> None:
    assert ended.asked <= ended.found.context.plan.proposals
    if ended.author:
        assert len({request.seed for request in ended.author.seen}) == ended.asked


def test_it_is_no_worse_than_where_it_began(ended: Ended) -> None:
    trials, baseline = ended.found.trials, ended.found.context.baseline
    best = trials.mean(winner_of(ended.found.context).id) or 0.0
    assert best >= (trials.mean(baseline.id) or 0.0)


def test_a_proposer_that_fails_every_time_spoils_nothing_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(bandit: Bandit, names: Sequence[str], rng: random.Random) -> str:
        asking = [name for name in names if name.startswith(PROPOSED)]
        return asking[0] if asking else rng.choice(names)

    monkeypatch.setattr(Bandit, "draw", stubborn)
    ended = Ended(tmp_path / "failing", "failing")
    trials, context = ended.found.trials, ended.found.context
    assert 0 < ended.asked <= context.plan.proposals
    for candidate_id, outcomes in trials.outcomes.items():
        if len(outcomes) == len(context.dev):
            assert trials.by_id[candidate_id].state in ("complete", "pruned")
    assert (trials.mean(winner_of(context).id) or 0.0) >= (trials.mean(context.baseline.id) or 0.0)


def test_what_a_proposer_answers_that_is_no_instruction_is_written_down_and_not_tried(
    tmp_path: Path,
) -> None:
    found = Ended(tmp_path / "junk", "junk").found
    assert not [proposal for proposal in found.written.admitted if "proposed" in proposal.operator]
    kinds = {kind for kind, _ in found.written.events if kind.startswith("proposal")}
    assert kinds <= {"proposal_refused"}


# -- candidates --------------------------------------------------------------------------------------------------------


def test_every_candidate_may_be_tried_and_every_child_has_a_parent_that_was_there_before(ended: Ended) -> None:
    known: set[str] = set()
    for proposal in ended.found.written.admitted:
        assert proposal.operator == "baseline" or why_rejected(proposal.candidate, TASK) == ""
        assert proposal.candidate.id not in known, "nobody is taken in twice"
        assert proposal.parent_id is None or proposal.parent_id in known
        known.add(proposal.candidate.id)
    assert any(proposal.parent_id for proposal in ended.found.written.admitted)


def test_who_was_taken_in_is_tried_or_still_waits_for_a_step(ended: Ended) -> None:
    untried = [e for e in ended.found.written.admitted if e.candidate.id not in ended.found.trials.by_id]
    assert len(untried) < ended.found.context.plan.batch


def test_where_no_prompt_makes_a_difference_it_ends_before_its_budget_or_keeps_the_prompt(tmp_path: Path) -> None:
    found = asyncio.run(searched(tmp_path / "flat", search, FakeModel(pupil(lambda front: 0.0))))
    assert found.stop is None
    assert winner_of(found.context) == found.context.baseline


def test_it_stops_when_the_leader_is_right_on_every_row(tmp_path: Path) -> None:
    def skill(front: str) -> float:
        return 1.0 if "train note" in front else 0.1

    model = FakeModel(pupil(skill))
    found = asyncio.run(searched(tmp_path / "easy", search, model, budget=Budget(max_calls=1200)))
    winner = winner_of(found.context)
    assert found.trials.mean(winner.id) == 1.0
    assert winner.demos
    assert [body["why"] for kind, body in found.written.events if kind == "search_stopped"]
    assert found.context.left() > found.context.plan.search_calls / 2


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


def test_another_seed_makes_other_trials(plain: Ended, tmp_path: Path) -> None:
    assert Ended(tmp_path / "other", "good", seed=1).found.trial_lines() != plain.found.trial_lines()
