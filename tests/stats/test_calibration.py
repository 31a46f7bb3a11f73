"""Weights on planted data where the truth is known, and confidences that say how often they are right."""

from __future__ import annotations

import inspect
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.stats.calibration import (
    BINS,
    FEWEST_ANSWERED,
    HOTTEST,
    STACKED_HOTTEST,
    STACKED_PRIOR,
    abstain_below,
    cross_fitted,
    expected_calibration_error,
    fitted,
    label_free,
    penalised_loss,
    reliability,
    stacked,
)

approx = pytest.approx
LABELS = 4


def log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    total = math.log(math.fsum(math.exp(value - top) for value in logits)) + top
    return [value - total for value in logits]


def planted(
    count: int, bias: tuple[float, ...], temperature: float, seed: int = 1, signal: float = 2.0
) -> tuple[list[list[float]], list[int]]:
    """Rows whose answer has the probabilities of `scores / temperature + bias`: those are the true weights."""
    rng = random.Random(seed)
    scores, answers = [], []
    for _ in range(count):
        clean = [rng.gauss(0, signal) for _ in bias]
        shares = [math.exp(value) for value in log_softmax(clean)]
        answers.append(rng.choices(range(len(bias)), shares)[0])
        scores.append(log_softmax([temperature * (value - add) for value, add in zip(clean, bias, strict=True)]))
    return scores, answers


BIASED = (-3.0, 0.0, 1.0, 2.0)


def test_fitted_weights_are_the_planted_ones_where_there_are_many_rows():
    found = fitted(*planted(4000, BIASED, temperature=2.5))
    assert found.temperature == approx(2.5, rel=0.15)
    for one, two in zip(found.bias, BIASED, strict=True):
        assert one - found.bias[1] == approx(two - BIASED[1], abs=0.35)


def test_label_free_weights_know_no_right_answer_and_leave_no_label_preferred():
    assert list(inspect.signature(label_free).parameters) == ["scores"]
    scores, _ = planted(200, BIASED, temperature=1.0)
    weights = label_free(scores)
    for at, bias in enumerate(weights.bias):
        assert math.fsum(row[at] for row in scores) / len(scores) + bias == approx(0, abs=1e-4)
    assert weights.temperature == 1


def test_a_row_is_read_with_weights_that_its_own_answer_did_not_touch():
    scores, answers = planted(60, BIASED, temperature=1.0)
    before = cross_fitted(scores, answers)
    for at in (0, 7, 59):
        changed = [(answer + 1) % LABELS if place == at else answer for place, answer in enumerate(answers)]
        after = cross_fitted(scores, changed)
        assert after[at] == before[at]
        assert after[(at + 1) % 60] != before[(at + 1) % 60]


ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


@given(ROWS)
def test_every_row_is_in_one_bin_and_the_error_is_a_share(rows: list[tuple[float, bool]]):
    confidences, right = [c for c, _ in rows], [ok for _, ok in rows]
    bins = reliability(confidences, right)
    assert sum(one.n for one in bins) == len(rows)
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in bins)
    assert len({one.low for one in bins}) == len(bins) <= BINS
    assert 0 <= expected_calibration_error(bins) <= 1


@given(ROWS, st.floats(0.05, 0.99))
def test_a_threshold_keeps_the_precision_on_the_rows_that_chose_it(rows: list[tuple[float, bool]], wanted: float):
    confidences, right = [c for c, _ in rows], [ok for _, ok in rows]
    threshold = abstain_below(confidences, right, wanted)
    if threshold is not None:
        answered = [ok for c, ok in rows if c >= threshold]
        assert len(answered) >= FEWEST_ANSWERED
        assert sum(answered) >= wanted * len(answered)


def test_the_threshold_answers_as_many_rows_as_the_precision_allows():
    confidences = [at / 100 for at in range(100)]
    assert abstain_below(confidences, [at >= 40 for at in range(100)], 0.95) == approx(0.37)
    assert abstain_below(confidences, [False] * 100, 0.5) is None
    assert abstain_below([0.9] * 30, [True] * 15 + [False] * 15, 0.8) is None, "equal confidences stand together"
    assert abstain_below([0.9] * 19, [True] * 19, 0.5) is None, "too few rows"


# -- neighbours -------------------------------------------------------------------------------------------------------


def with_votes(count: int, seed: int, known: float) -> tuple[list[list[float]], list[int], list[list[float]]]:
    """Planted rows with the log-shares of votes, which name the right label as often as `known` says."""
    scores, answers = planted(count, BIASED, temperature=1.0, seed=seed, signal=0.5)
    rng = random.Random(seed)
    named = [answer if rng.random() < known else rng.randrange(LABELS) for answer in answers]
    return scores, answers, [[math.log(0.7 if at == name else 0.1) for at in range(LABELS)] for name in named]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 20), st.booleans(), st.sampled_from([0.5, 2.0]))
def test_the_gradient_is_that_of_finite_differences(seed: int, labels: int, count: int, has_votes: bool, spread: float):
    rng = np.random.default_rng(seed)
    tables = [rng.normal(0, 2, (count, labels)) for _ in range(1 + has_votes)]
    loss = penalised_loss(tables, rng.integers(0, labels, count), spread)
    point, step = rng.normal(0.5, 1, len(tables) + labels), 1e-6
    _, slope = loss(point)
    for at in range(len(point)):
        ahead, behind = point.copy(), point.copy()
        ahead[at] += step
        behind[at] -= step
        assert slope[at] == approx((loss(ahead)[0] - loss(behind)[0]) / (2 * step), rel=1e-4, abs=1e-4)


def test_votes_count_as_much_as_they_know():
    weights = [fitted(*with_votes(400, seed=3, known=known)).weight for known in (0.0, 0.6, 0.95)]
    assert 0 <= weights[0] < 0.3 < weights[1] < weights[2]


def test_without_votes_the_weights_are_those_that_they_were():
    scores, answers = planted(60, BIASED, temperature=1.5)
    alone, equal = fitted(scores, answers), fitted(scores, answers, [[math.log(1 / LABELS)] * LABELS] * 60)
    assert alone.weight == 0.0
    assert (equal.bias, equal.temperature) == (approx(alone.bias, abs=1e-3), approx(alone.temperature, abs=1e-3))
    assert equal.weight == 1.0, "votes that are equal for all labels say nothing about their weight"


# -- a classifier -----------------------------------------------------------------------------------------------------


def test_model_and_classifier_weigh_as_much_as_they_know():
    known = [stacked(*with_votes(400, seed=4, known=share)) for share in (0.0, 0.6, 0.95)]
    weights = [one.weight for one in known]
    assert 0 <= weights[0] < 0.3 < weights[1] < weights[2]
    rng = random.Random(5)
    noise = [[rng.uniform(-13.8, 0) for _ in range(LABELS)] for _ in range(400)]
    _, answers, logs = with_votes(400, seed=4, known=0.9)
    assert 1 / stacked(noise, answers, logs).temperature < 0.02, "scores that say nothing decide nothing"


def test_two_weights_are_the_minimum_of_the_penalised_loss():
    scores, answers, logs = with_votes(80, seed=6, known=0.6)
    found = stacked(scores, answers, logs)
    table = np.asarray(scores)
    tables = [table - table.mean(axis=0), np.asarray(logs)]
    loss = penalised_loss(tables, np.asarray(answers), STACKED_PRIOR)
    none = [0.0] * LABELS

    def at(model: float, classifier: float) -> float:
        return loss(np.asarray([model, classifier, *none]))[0]

    best = at(1 / found.temperature, found.weight)
    for model, classifier in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)):
        assert best <= at(1 / found.temperature + model, found.weight + classifier) + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 30))
def test_any_tables_have_finite_weights_of_at_least_0(seed: int, labels: int, count: int):
    rng = random.Random(seed)
    scores, logs = ([[rng.uniform(-13.8, 0) for _ in range(labels)] for _ in range(count)] for _ in range(2))
    answers = [rng.randrange(labels) for _ in range(count)]
    for found, hottest in ((stacked(scores, answers, logs), STACKED_HOTTEST), (fitted(scores, answers), HOTTEST)):
        assert all(map(math.isfinite, [*found.bias, found.temperature, found.weight]))
        assert 0 < found.temperature <= hottest
        assert found.weight >= 0


def test_a_row_is_read_with_a_classifier_whose_weight_its_own_fold_did_not_touch():
    scores, answers, logs = with_votes(60, seed=7, known=0.7)
    before = cross_fitted(scores, answers, logs, stacked)
    changed = [(answer + 1) % LABELS if place == 7 else answer for place, answer in enumerate(answers)]
    after = cross_fitted(scores, changed, logs, stacked)
    assert after[7] == before[7]
    assert after[8] != before[8]
