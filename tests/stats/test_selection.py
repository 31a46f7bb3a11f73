"""The winner's corrected dev score is right on average, whatever way the winner was found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.stats.selection import selection_corrected
from tests.bench.arena.replay_stats import HALVING, curse, synthetic

unit = st.floats(0, 1)
tables = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(unit, min_size=n, max_size=n), st.lists(st.lists(unit, min_size=1, max_size=n), max_size=4)
    )
)


@pytest.mark.parametrize("rungs", [(), HALVING], ids=["all", "halving"])
@pytest.mark.parametrize("equal", [False, True], ids=["unequal", "equal"])
def test_the_corrected_score_is_right_on_average_where_the_raw_one_is_too_high(rungs, equal):
    raw, corrected, spread = curse(synthetic(), 250, 80, rungs, equal)  # 0.5 points: the error of such a mean
    assert raw > 3
    assert abs(corrected) < 1.8
    assert spread < 12


def test_early_rows_that_decided_who_runs_do_not_flatter_the_winner():
    # equal candidates, cut on 8 rows: a correction that sees only those that ran on is 2 points too high
    _, corrected, _ = curse(synthetic(), 250, 40, ((8, 2),), equal=True)
    assert abs(corrected) < 2
    rng = np.random.default_rng(1)
    blind = []
    for seed in range(250):
        scores = (rng.random((60, 40)) < 0.5).astype(float)
        on = scores[np.argsort(-scores[:, :8].mean(axis=1))[:2]]
        blind.append(selection_corrected(on.tolist(), int(on.mean(axis=1).argmax()), seed))
    assert np.mean(blind) - 0.5 > 0.05


def test_a_winner_far_ahead_keeps_its_mean():
    rng = np.random.default_rng(32)
    outcomes = [(rng.random(100) < rate).astype(float).tolist() for rate in (0.3, 0.35, 0.9)]
    assert selection_corrected(outcomes, 2, 0) == pytest.approx(np.mean(outcomes[2]))


def test_a_winner_that_ran_on_alone_is_scored_on_the_rows_that_did_not_choose_it():
    assert selection_corrected([[1.0] * 4 + [0.5] * 6, [0.0] * 4], 0, 0) == pytest.approx(0.5)


def test_one_candidate_alone_was_not_chosen():
    assert selection_corrected([[1.0, 0.0, 1.0, 1.0]], 0, 0) == 0.75


@settings(max_examples=60, deadline=None)
@given(tables, st.integers(0, 3))
def test_the_corrected_score_is_seeded_and_in_range(table, seed):
    first, others = table
    corrected = selection_corrected([first, *others], 0, seed)
    assert 0 <= corrected <= 1
    assert corrected == selection_corrected([first, *others], 0, seed)


@settings(max_examples=60, deadline=None)
@given(st.lists(unit, min_size=2, max_size=12), st.integers(1, 5), st.integers(0, 3))
def test_copies_of_the_winner_change_nothing(row, copies, seed):
    assert selection_corrected([row] * (copies + 1), 0, seed) == pytest.approx(np.mean(row))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(unit, min_size=10, max_size=10), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(rows, random):
    order = random.sample(range(len(rows)), len(rows))
    moved = [rows[place] for place in order]
    assert selection_corrected(moved, order.index(0), 1) == pytest.approx(selection_corrected(rows, 0, 1), abs=1e-6)


def test_a_winner_that_is_unknown_or_did_not_see_all_rows_is_refused():
    for outcomes, winner in ([[[1.0], [1.0, 0.0]], 0], [[[1.0]], 1], [[], 0], [[[]], 0], [[[1.2]], 0]):
        with pytest.raises(ValueError, match="outcomes"):
            selection_corrected(outcomes, winner, 0)
