"""The race never looks away: the best is lost at most as rarely as stated, and losers are found early."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scoring.stats import PairedRace, betting_e_value
from tests.bench.arena.replay_stats import raced, racing, spaced, synthetic

score = st.sampled_from([0.0, 0.5, 1.0])
fields = st.lists(st.lists(st.one_of(st.none(), score), max_size=30), max_size=6)


def test_wealth_equals_the_hand_computed_mixture():
    bets = [0.05 + 0.1 * step for step in range(10)]
    expected = sum(bet * (1 + bet) * (1 + bet / 2) for bet in bets) / sum(bets)
    assert betting_e_value([-1.0, -0.5]) == pytest.approx(expected)
    assert betting_e_value([1.0, 1.0]) == 1.0
    assert betting_e_value([]) == 1.0


@given(st.lists(st.floats(-1, 1), max_size=60))
def test_wealth_is_at_least_one_and_never_falls(differences):
    wealth = betting_e_value(differences)
    assert wealth >= 1
    assert wealth >= betting_e_value(differences[:-1]) - 1e-9


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.data())
def test_losing_a_row_by_more_never_lowers_the_wealth(differences, data):
    place = data.draw(st.integers(0, len(differences) - 1))
    worse = [*differences[:place], -1.0, *differences[place + 1 :]]
    assert betting_e_value(worse) >= betting_e_value(differences) - 1e-9


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=60))
def test_rows_on_which_both_score_the_same_tell_nothing(differences):
    assert betting_e_value(differences) == pytest.approx(betting_e_value([d for d in differences if d]))


@pytest.mark.parametrize("differences", [[1.5], [float("nan")], [float("inf")]])
def test_differences_outside_the_bound_are_refused(differences):
    with pytest.raises(ValueError, match="within"):
        betting_e_value(differences)


def test_a_long_losing_streak_stays_finite():
    assert math.isfinite(betting_e_value([-1.0] * 5000))


def test_an_equal_candidate_is_rarely_pruned_under_looks_at_every_row():
    alpha = 0.1
    rng = np.random.default_rng(21)
    challengers, leaders = (rng.random((600, 2, 150)) < 0.7).astype(float).transpose(1, 0, 2)
    race = PairedRace(1, alpha)  # prunes() takes the largest wealth over all prefixes: a look after every row
    pruned = sum(race.prunes(one, other) for one, other in zip(challengers, leaders, strict=True))
    assert pruned / 600 <= alpha


def test_the_best_of_many_survives_a_leader_chosen_from_the_same_rows():
    alpha, candidates = 0.2, 8
    race = PairedRace(candidates, alpha)
    rng = np.random.default_rng(22)
    lost = 0
    for _ in range(200):
        scores = (rng.random((candidates, 80)) < 0.6).astype(float)  # all equal: any may count as the best
        looks = [scores[:, :seen] for seen in (10, 20, 40, 80)]
        lost += any(race.prunes(look[0], look[look.mean(axis=1).argmax()]) for look in looks)
    assert lost / 200 <= alpha


def test_a_clearly_worse_candidate_is_pruned_before_the_end():
    rng = np.random.default_rng(23)
    leader, challenger = (rng.random(100) < 0.85).astype(float), (rng.random(100) < 0.35).astype(float)
    assert PairedRace(20, 0.05).prunes(challenger, leader)
    assert not PairedRace(20, 0.05).prunes(leader, challenger)


@pytest.mark.parametrize(("candidates", "alpha"), [(0, 0.1), (3, 0.0), (3, 1.0)])
def test_a_race_without_runners_or_error_rate_is_refused(candidates, alpha):
    with pytest.raises(ValueError, match="candidates"):
        PairedRace(candidates, alpha)


# ---- a whole field


@given(fields)
def test_only_those_that_still_run_are_judged_and_the_best_of_them_stays(scores):
    out = PairedRace(6).behind(scores)
    rows = max(map(len, scores), default=0)
    assert all(len(scores[place]) == rows for place in out)
    assert out == sorted(set(out))
    if rows:
        assert set(out) < {place for place, row in enumerate(scores) if len(row) == rows}


@given(st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_field_does_not_matter(size, random):
    scores = [[float(random.random() < rate) for _ in range(40)] for rate in (0.95, 0.5, 0.2, 0.1, 0.05)[:size]]
    order = random.sample(range(size), size)
    shuffled = PairedRace(size).behind([scores[place] for place in order])
    assert sorted(order[place] for place in shuffled) == PairedRace(size).behind(scores)


def test_a_pair_is_judged_as_by_the_pairwise_bet_without_its_price():
    rng = np.random.default_rng(3)
    for _ in range(50):
        good, bad = (rng.random(40) < 0.9).astype(float), (rng.random(40) < 0.5).astype(float)
        assert (1 in PairedRace(2).behind([good, bad])) == PairedRace(1).prunes(bad, good)


def test_a_row_that_was_not_scored_moves_nothing():
    good, bad = [1.0] * 12, [0.0] * 12
    assert PairedRace(2).behind([good, bad]) == [1]
    assert PairedRace(2).behind([good, [None] * 10 + bad[:2]]) == []
    assert PairedRace(2).behind([[None] * 10 + good[:2], bad]) == []


def test_who_left_still_counts_for_the_rows_that_it_saw():
    fast, loser, other = [1.0] * 8, [0.0] * 12, [1.0] * 4 + [0.0] * 8
    assert PairedRace(3).behind([fast, loser, other]) == [1]
    assert PairedRace(3).behind([loser, other]) == []


def test_nobody_is_out_of_nothing_and_scores_out_of_range_are_refused():
    assert PairedRace(1).behind([]) == PairedRace(1).behind([[], []]) == []
    with pytest.raises(ValueError, match="scores"):
        PairedRace(2).behind([[1.5], [0.0]])


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


def test_the_field_is_judged_with_fewer_rows_than_its_pairs():
    field, race = spaced(synthetic(1, spread=0.3)), PairedRace(8)
    fewer = 0
    for seed in range(10):
        scores, _ = field.drawn(np.random.default_rng(seed), 8, 100)
        leader = scores[scores.mean(axis=1).argmax()]
        pairwise = [next((n for n in range(8, 100, 8) if race.prunes(row[:n], leader[:n])), 100) for row in scores]
        fewer += raced(scores, race).sum() < sum(pairwise)
    assert fewer >= 8
