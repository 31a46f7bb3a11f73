"""The A/B test: looked at after every outcome, it errs in at most a twentieth of all cases, and sees what is there."""

import math
import random

import numpy as np
import pytest

from agent.scoring.anytime import compared, log_wealth, paired

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


def test_equal_graded_arms_as_well() -> None:
    rng = np.random.default_rng(8)
    wrong = sum(bool(log_wealth(rng.beta(2, 1, 400) - rng.beta(2, 1, 400)).max() >= DECIDED) for _ in range(1000))
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
    assert compared([*strong, *[-0.3] * 20]).e_value >= compared(strong).e_value


def test_pairs_are_made_in_the_order_of_the_outcomes_and_the_rest_waits() -> None:
    assert paired([(0, 0.1), (0, 0.2), (1, 1.0), (0, 0.3), (1, 0.5)]) == pytest.approx([0.9, 0.3])
    empty = compared([])
    assert (empty.pairs, empty.diff, empty.ci, empty.p_value) == (0, None, (-1.0, 1.0), 1.0)


@pytest.mark.parametrize("wrong", [[2.0], [math.nan], [[0.1]]])
def test_what_is_no_difference_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="within"):
        compared(wrong)
