"""Nearness on a scale, and F1 of several labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics.comparison import labels_in
from agent.metrics.number_metrics import OrdinalOptions, ordinal
from agent.metrics.text_match import SetOptions, set_f1
from agent.types import Field
from tests.cases import each_case

NUMBER = Field("stars", "number")


@each_case(
    ("got", "label", "value"),
    [(4, 4, 1.0), (3, 4, 0.75), ("3", "4", 0.75), (1, 5, 0.0), (6, 5, 0.0), ("good", 5, 0.0), (4.5, 4, 0.875)],
)
def test_a_number_scores_by_its_distance_on_the_scale(got: object, label: object, value: float) -> None:
    found, reason = ordinal(OrdinalOptions(), NUMBER)(got, label)
    assert found == pytest.approx(value)
    assert bool(reason) == (value < 1)


def test_a_label_that_is_no_number_leaves_its_row_unscored() -> None:
    assert ordinal(OrdinalOptions(), NUMBER)(1, "good")[0] is None


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 9))
def test_a_score_on_a_scale_lies_between_0_and_1(got: float, label: float, low: float) -> None:
    value, _ = ordinal(OrdinalOptions(low=low, high=10.0), NUMBER)(got, label)
    assert value is not None
    assert 0 <= value <= 1


@each_case(
    ("got", "label", "value"),
    [
        ("late; refund", "Refund;late", 1.0),
        ("late", "late;refund", 2 / 3),
        ("late;late", "late", 1.0),
        ("", "", 1.0),
        ("none", "late", 0.0),
        ("late; refund", '["refund", "late"]', 1.0),
        ("[late", "[late", 1.0),
    ],
)
def test_several_labels_score_by_what_is_in_common(got: str, label: str, value: float) -> None:
    found, reason = set_f1(SetOptions(), Field("tags"))(got, label)
    assert found == pytest.approx(value)
    assert bool(reason) == (value < 1)


def test_the_separator_is_an_option() -> None:
    assert labels_in("a | b|", "|") == ["a", "b"]
    assert set_f1(SetOptions(separator="|"), Field("tags"))("b|a", "a|b")[0] == 1.0
    assert "missing: c" in set_f1(SetOptions(separator=","), Field("tags"))("a", "a,c")[1]
