"""A score taken apart says what its parts say alone, and nothing where there is nothing to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.evaluate import breakdown
from agent.evaluate.breakdown import FEWEST_ROWS
from agent.evaluate.score_table import ScoreTable
from agent.metrics.text_similarity import signature
from agent.results.breakdown import Calibration
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import Example, MetricSpec, Outcome, Prediction, Score
from tests.cases import each_case
from tests.json_of import json_of
from tests.toys import two_sides

by_metric = json_of(breakdown.by_metric)
by_slice = json_of(breakdown.by_slice)
consistency = json_of(breakdown.consistency)
variety = json_of(breakdown.variety)

approx = pytest.approx
NO_DIFFERENCE = {"diff": None, "diff_ci95": None, "p_value": None}
ONE = (MetricSpec("judge", "text"),)


def outcome(*values: float | None, text: str = "fine", error: str = "", called: bool = True) -> Outcome:
    """One row's answer with a score for each metric; its value is their mean."""
    whole = None if None in values else math.fsum(v for v in values if v is not None) / max(1, len(values))
    fields = {} if error else {"text": text}
    scores = tuple(Score(f"metric{at}", value) for at, value in enumerate(values))
    return Outcome("c", "e", Prediction(fields, text, error), scores, whole, "key" if called else "")


def outcomes(values: Sequence[float | None]) -> list[Outcome]:
    return [outcome(value) for value in values]


def unanswered(why: str, key: str = "") -> Outcome:
    """A row without an answer, as `evaluate` makes it: `key` where the provider refused it."""
    return Outcome("c", "e", Prediction({}, "", why), (Score("judge", None, why),), None, key)


FAILED, REFUSED = unanswered("HTTP 500"), unanswered("the provider refused this row: no", "key")


def rows(*groups: str) -> list[Example]:
    return [Example(f"r{at}", {}, {}, {"lang": group}) for at, group in enumerate(groups)]


def pair(won: Sequence[Outcome], based: Sequence[Outcome], groups: Sequence[str] = ()) -> ScoreTable:
    return two_sides(rows(*(groups or ["de"] * len(won))), won, based)


def by_value(found: dict[str, Any]) -> dict[str, Any]:
    return {group["value"]: group for group in found["groups"]}


# ---- parts


def test_each_metric_has_its_means_and_the_paired_difference_of_its_own_scores() -> None:
    won = [outcome(1.0, 0.5), outcome(1.0, 0.25), outcome(0.0, 0.75)]
    based = [outcome(0.0, 0.5), outcome(1.0, 0.5), outcome(0.0, 0.5)]
    specs = (MetricSpec("choice", "team", 3.0), MetricSpec("judge", "text", 1.0))
    readable, first, second = by_metric(pair(won, based), specs, 7)
    assert readable["winner"]["mean"] == readable["baseline"]["mean"] == 1.0
    for line, mine, theirs in ((first, [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]), (second, [0.5, 0.25, 0.75], [0.5, 0.5, 0.5])):
        expected = paired_difference(mine, theirs, 7)
        assert (line["diff"], line["p_value"]) == (expected.diff, expected.p_value)
        assert line["diff_ci95"] == list(expected.ci95)
        for side, values in (("winner", mine), ("baseline", theirs)):
            mean, low, high = mean_ci(values)
            assert line[side] == {"mean": mean, "ci95": [low, high], "n": 3, "unscored": 0}


@pytest.mark.parametrize("lost", [FAILED, REFUSED, outcome(None)], ids=["failed", "refused", "without a label"])
def test_a_row_that_no_metric_could_score_is_not_unreadable(lost: Outcome) -> None:
    line = by_metric(pair([lost, outcome(0.0, error="no JSON")], outcomes([1.0, 1.0])), ONE, 0)[0]
    assert (line["winner"]["n"], line["winner"]["unscored"], line["winner"]["mean"]) == (1, 1, 0.0)
    assert line["diff"] == approx(-1.0)
    nothing = by_metric(pair([lost], [lost]), ONE, 0)[0]
    assert (nothing["winner"]["n"], nothing["winner"]["mean"], nothing["diff"]) == (0, None, None)


def test_what_sacrebleu_measures_carries_its_signature_and_nothing_else_does() -> None:
    specs = [MetricSpec(name, "text") for name in ("bleu", "chrf", "edit_similarity", "rougeL", "judge")]
    lines = by_metric(pair([outcome(*[1.0] * 5)], [outcome(*[0.5] * 5)]), specs, 0)
    assert [line["signature"] for line in lines] == ["", signature("bleu"), signature("chrf"), "", "", ""]


scores = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(st.lists(st.tuples(scores, scores), max_size=12))
def test_scored_and_unscored_rows_add_up_and_swapping_the_sides_turns_the_difference(
    values: list[tuple[float | None, float | None]],
) -> None:
    won, based = outcomes([a for a, _ in values]), outcomes([b for _, b in values])
    line, turned = by_metric(pair(won, based), ONE, 3)[1], by_metric(pair(based, won), ONE, 3)[1]
    assert line["winner"] == turned["baseline"]
    for side in ("winner", "baseline"):
        assert line[side]["n"] + line[side]["unscored"] == len(values)
    if line["diff"] is not None:
        assert line["diff"] == approx(-turned["diff"])
        assert line["p_value"] == approx(turned["p_value"])


# ---- slices


def test_a_group_of_few_rows_has_scores_but_no_difference_and_no_part_in_the_gap() -> None:
    few = FEWEST_ROWS - 1
    groups = ["de"] * 6 + ["en"] * 6 + ["fr"] * few
    won = outcomes([1.0] * 6 + [0.5] * 6 + [0.0] * few)
    (found,) = by_slice(pair(won, outcomes([1.0] * len(groups)), groups), ["lang"], 0)
    told = by_value(found)
    assert told["fr"]["winner"]["mean"] == 0.0
    assert told["fr"]["winner"]["n"] == few
    assert {key: told["fr"][key] for key in NO_DIFFERENCE} == NO_DIFFERENCE
    assert told["en"]["diff"] == approx(-0.5)
    assert found["winner_gap"] == approx(0.5)


@each_case("known", [0, FEWEST_ROWS - 1, FEWEST_ROWS, FEWEST_ROWS + 2])
@each_case("turned", [False, True])
def test_a_group_has_a_difference_where_enough_of_its_rows_are_scored_on_both_sides(known: int, turned: bool) -> None:
    lost = 6
    some, all_of_it = outcomes([1.0] * known + [None] * lost), outcomes([0.5] * (known + lost))
    (found,) = by_slice(pair(*((all_of_it, some) if turned else (some, all_of_it))), ["lang"], 0)
    (group,) = found["groups"]
    if known < FEWEST_ROWS:
        assert {key: group[key] for key in NO_DIFFERENCE} == NO_DIFFERENCE
    else:
        assert group["diff"] == approx(-0.5 if turned else 0.5)
    assert group["baseline" if turned else "winner"]["n"] == known


def test_groups_that_differ_are_said_to() -> None:
    values = [float(at % 2 == 0 or at % 5 == 0) for at in range(160)]
    (found,) = by_slice(pair(outcomes(values), outcomes([0.5] * 160), ["de", "en"] * 80), ["lang"], 0)
    assert found["winner_gap"] == approx(0.8)
    assert found["winner_gap_p"] < 0.001
    assert found["baseline_gap_p"] == 1.0


# ---- consistency


def answers(*texts: str) -> list[Outcome]:
    """An answer to each row; the one that says "right" is."""
    return [outcome(float(text == "right"), text=text) for text in texts]


def test_answers_that_differ_are_counted_by_hand() -> None:
    found = consistency([answers("right", "x"), answers("right", "y"), answers("x", "z"), answers("x", "right")])
    assert found is not None
    assert found["agreement"] == approx((2 + 0) / 12)  # of the six pairs of a row: aabb has two alike, abcd none
    assert found["entropy"] == approx((1 + 2) / 2)
    assert (found["pass_at_k"], found["pass_hat_k"]) == (1.0, 0.0)
    assert found["spread"] == approx((0.5 + math.sqrt(3) / 4) / 2)


def test_one_sample_or_no_rows_say_nothing() -> None:
    assert consistency([]) is None
    assert consistency([answers("right")]) is None
    assert consistency([[], []]) is None


def test_a_row_with_an_unscored_sample_has_no_part_in_passing() -> None:
    found = consistency([[outcome(None), outcome(1.0)], [outcome(1.0), outcome(1.0)]])
    assert found is not None
    assert (found["rows"], found["pass_at_k"], found["pass_hat_k"]) == (2, 1.0, 1.0)
    nothing = consistency([[outcome(None)], [outcome(1.0)]])
    assert nothing is not None
    assert nothing["pass_at_k"] is nothing["pass_hat_k"] is nothing["spread"] is None


@pytest.mark.parametrize("lost", [FAILED, REFUSED], ids=["failed", "refused"])
def test_rows_with_a_sample_without_an_answer_are_left_out_of_consistency(lost: Outcome) -> None:
    whole = [answers("right", "x"), answers("right", "y")]
    found = consistency([[*whole[0], lost, *answers("right")], [*whole[1], *answers("x"), lost]])
    assert found == consistency(whole)
    assert found is not None
    assert (found["rows"], found["agreement"]) == (2, 0.5)


words = st.sampled_from(["right", "x", "y"])


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(words, min_size=n, max_size=n), min_size=2, max_size=5)))
def test_some_sample_passes_at_least_as_often_as_all_do_and_bits_mean_disagreement(samples: list[list[str]]) -> None:
    found = consistency([answers(*texts) for texts in samples])
    assert found is not None
    assert 0 <= found["pass_hat_k"] <= found["pass_at_k"] <= 1
    assert 0 <= found["agreement"] <= 1
    assert -1e-9 <= found["entropy"] <= math.log2(len(samples)) + 1e-9
    assert (found["entropy"] < 1e-9) == (found["agreement"] == 1)
    assert consistency([answers(*texts) for texts in samples[::-1]]) == approx(found)


# ---- variety


def said(*texts: str) -> list[Outcome]:
    return [outcome(1.0, text=text) for text in texts]


def test_distinct_word_pairs_and_openings_are_counted_by_hand() -> None:
    found = variety(said("We tracked down the man", "we TRACKED down a goat", "We tracked goats"), "text")
    assert found == {"field": "text", "n": 3, "distinct_2": 7 / 10, "openings": 1 / 3}


def test_fewer_than_two_texts_have_no_variety() -> None:
    assert variety([], "text") is None
    assert variety(said("alone"), "text") is None
    assert variety([*said("alone", "  "), outcome(0.0, error="no JSON")], "text") is None
    assert variety(said("one", "two"), "other") is None
    assert variety([Outcome("c", "e", Prediction({"text": [1]}, "[1]"), (), 1.0, "k")] * 2, "text") is None


confidence_report = json_of(breakdown.confidence_report)


def confident(at: int, value: float | None, sure: float | None) -> Outcome:
    return Outcome("c_1", f"r{at}", Prediction({"team": "x"}, "x", confidence=sure), (), value)


DEV = [confident(at, float(at >= 10), at / 50) for at in range(50)]
TEST = [confident(at, float(at % 4 > 0), 0.9 if at < 60 else 0.1) for at in range(80)]


def test_the_threshold_comes_from_dev_and_what_it_leaves_from_the_test() -> None:
    found = confidence_report(TEST, DEV, None, 0.95)
    assert found is not None
    assert (found["method"], found["rows"]) == ("none", 80)
    assert found["ece"] == approx((60 * 0.15 + 20 * 0.65) / 80)
    abstain = found["abstain"]
    assert abstain["below"] == approx(8 / 50)  # 40 of the 42 rows from there on are right
    assert abstain["answered"] == approx(0.75)
    assert abstain["reached"] == approx(0.75)
    assert Calibration.from_json(found).to_json() == found


def test_rows_without_a_score_or_a_confidence_do_not_count() -> None:
    found = confidence_report([*TEST, confident(90, None, 0.5), confident(91, 1.0, None)], DEV, None, None)
    assert found is not None
    assert (found["rows"], found["abstain"]) == (80, None)
    assert confidence_report([confident(0, 1.0, None)], DEV, None, 0.9) is None


def test_where_no_threshold_reaches_the_precision_that_is_said() -> None:
    wrong = [confident(at, 0.0, 0.9) for at in range(50)]
    found = confidence_report(TEST, wrong, {"method": "fitted", "bias": {"x": 1.0}, "temperature": 2.0}, 0.95)
    assert found is not None
    assert found["abstain"]["below"] is None
    assert (found["abstain"]["answered"], found["abstain"]["reached"]) == (0, None)
    assert (found["bias"], found["temperature"]) == ({"x": 1.0}, 2.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), scores, scores), max_size=20))
def test_the_groups_of_a_slice_hold_every_row_once(values: list[tuple[str, float | None, float | None]]) -> None:
    groups = [group for group, _, _ in values]
    won, based = outcomes([a for _, a, _ in values]), outcomes([b for _, _, b in values])
    (found,) = by_slice(two_sides(rows(*groups), won, based), ["lang"], 1)
    for value, group in by_value(found).items():
        assert group["winner"]["n"] + group["winner"]["unscored"] == groups.count(value)
    assert set(by_value(found)) == set(groups)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), min_size=2, max_size=6))
def test_variety_lies_between_nothing_and_all_and_does_not_depend_on_the_order(texts: list[list[str]]) -> None:
    lines = [" ".join(text) for text in texts]
    found = variety(said(*lines), "text")
    assert found is not None
    assert found == variety(said(*lines[::-1]), "text")
    assert 0 <= found["openings"] <= 1
    pairs = [together for text in texts for together in pairwise(text)]
    assert (found["distinct_2"] is None) == (not pairs)
    if pairs:
        assert 0 < found["distinct_2"] <= 1
