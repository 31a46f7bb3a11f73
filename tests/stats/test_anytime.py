"""The A/B test: looked at after every outcome, it errs in at most a twentieth of all cases, and sees what is there."""

import math
import random

import numpy as np
import pytest

from agent.stats.anytime import WAITING, compared, log_wealth, paired

DECIDED = math.log(2 / 0.05)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.95])
def test_equal_arms_are_told_apart_in_at_most_a_twentieth_of_a_thousand_sequences(rate: float) -> None:
    """Each sequence is looked at after each of its 600 pairs."""
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(1000):
        differences = rng.binomial(1, rate, 600) - rng.binomial(1, rate, 600)
        wrong += bool(log_wealth(differences).max() >= DECIDED)
    assert wrong / 1000 <= 0.05


def test_arms_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(9)
    ends = []
    for _ in range(200):
        found = log_wealth(rng.binomial(1, 0.6, 2000) - rng.binomial(1, 0.5, 2000)) >= DECIDED
        ends.append(int(found.argmax()) if found.any() else 2000)
    assert np.mean(np.array(ends) < 2000) >= 0.95
    assert np.median(ends) < 700  # a test of fixed size with 80 % power needs 388 pairs


def test_the_confidence_sequence_holds_the_truth_and_narrows() -> None:
    rng = np.random.default_rng(10)
    missed = 0
    for _ in range(100):
        differences = (rng.binomial(1, 0.7, 400) - rng.binomial(1, 0.5, 400)).tolist()
        low, high = compared(differences).ci
        missed += not low <= 0.2 <= high
        assert high - low < 0.35
    assert missed <= 10


def test_interval_and_evidence_agree_and_turn_with_the_arms() -> None:
    rng = random.Random(11)
    for count in (10, 80, 300):
        differences = [rng.choice((-1.0, 0.0, 0.0, 1.0, 1.0)) for _ in range(count)]
        one, two = compared(differences), compared([-d for d in differences])
        assert (one.p_value <= 0.05) == (not one.ci[0] <= 0 <= one.ci[1])
        assert one.ci == pytest.approx((-two.ci[1], -two.ci[0]))
        assert one.e_value == pytest.approx(two.e_value)


def test_evidence_that_was_there_stays() -> None:
    strong = [1.0] * 30
    later = compared([*strong, *[-0.3] * 20])
    assert later.p_value <= compared(strong).p_value
    assert later.e_value < compared(strong).e_value


def test_each_outcome_is_paired_with_the_latest_of_the_other_arm_and_later_ones_change_nothing() -> None:
    outcomes = [(0, 0.1), (0, 0.2), (1, 1.0), (0, 0.3), (1, 0.5), (1, 0.6), (1, 0.7), (0, 0.0)]
    assert paired(outcomes) == pytest.approx([0.8, 0.2, 0.5, 0.7])
    assert all(paired(outcomes)[: len(paired(outcomes[:seen]))] == paired(outcomes[:seen]) for seen in range(8))


def test_of_a_surplus_the_latest_wait() -> None:
    surplus = [(0, n / 1000) for n in range(500)]
    assert paired([*surplus, *[(1, 1.0)] * 500]) == pytest.approx([1 - n / 1000 for n in range(499, 499 - WAITING, -1)])


def test_nothing_is_paired_of_nothing() -> None:
    empty = compared([])
    assert (empty.pairs, empty.diff, empty.ci, empty.p_value) == (0, None, (-1.0, 1.0), 1.0)


@pytest.mark.parametrize("wrong", [[2.0], [math.nan], [[0.1]]])
def test_what_is_no_difference_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="flat list"):
        compared(wrong)
