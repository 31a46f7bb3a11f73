"""The gate of a check: an unchanged model passes always, flips and losses are told, and noise is no alarm."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.evaluate.score_table import ScoreTable
from agent.evaluate.verdict import better, steady
from agent.results.checks import SuiteComparison
from agent.types import Example, Field, Outcome, Prediction
from tests.json_of import json_of

Answers = list[list[Outcome]]


@json_of
def verdict(rows: list[Example], was: Answers, now: Answers, outputs: tuple[Field, ...]) -> SuiteComparison:
    """What `steady` says of answers by row, each time."""
    arms = {"was": was, "now": now}
    passes = {
        name: [[row[at] for row in rows if at < len(row)] for at in range(max(map(len, rows)))]
        for name, rows in arms.items()
    }
    found = steady(ScoreTable.of(passes, rows), "now", "was", outputs)
    assert found.passed == found.figures.passed
    assert found.messages == found.figures.why
    return found.figures


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from("ab"), min_size=1, max_size=3)] * 2), min_size=1, max_size=15))
def test_a_changed_score_has_the_interval_of_its_test(samples: list[tuple[list[str], list[str]]]) -> None:
    asked = rows(len(samples))
    was, now = (
        [[answer(row, team) for team in pair[side]] for row, pair in zip(asked, samples, strict=True)]
        for side in (0, 1)
    )
    arms = {"was": was, "now": now}
    passes = {
        name: [[row[at] for row in answers if at < len(row)] for at in range(max(map(len, answers)))]
        for name, answers in arms.items()
    }
    found = steady(ScoreTable.of(passes, asked), "now", "was", (TEAM,)).figures.difference
    assert found is not None
    assert (found.p_value < 0.05) == (found.ci95[0] > 0 or found.ci95[1] < 0)


TEAM = Field("team", "choice", choices=("a", "b", "c"))
TEXT = Field("reply")


def rows(count: int) -> list[Example]:
    return [Example(f"r{at}", {"message": f"m{at}"}, {"team": "a"}) for at in range(count)]


def answer(row: Example, team: str) -> Outcome:
    return Outcome("p", row.id, Prediction({"team": team}, team), (), float(team == "a"), "k")


def refused(row: Example) -> Outcome:
    return Outcome("p", row.id, Prediction({}, "", "refused"), (), None)


def told(was: Answers, now: Answers, field: Field = TEAM) -> dict:  # type: ignore[type-arg]
    return verdict(rows(len(was)), was, now, (field,))


def lift(ours: str, theirs: str) -> tuple[float | None, list[str]]:
    """What `better` finds of scores (`1`, `0`, `-` for none): the gain with the lost rows as wrong, and the reasons."""
    examples, answers = rows(len(ours)), {"1": "a", "0": "b"}
    arms = {
        name: [
            [
                answer(row, answers[mark]) if mark in answers else refused(row)
                for row, mark in zip(examples, marks, strict=True)
            ]
        ]
        for name, marks in {"arm": ours, "reference": theirs}.items()
    }
    found = better(ScoreTable.of(arms, examples), "arm", "reference", 0)
    assert found is not None
    return found.figures.diff_if_wrong, [f"{reason.code}: {reason.message}" for reason in found.reasons]


def test_a_gain_must_be_shown_and_not_come_from_lost_rows() -> None:
    assert lift("1" * 40, "1" * 20 + "0" * 20) == (0.5, [])
    assert lift("1" * 36 + "----", "1" * 20 + "0" * 16 + "1111") == (pytest.approx(12 / 40), [])
    lost, why = lift("1" * 20 + "-" * 20, "1" * 10 + "0" * 10 + "1" * 20)
    assert lost == pytest.approx((10 - 20) / 40)
    assert why == [
        "gain_from_lost_rows: the gain may come from rows left out: 20 that your prompt got a score on have none with "
        "it; counted as wrong, -25.0 points"
    ]
    equal, why = lift("10" * 10, "01" * 10)
    assert equal == 0
    assert why == ["gain_not_shown: the gain is not shown: +0.0 points, p = 1 on 20 rows"]


def test_an_unchanged_model_passes_a_hundred_times_out_of_a_hundred() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        count = rng.randint(1, 80)
        fixed = [(row, rng.choice("abc")) for row in rows(count)]
        was, now = ([[answer(row, team)] * times for row, team in fixed] for times in (rng.randint(1, 3), 2))
        found = told(was, now)
        assert (found["gate"], found["flips"], found["why"]) == ("passed", [], [])


def test_a_tenth_of_the_answers_flipped_fails_and_each_is_listed() -> None:
    was = [[answer(row, "a")] for row in rows(60)]
    now = [[answer(row, "b" if at % 10 == 3 else "a")] * 2 for at, row in enumerate(rows(60))]
    found = told(was, now)
    assert found["gate"] == "failed"
    assert [flip["row"] for flip in found["flips"]] == [f"r{at}" for at in range(60) if at % 10 == 3]
    assert found["flips"][0] | {"expected": None} == {
        "row": "r3", "was": "a", "is": "b", "was_score": 1.0, "is_score": 0.0, "expected": None,
    }  # fmt: skip
    assert any("6 of 60 rows flipped" in why for why in found["why"])


def test_of_two_answers_that_tie_the_recorded_one_counts_in_whatever_order_they_came() -> None:
    was = [[answer(row, "a")] for row in rows(4)]
    sides = ("ab", "ba", "bc", "bb")
    now = [[answer(row, team) for team in side] for row, side in zip(rows(4), sides, strict=True)]
    assert [flip["row"] for flip in told(was, now)["flips"]] == ["r2", "r3"]


def test_flips_from_one_wrong_answer_to_another_count_though_the_score_stays() -> None:
    was = [[answer(row, "b")] for row in rows(40)]
    now = [[answer(row, "c" if at < 6 else "b")] * 2 for at, row in enumerate(rows(40))]
    found = told(was, now)
    assert found["gate"] == "failed"
    assert found["difference"]["diff"] == 0


@pytest.mark.parametrize(("before", "after", "fell"), [("a", "b", True), ("b", "a", False)])
def test_only_a_score_that_went_down_is_told_as_fallen(before: str, after: str, fell: bool) -> None:
    was = [[answer(row, before)] * 2 for row in rows(30)]
    now = [[answer(row, after if at < 20 else before)] * 2 for at, row in enumerate(rows(30))]
    found = told(was, now)
    assert found["difference"]["p_value"] < 0.05
    assert any("the score fell" in why for why in found["why"]) is fell


@pytest.mark.parametrize(("had", "lost", "gate"), [(10, 2, "failed"), (10, 1, "passed"), (20, 4, "failed")])
def test_a_fifth_of_the_answers_there_were_is_too_many_to_lose(had: int, lost: int, gate: str) -> None:
    was = [[answer(row, "a") if at < had else refused(row)] for at, row in enumerate(rows(30))]
    now = [[answer(row, "a") if lost <= at < had else refused(row)] * 2 for at, row in enumerate(rows(30))]
    found = told(was, now)
    assert found["gate"] == gate
    assert found["why"] == [f"{lost} of {had} rows that had an answer got none: refused"] * (gate == "failed")


def test_rows_without_an_answer_are_no_flips_but_too_many_fail() -> None:
    was = [[answer(row, "a")] for row in rows(40)]
    few = told(was, [[refused(row) if at < 5 else answer(row, "a")] * 2 for at, row in enumerate(rows(40))])
    assert few["gate"] == "passed"
    assert few["unanswered"] == {"was": 0, "now": 5}
    many = told(was, [[refused(row) if at < 10 else answer(row, "a")] * 2 for at, row in enumerate(rows(40))])
    assert many["why"] == ["10 of 40 rows that had an answer got none: refused"]
    none = told(was, [[refused(row)] * 2 for row in rows(40)])
    assert none["why"] == ["no row has an answer on both sides: refused"]
    assert none["score"]["now"]["mean"] is None


def test_texts_flip_by_their_score() -> None:
    def said(row: Example, value: float) -> Outcome:
        return Outcome("p", row.id, Prediction({"reply": f"text {value}"}, "x"), (), value, "k")

    was = [[said(row, 0.8)] * 2 for row in rows(30)]
    assert told(was, [[said(row, 0.75)] * 2 for row in rows(30)], TEXT)["flips"] == []
    found = told(was, [[said(row, 0.2 if at < 6 else 0.8)] * 2 for at, row in enumerate(rows(30))], TEXT)
    assert len(found["flips"]) == 6
    assert found["gate"] == "failed"
