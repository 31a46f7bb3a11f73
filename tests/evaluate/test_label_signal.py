"""The signal says how much of the labels' weight went to the right one, and nothing where nothing is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.evaluate.evaluator import MIN_LABEL_MASS, evidence, label_signal

approx = pytest.approx
LABELS = ("billing", "card_arrival", "card_linking", "sales")


def place(**weights: float) -> list[tuple[str, float]]:
    return [(token.replace("__", " "), math.log(weight)) for token, weight in weights.items()]


def test_a_label_in_one_token_has_its_share_of_the_labels_weight():
    reply = [place(billing=0.3, sales=0.1, Hello=0.6)]
    assert label_signal(reply, LABELS, "billing") == approx(0.75)
    assert label_signal(reply, LABELS, "sales") == approx(0.25)
    assert label_signal(reply, LABELS, "card_arrival") == 0.0


def test_labels_that_begin_alike_are_told_apart_by_the_token_that_differs():
    reply = [place(card=0.8, sales=0.2), place(_arr=0.9, _link=0.1)]
    assert label_signal(reply, LABELS, "card_arrival") == approx(0.8 * 0.9)
    assert label_signal(reply, LABELS, "card_linking") == approx(0.8 * 0.1)


def test_what_is_about_something_else_is_worth_nothing_even_where_labels_have_a_trace():
    assert label_signal([place(Hello=0.99, billing=0.001)], LABELS, "billing") == approx(0.001 / MIN_LABEL_MASS)


def test_case_and_a_leading_blank_do_not_matter():
    assert label_signal([[(" Billing", 0.0)]], LABELS, "billing") == approx(1.0)


def test_a_token_that_spells_nothing_is_passed_over_and_a_reply_of_such_tokens_is_worth_nothing():
    blank = [(" ", -0.001), ("Hello", -7.0)]
    assert label_signal([blank, place(billing=0.9, sales=0.1)], LABELS, "billing") == approx(0.9)
    assert label_signal([place(sad=0.9, cheerful=0.1), [("", -0.01)]], ("sad", "saddle", "cheerful"), "sad") == approx(
        0.9
    )
    assert label_signal([blank, [("", -0.01)]], LABELS, "billing") == 0.0


def test_without_tokens_or_with_a_label_that_is_no_choice_there_is_none():
    assert label_signal([], LABELS, "billing") is None
    assert label_signal([place(billing=1.0)], LABELS, "other") is None


TOKENS = st.sampled_from(["billing", "card", "_arr", "ival", "_link", "sales", "s", " ", "", "Hello"])
REPLIES = st.lists(st.lists(st.tuples(TOKENS, st.floats(-20, 0.5)), max_size=6), max_size=5)


@given(REPLIES, st.sampled_from(LABELS))
def test_any_reply_gives_a_number_between_0_and_1_or_none(reply, right):
    found = label_signal(reply, LABELS, right)
    assert found is None or 0.0 <= found <= 1.0


@given(st.floats(0, 1), st.none() | st.floats(0, 1))
def test_evidence_lies_between_score_and_signal_and_is_the_score_without_one(value, signal):
    found = evidence(value, signal)
    if signal is None:
        assert found == value
    else:
        assert min(value, signal) - 1e-9 <= found <= max(value, signal) + 1e-9
