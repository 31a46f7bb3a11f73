"""A loss is ruled out as often as is said, never more: simulated rows of two prompts that differ by just the margin."""

from __future__ import annotations

import random

import pytest

from agent.stats.intervals import loss_bound, lowest_difference, paired_difference, smallest_margin


def rows(count: int, loss: float, differ: float, rng: random.Random) -> tuple[list[float], list[float]]:
    """Paired 0/1 scores: of `differ` rows the two are not alike, and the first loses `loss` on average."""
    one, two = [], []
    for _ in range(count):
        draw = rng.random()
        first = draw < (differ - loss) / 2
        second = not first and draw < differ
        both = draw > 0.5
        one.append(float(first or (not second and both)))
        two.append(float(second or (not first and both)))
    return one, two


@pytest.mark.parametrize(("count", "differ"), [(60, 0.2), (120, 0.3)])
def test_a_loss_of_the_margin_is_ruled_out_in_one_of_twenty_at_most(count: int, differ: float) -> None:
    rng, wrong, times = random.Random(7), 0, 1500
    for _ in range(times):
        one, two = rows(count, 0.1, differ, rng)
        bound = loss_bound(one, two, 0.1, seed=0)
        assert bound is not None
        wrong += bound.shown
    assert wrong / times < 0.07


def test_prompts_of_one_quality_pass_as_often_as_the_rule_of_thumb_says() -> None:
    rng, passed, times = random.Random(3), 0, 400
    margin = smallest_margin(200, differ=0.2)
    for _ in range(times):
        one, two = rows(200, 0.0, 0.2, rng)
        bound = loss_bound(one, two, margin, seed=0)
        passed += bound is not None and bound.shown
    assert 0.4 < passed / times < 0.65, "at this margin about half of them do"


def test_a_lost_answer_is_a_loss_and_a_row_without_a_reference_says_nothing() -> None:
    bound = loss_bound([1.0, None, 1.0, 1.0], [1.0, 1.0, None, 1.0], 0.05, seed=0)
    assert bound is not None
    assert (bound.n, bound.diff) == (3, pytest.approx(-1 / 3))
    assert loss_bound([1.0], [None], 0.05, seed=0) is None


def test_graded_scores_have_the_limit_of_their_interval_at_the_level_of_one_side() -> None:
    rng = random.Random(1)
    one = [rng.random() for _ in range(60)]
    two = [min(1.0, max(0.0, score + rng.uniform(-0.2, 0.1))) for score in one]
    whole = paired_difference(one, two, seed=4)
    low = lowest_difference(one, two, 4)
    assert whole.ci95[0] < low < whole.diff
    assert lowest_difference(one, two, 4, 0.975) == pytest.approx(whole.ci95[0])


def test_scores_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="pair them"):
        lowest_difference([1.0, 0.0], [1.0], 0)
