"""What a run knows: trials in the order in which they opened, means over scored rows only, and who leads."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted, RowRefused, RunRefused
from agent.ledger.store import Ledger, NewRun
from agent.observer import Observer
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.context import dev_rows, stratified
from agent.search.trials import Trials
from agent.stats.intervals import mean_ci
from agent.types import Budget, Constraints, Demo, Outcome, Prediction, Proposal, Request, Trial
from tests.search.worlds import TASK, Searched, front_and_row, made_search, pupil, with_baseline
from tests.toys import FakeModel, make_task, open_ledger

VALUES = st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=12)


def candidate(number: int, demos: int = 0, text: str = "") -> PromptCandidate:
    shown = tuple(Demo(f"train-{n}", {"m": "x"}, {"t": "y"}) for n in range(demos))
    return PromptCandidate("few-shot" if demos else "zero-shot", "turns", text or f"wording {number}", demos=shown)


class Bench(Observer):
    """A trials with the trials that it handed to its observer."""

    def __init__(self, *candidates: PromptCandidate) -> None:
        self.updates: list[Trial] = []
        self.trials = Trials(self)
        self.ids = [made.id for made in candidates]
        for made in candidates:
            self.trials.proposals[made.id] = Proposal(made, {}, "op", None, "")

    def on_trial_updated(self, trial: Trial) -> None:
        self.updates.append(trial)

    def see(
        self,
        number: int,
        scores: Sequence[float | None],
        state: str = "incomplete",
        signals: Sequence[float | None] | None = None,
    ) -> None:
        """PromptCandidate `number` saw rows; its trial opens first where it has none."""
        id_ = self.ids[number]
        if id_ not in self.trials.by_id:
            self.trials.open(id_, 1)
        made = Prediction({}, "")
        with_signals = enumerate(zip(scores, signals or [None] * len(scores), strict=True))
        self.trials.record(
            id_, [Outcome(id_, f"dev-{row}", made, (), value, "", signal) for row, (value, signal) in with_signals]
        )
        self.trials.settle(id_, state, "seen")  # type: ignore[arg-type]


def bench(count: int = 4) -> Bench:
    return Bench(*(candidate(number) for number in range(count)))


# -- trials ------------------------------------------------------------------------------------------------------------


@given(st.permutations(range(4)))
def test_what_is_known_does_not_depend_on_who_is_answered_first(order: Sequence[int]) -> None:
    known = bench()
    for made in known.ids:
        known.trials.open(made, 1)
    for number in order:
        known.see(number, [1.0, float(number % 2)])
    assert list(known.trials.outcomes) == list(known.trials.compared()) == known.ids


@given(VALUES)
def test_a_trial_has_the_mean_and_interval_of_its_scored_rows_and_none_of_nothing(scores: list[float | None]) -> None:
    found = bench(1)
    found.see(0, scores)
    trial, scored = found.trials.by_id[found.ids[0]], [value for value in scores if value is not None]
    assert trial.n == len(scored)
    if not scored:
        assert (trial.mean, trial.ci95) == (None, None)
    else:
        mean, low, high = mean_ci(scored)
        assert trial.mean == mean == found.trials.mean(found.ids[0])
        assert trial.ci95 == (None if low is None or high is None else (low, high))


def test_only_open_trials_are_closed_at_the_end() -> None:
    found = bench(3)
    found.see(0, [1.0], "complete")
    found.see(1, [1.0], "pruned")
    found.see(2, [1.0])
    found.trials.close_open("the budget ended first")
    reasons = [found.trials.by_id[id_].reason for id_ in found.ids]
    assert reasons == ["seen", "seen", "the budget ended first"]
    assert found.trials.in_state("incomplete") == [found.ids[2]], "an unfinished trial stays one: it is never low"


# -- who is good -------------------------------------------------------------------------------------------------------


def test_who_was_asked_for_no_log_probabilities_is_not_ranked_above_those_who_were() -> None:
    """Both are right on the same rows; the one's evidence holds the mean signal of the other."""
    found = bench(3)
    scores = [1.0, 1.0, 1.0, 0.0]
    found.see(0, scores)
    assert found.trials.evidence(found.ids[0]) == scores, "as long as nobody has any"
    found.see(1, scores, signals=[0.9, 0.6, 0.6, 0.2])
    assert found.trials.estimate(found.ids[0]).mean == pytest.approx(found.trials.estimate(found.ids[1]).mean)
    assert found.trials.evidence(found.ids[0]) == pytest.approx([0.85, 0.85, 0.85, 0.1])
    found.see(2, [0.5])  # a graded score between the two
    assert found.trials.evidence(found.ids[2]) == pytest.approx([(0.5 + (0.7 + 0.2) / 2) / 2])


SEEN = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.none() | st.sampled_from([0.1, 0.6])), max_size=4)
STATES = st.sampled_from(["incomplete", "failed"])


@given(st.lists(st.tuples(st.integers(0, 3), SEEN, STATES), max_size=8))
def test_what_is_known_is_what_a_board_says_that_was_never_asked_before(looks: list[Any]) -> None:
    asked, looked = bench(4), []
    for number, rows, state in looks:
        looked.append((number, rows, state))
        unasked = bench(4)
        for trials, whole in ((asked, looked[-1:]), (unasked, looked)):
            for one, told, where in whole:
                trials.see(one, [value for value, _ in told], where, [signal for _, signal in told])
        assert asked.trials.parents(4) == unasked.trials.parents(4)
        assert asked.trials.estimates() == unasked.trials.estimates()


def test_parents_are_the_best_by_a_mean_that_trusts_few_rows_little() -> None:
    found = bench(4)
    found.see(0, [1.0])  # one lucky row
    found.see(1, [1.0] * 18 + [0.0] * 2, "complete")
    found.see(2, [0.0] * 20, "pruned")
    found.see(3, [1.0] * 20, "failed")
    parents = found.trials.parents(2)
    assert [parent.proposal.candidate.id for parent in parents] == [found.ids[1], found.ids[0]]
    assert [outcome.value for outcome in parents[1].outcomes] == [1.0]
    assert len(found.trials.parents(10)) == 3, "one that failed is nobody's parent"


def test_the_leader_has_seen_enough_rows() -> None:
    found = bench(3)
    found.see(0, [1.0] * 3)
    found.see(1, [0.5] * 10)
    found.see(2, [0.25] * 10)
    leader = found.trials.leader(10)
    assert leader is not None
    assert leader.candidate_id == found.ids[1]
    assert found.trials.leader(11) is None


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_prefixes_reach_as_far_as_each_saw_and_stay_paired(table: list[list[float | None]]) -> None:
    found = bench(len(table))
    for number, scores in enumerate(table):
        found.see(number, scores)
    prefixes = found.trials.prefixes(found.ids)
    for candidate_id, scores in zip(found.ids, table, strict=True):
        known = [score for score in scores if score is not None]
        assert len(prefixes[candidate_id]) == (len(scores) if known else 0)
        if known:
            mean = sum(known) / len(known)
            assert prefixes[candidate_id] == [mean if score is None else score for score in scores]
            assert sum(prefixes[candidate_id]) / len(scores) == pytest.approx(mean), "as the board tells it"


def proposal(text: str, technique: str = "zero-shot") -> Proposal:
    made = PromptCandidate(technique, "turns", text)  # type: ignore[arg-type]
    return Proposal(made, {}, "op", None, "why")


def admitted(found: Searched, *texts: str) -> list[str]:
    return found.context.admit([proposal(text) for text in texts])


async def test_each_row_of_a_candidate_is_bought_once_and_rows_keep_their_order(ledger: Ledger) -> None:
    model = FakeModel(pupil())
    found = made_search(ledger, model)
    ids = admitted(found, "One.", "Two.")
    for rows in (8, 20, 20, 5, 30):
        assert await found.context.see(ids, rows) == ids
    bought = [(o.candidate_id, o.example_id) for _, o in found.bought]
    assert len(bought) == len(set(bought)) == len(model.seen) == 60
    for candidate_id in ids:
        assert [o.example_id for o in found.trials.outcomes[candidate_id]] == [row.id for row in found.context.dev[:30]]


async def test_what_breaks_a_hard_rule_is_written_down_once_with_the_reason_and_never_tried(ledger: Ledger) -> None:
    task = make_task(40, constraints=Constraints(forbidden=("guaranteed",), max_prompt_tokens=10))
    found = made_search(ledger, FakeModel(pupil()), task=task)
    bad = [proposal("It is guaranteed."), proposal(" ".join(["word"] * 30)), proposal("No demos.", "few-shot")]
    good = proposal("Short.")
    assert found.context.admit([*bad, good, good]) == [good.candidate.id]
    assert found.context.admit([*bad, good]) == []
    reasons = [found.written.rejected[each.candidate.id] for each in bad]
    assert "forbidden" in reasons[0]
    assert "max_prompt_tokens = 10" in reasons[1]
    assert "0 examples" in reasons[2]
    assert [each.candidate for each in found.written.admitted] == [good.candidate]
    assert set(found.trials.proposals) == {good.candidate.id}


async def test_a_candidate_whose_rows_get_no_score_fails_and_the_others_live(ledger: Ledger) -> None:
    def answer(request: Request) -> str:
        if "Bad." in front_and_row(request)[0]:
            raise RowRefused("too long for the model")
        return pupil()(request)

    found = made_search(ledger, FakeModel(answer))
    ids = admitted(found, "Good.", "Bad.", "Fine.")
    assert await found.context.see(ids, 10) == [ids[0], ids[2]]
    trial = found.trials.by_id[ids[1]]
    assert (trial.state, trial.n, trial.mean) == ("failed", 0, None)
    assert "10 of 10 rows unscored" in trial.reason
    assert "too long for the model" in trial.reason


async def test_a_row_that_the_users_own_prompt_lost_says_nothing_against_a_candidate(ledger: Ledger) -> None:
    def answer(request: Request) -> str:
        front, row = front_and_row(request)
        if row.strip().startswith(lost.strip()) or "Bad." in front:
            raise RowRefused("no attics")
        return pupil()(request)

    found = made_search(ledger, FakeModel(answer))
    lost = found.context.dev[0].inputs["message"]
    await with_baseline(found)
    good, bad = admitted(found, "Good.", "Bad.")
    assert await found.context.see([good, bad], 2) == [good]
    assert found.trials.why_failed() == "2 of 2 rows unscored: no attics"
    assert (found.trials.by_id[good].n, found.trials.by_id[bad].n) == (1, 0)


async def test_what_ends_the_run_is_not_taken_for_a_bad_candidate(ledger: Ledger) -> None:
    def answer(request: Request) -> str:
        raise RunRefused("the key was refused")

    found = made_search(ledger, FakeModel(answer))
    with pytest.raises(RunRefused):
        await found.context.see(admitted(found, "One.", "Two."), 4)


async def test_a_search_that_asks_for_more_is_stopped_before_the_share_of_the_sealed_test(ledger: Ledger) -> None:
    model = FakeModel(pupil())
    found = made_search(ledger, model, budget=Budget(max_calls=150))
    context = found.context
    ids = admitted(found, *(f"Wording {n}." for n in range(20)))
    with pytest.raises(BudgetExhausted):
        await context.see(ids, len(context.dev))
    assert len(model.seen) == 150 - context.plan.test_calls
    assert context.left() == 0


async def test_calls_that_the_ledger_answers_count_as_if_they_were_paid(tmp_path: Path) -> None:
    left = []
    model = FakeModel(pupil())
    ledger = open_ledger(tmp_path / "ledger.db")
    for number in range(2):
        if number:
            ledger.begin_run(NewRun("run-2", TASK, "m"))
        found = made_search(ledger, model, run_id=f"run-{number + 1}")
        await found.context.see(admitted(found, "One.", "Two."), 12)
        left.append(found.context.left())
    ledger.close()
    assert (
        left[0] == left[1] == found.context.plan.calls - found.context.plan.slack - found.context.plan.test_calls - 24
    )
    assert len(model.seen) == 24


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(0, 1000))
def test_every_beginning_holds_each_label_about_as_often_as_the_whole(labels: list[str], seed: int) -> None:
    rows = list(range(len(labels)))
    order = stratified(rows, labels, random.Random(seed))
    assert sorted(order) == rows
    whole = Counter(labels)
    for n in range(len(order) + 1):
        here = Counter(labels[row] for row in order[:n])
        assert all(abs(here[label] - n * count / len(labels)) <= len(whole) for label, count in whole.items())


def test_the_seed_decides_and_fewer_rows_are_a_beginning_of_more() -> None:
    task = make_task(30)
    assert dev_rows(task, 30, 1) == dev_rows(task, 30, 1) != dev_rows(task, 30, 2)
    assert dev_rows(task, 30, 1)[:12] == dev_rows(task, 12, 1)
    assert {row.id for row in dev_rows(task, 30, 1)} == {row.id for row in task.dev}
