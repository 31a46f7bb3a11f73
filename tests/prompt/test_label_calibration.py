"""Labels are scored by the tokens that spell them, and calibration decides among them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.prompt.label_calibration import FLOOR, LabelCalibration, calibrated, label_scores, read_reply, tokens_of
from agent.shipped import Field, Prediction
from tests.cases import each_case

approx = pytest.approx
LABELS = ("billing", "card_arrival", "card_linking", "sales")
TEAM = Field("team", "choice", choices=LABELS)


def place(**weights: float) -> list[tuple[str, float]]:
    return [(token.replace("__", " "), math.log(weight)) for token, weight in weights.items()]


SAD = ("sad", "saddle", "cheerful")


@each_case(
    "tokens, labels, wanted",
    [
        ([place(billing=0.5, Bill=0.1, sales=0.3, card=0.1)], LABELS, [0.6, 0.05, 0.05, 0.3]),
        # labels that begin alike are told apart where the reply spells them on, and else share what they have
        ([place(card=0.8, sales=0.15), place(_arr=0.7, _link=0.3)], LABELS, [0.05, 0.56, 0.24, 0.15]),
        ([place(sales=0.9, card=0.1), place(card=1.0)], LABELS, [FLOOR, 0.05, 0.05, 0.9]),
        # one that is not listed has what the list leaves of 1, no more than the least that is listed, never nothing
        ([place(billing=0.9, sales=0.06)], LABELS, [None, 0.04, None, None]),
        ([place(billing=0.5, sales=0.1)], LABELS, [None, 0.1, None, None]),
        ([[("billing", 0.0)]], LABELS, [None, None, None, FLOOR]),
        # one that begins another is told from it by the end of the reply
        ([place(sad=0.9, cheerful=0.1), [("", -0.01)]], SAD, [0.9, FLOOR, None]),
    ],
)
def test_a_label_has_the_probability_of_the_tokens_that_spell_it(tokens, labels, wanted):
    found = label_scores(tokens, labels)
    assert found is not None
    assert [log for log, share in zip(found, wanted, strict=True) if share and math.exp(log) != approx(share)] == []


def test_a_reply_about_something_else_has_no_scores():
    assert label_scores([place(Hello=0.99, billing=0.001)], LABELS) is None
    assert label_scores([], LABELS) is None
    assert label_scores([[(" ", 0.0)], []], LABELS) is None


def test_weights_decide_and_say_how_sure_they_are():
    logs = [math.log(0.6), math.log(0.1), math.log(0.1), math.log(0.2)]
    calibration = LabelCalibration("fitted", dict(zip(LABELS, (-2.0, 0.0, 0.0, 0.0), strict=True)), 2.0)
    found = calibrated(Prediction({"team": "billing"}, "billing"), logs, TEAM, calibration)
    assert found.fields == {"team": "sales"}
    terms = [math.exp(log / 2 + bias) for log, bias in zip(logs, calibration.bias.values(), strict=True)]
    assert found.confidence == approx(terms[3] / sum(terms))
    assert calibrated(Prediction({"team": "billing"}, "billing"), logs, TEAM, None).confidence == approx(0.6)


def test_weights_answer_where_the_reply_as_it_stands_names_no_label():
    reply = read_reply("bill", [place(bill=0.6, sales=0.4)], (TEAM,), False, None)
    assert (reply.error != "", reply.confidence) == (True, None)
    calibration = LabelCalibration("label-free", dict.fromkeys(LABELS, 0.0))
    reply = read_reply("bill", [place(bill=0.6, sales=0.4)], (TEAM,), False, calibration)
    assert (reply.fields, reply.error) == ({"team": "billing"}, "")


def test_without_log_probabilities_a_reply_is_read_as_it_stands():
    calibration = LabelCalibration("fitted", dict(zip(LABELS, (-9.0, 0.0, 0.0, 0.0), strict=True)))
    assert read_reply("billing", (), (TEAM,), False, calibration) == Prediction({"team": "billing"}, "billing")
    assert read_reply("Hello", [place(Hello=1.0)], (TEAM,), False, calibration).error


def test_the_log_probabilities_of_openai_are_read_as_pairs_are():
    pairs = ((("billing", -0.1), ("sales", -2.4)),)
    as_json = [{"token": "billing", "top_logprobs": [{"token": t, "logprob": v} for t, v in pairs[0]]}]
    assert tokens_of(as_json) == tokens_of(pairs) == pairs
    assert tokens_of([{"token": "x"}]) == tokens_of([None]) == tokens_of(["ab", 3]) == ()


TOKENS = st.sampled_from(["billing", "card", "_arr", "ival", "_link", "sales", "s", " ", "", "Hello"])
REPLIES = st.lists(st.lists(st.tuples(TOKENS, st.floats(-20, 0.5)), max_size=6), max_size=5)


@given(REPLIES)
def test_any_reply_has_a_score_for_each_label_within_bounds_or_none(reply: list[list[tuple[str, float]]]):
    found = label_scores(reply, LABELS)
    assert found is None or (len(found) == 4 and all(math.log(FLOOR) <= log <= 0 for log in found))
