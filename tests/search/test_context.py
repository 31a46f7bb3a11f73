"""What a strategy may do: each row of a candidate is bought once, the sealed test's share is out of its reach."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted, RowRefused, RunRefused
from agent.ledger.store import Ledger, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.context import dev_rows, stratified
from agent.types import Budget, Constraints, Proposal, Request
from tests.search.worlds import TASK, Searched, front_and_row, made_search, pupil, with_baseline
from tests.toys import FakeModel, make_task, open_ledger


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
