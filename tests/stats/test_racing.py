"""The race never looks away: the best is lost at most as rarely as stated, and losers are found early."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.stats.racing import adjusted_means, behind, largest_wealth
from tests.bench.arena.replay_stats import racing, spaced, synthetic

score = st.sampled_from([0.0, 0.5, 1.0])
fields = st.lists(st.lists(st.one_of(st.none(), score), max_size=30), max_size=6)


def wealth_of(differences):
    """Of one who bets that the mean of these is below 0."""
    return float(largest_wealth(-np.array(differences, dtype=float)[None, :])[0])


def test_wealth_equals_the_hand_computed_mixture():
    bets = [0.05 + 0.1 * step for step in range(10)]
    expected = sum(bet * (1 + bet) * (1 + bet / 2) for bet in bets) / sum(bets)
    assert wealth_of([-1.0, -0.5]) == pytest.approx(expected)
    assert wealth_of([1.0, 1.0]) == 1.0
    assert wealth_of([]) == 1.0


@given(st.lists(st.floats(-1, 1), max_size=60), st.integers(0, 60))
def test_wealth_is_at_least_one_never_falls_and_grows_with_the_losses(differences, place):
    wealth = wealth_of(differences)
    assert wealth >= 1
    assert wealth >= wealth_of(differences[:-1]) - 1e-9
    assert wealth == pytest.approx(wealth_of([*differences[:place], 0.0, *differences[place:]])), "a tie tells nothing"
    assert wealth_of([*differences[:place], -1.0, *differences[place + 1 :]]) >= wealth - 1e-9


# ---- a whole field


@given(fields)
def test_only_those_that_still_run_are_judged_and_the_best_of_them_stays(scores):
    out = behind(scores)
    rows = max(map(len, scores), default=0)
    assert all(len(scores[place]) == rows for place in out)
    assert out == sorted(set(out))
    if rows:
        assert set(out) < {place for place, row in enumerate(scores) if len(row) == rows}


@given(st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_field_does_not_matter(size, random):
    scores = [[float(random.random() < rate) for _ in range(40)] for rate in (0.95, 0.5, 0.2, 0.1, 0.05)[:size]]
    order = random.sample(range(size), size)
    shuffled = behind([scores[place] for place in order])
    assert sorted(order[place] for place in shuffled) == behind(scores)


def test_a_row_that_was_not_scored_moves_nothing():
    good, bad = [1.0] * 12, [0.0] * 12
    assert behind([good, bad]) == [1]
    assert behind([good, [None] * 10 + bad[:2]]) == []
    assert behind([[None] * 10 + good[:2], bad]) == []


def test_who_left_still_counts_for_the_rows_that_it_saw():
    fast, loser, other = [1.0] * 8, [0.0] * 12, [1.0] * 4 + [0.0] * 8
    assert behind([fast, loser, other]) == [1]
    assert behind([loser, other]) == []


def test_nobody_is_out_of_nothing_and_scores_out_of_range_are_refused():
    assert behind([]) == behind([[], []]) == []
    with pytest.raises(ValueError, match="scores"):
        behind([[1.5], [0.0]])


@pytest.mark.parametrize("candidates", [2, 8, 40])
def test_each_of_many_equal_candidates_stays_with_the_stated_probability(candidates):
    lost, _ = racing(synthetic(), 80, 72, candidates, equal=True)
    assert lost <= 0.05  # for any one of them: 0.03, whatever their number


def test_the_best_stays_and_half_the_calls_are_saved_when_candidates_stand_ten_points_apart():
    field = spaced(synthetic(1, spread=0.3))
    assert len(field.hits) == 8
    lost, saved = racing(field, 30, 120)
    assert lost <= 0.05
    assert saved >= 0.5


SCORES = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=9)


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_on_the_same_rows_they_are_the_means(rows: list[list[float]]) -> None:
    width = min(map(len, rows))
    scores = {str(at): row[:width] for at, row in enumerate(rows)}
    found = adjusted_means(scores)
    assert found == pytest.approx({name: sum(row) / width for name, row in scores.items()}, abs=1e-4)


def test_easy_first_rows_do_not_flatter_the_one_that_saw_no_others() -> None:
    easy, hard = [1.0] * 6, [0.0, 1.0, 0.0, 0.0, 1.0, 0.0] * 5
    others = {f"long-{n}": [*easy, *hard] for n in range(6)}
    found = adjusted_means({"short": [1.0] * 5 + [0.0], **others})
    assert found["short"] < found["long-0"], "it did worse on the rows that all have"
    assert sum(found.values()) / 7 < 0.6


def test_rows_without_a_score_and_candidates_without_any() -> None:
    assert adjusted_means({}) == {}
    assert adjusted_means({"none": [None, None], "empty": []}) == {}
    found = adjusted_means({"one": [1.0, None, 0.0], "other": [None, 1.0]})
    assert set(found) == {"one", "other"}
    assert all(0 <= mean <= 1 for mean in found.values())


@given(st.integers(1, 8), st.integers(1, 60), st.randoms(use_true_random=False))
def test_what_one_wins_does_not_depend_on_who_else_bets(size, rows, random):
    leads = np.array([[random.uniform(-1, 1) for _ in range(rows)] for _ in range(size)])
    some = sorted(random.sample(range(size), random.randint(1, size)))
    assert list(largest_wealth(leads)[some]) == list(largest_wealth(leads[some]))
