import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from agent.scoring.stats import (
    PairedRace,
    _newcombe,
    betting_e_value,
    mean_ci,
    minimum_detectable_gain,
    paired_difference,
    selection_corrected,
)

unit = st.floats(0, 1)
binary = st.sampled_from([0.0, 1.0])
pairs = st.one_of(
    st.lists(st.tuples(binary, binary), min_size=1, max_size=60),
    st.lists(st.tuples(unit, unit), min_size=1, max_size=25),
)


# ---- mean_ci


def test_wilson_interval_equals_scipy():
    for successes, n in [(0, 10), (3, 10), (97, 100), (10, 10)]:
        expected = scipy_stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
        values = [1.0] * successes + [0.0] * (n - successes)
        assert mean_ci(values) == pytest.approx((successes / n, expected.low, expected.high))


def test_student_interval_equals_scipy():
    values = [0.2, 0.5, 0.55, 0.7, 0.4]
    expected = scipy_stats.t.interval(0.9, 4, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert mean_ci(values, 0.9) == pytest.approx((np.mean(values), *expected))


def test_one_value_says_nothing_about_the_mean():
    assert mean_ci([0.4]) == (0.4, 0.0, 1.0)


def test_equal_graded_values_still_have_a_width():
    mean, low, high = mean_ci([0.5] * 10)
    assert low < mean < high


@given(st.lists(st.one_of(unit, binary), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_and_stays_in_range(values):
    mean, low, high = mean_ci(values)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


@pytest.mark.parametrize("values", [[], [1.1], [float("nan")], [-0.1]])
def test_values_that_are_no_scores_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        mean_ci(values)
    with pytest.raises(ValueError, match="winner"):
        paired_difference(values, values, 0)


# ---- paired_difference


def table(both, wins, losses, neither):
    rows = [(1.0, 1.0)] * both + [(1.0, 0.0)] * wins + [(0.0, 1.0)] * losses + [(0.0, 0.0)] * neither
    return [row[0] for row in rows], [row[1] for row in rows]


def test_newcombe_interval_equals_the_published_example():
    # Bentur et al. 2009 in Fagerland, Lydersen & Laake 2014 (Statistics in Medicine 33:2850): -0.507 to -0.026
    result = paired_difference(*table(1, 1, 7, 12), 0)
    assert result.diff == pytest.approx(-6 / 21)
    assert result.ci95 == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert (result.wins, result.losses, result.ties, result.n) == (1, 7, 13, 21)
    assert result.p_value == pytest.approx(0.0703125)


def test_exact_mcnemar_equals_the_binomial_tail():
    assert paired_difference(*table(20, 9, 2, 20), 0).p_value == pytest.approx(scipy_stats.binomtest(9, 11, 0.5).pvalue)
    assert paired_difference(*table(20, 0, 0, 20), 0).p_value == 1.0


def test_equal_perfect_prompts_keep_a_width():
    low, high = paired_difference([1.0] * 30, [1.0] * 30, 0).ci95
    assert low < 0 < high


def test_exact_sign_flips_equal_full_enumeration():
    winner, baseline = [0.9, 0.4, 0.7, 0.35, 0.8], [0.5, 0.5, 0.1, 0.3, 0.25]
    differences = np.subtract(winner, baseline)
    seen = abs(differences.sum())
    flips = [abs(np.dot(signs, differences)) >= seen - 1e-12 for signs in itertools.product([1, -1], repeat=5)]
    assert paired_difference(winner, baseline, 3).p_value == pytest.approx(np.mean(flips))


def test_drawn_sign_flips_agree_with_scipy():
    rng = np.random.default_rng(5)
    winner, baseline = rng.random(40), rng.random(40) * 0.8
    expected = scipy_stats.permutation_test(
        (winner - baseline,), np.mean, permutation_type="samples", n_resamples=200_000, rng=np.random.default_rng(1)
    ).pvalue
    assert paired_difference(winner, baseline, 5).p_value == pytest.approx(expected, abs=0.015)


def test_bootstrap_interval_agrees_with_scipy_bca():
    rng = np.random.default_rng(6)
    winner, baseline = rng.beta(5, 1, 60), rng.beta(4, 1, 60)
    expected = scipy_stats.bootstrap(
        (winner - baseline,), np.mean, n_resamples=10_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert paired_difference(winner, baseline, 6).ci95 == pytest.approx(expected, abs=0.01)


def test_equal_graded_differences_keep_a_width_that_shrinks_with_rows():
    widths = []
    for n in (5, 50):
        low, high = paired_difference([0.6] * n, [0.5] * n, 0).ci95
        assert -1 <= low < 0.1 < high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0]


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 5))
def test_swapping_winner_and_baseline_flips_everything(rows, seed):
    winner, baseline = [row[0] for row in rows], [row[1] for row in rows]
    one, other = paired_difference(winner, baseline, seed), paired_difference(baseline, winner, seed)
    assert one.diff == pytest.approx(-other.diff)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-3)
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)
    assert one.p_value == pytest.approx(other.p_value)
    assert 0 < one.p_value <= 1
    assert one.ci95[0] >= -1 - 1e-9
    assert one.ci95[1] <= 1 + 1e-9
    assert one.wins + one.losses + one.ties == one.n == len(rows)


def test_the_same_seed_gives_the_same_result():
    rng = np.random.default_rng(0)
    winner, baseline = rng.random(30), rng.random(30)
    assert paired_difference(winner, baseline, 9) == paired_difference(winner, baseline, 9)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="row by row"):
        paired_difference([1.0], [1.0, 0.0], 0)


@pytest.mark.parametrize("cells", [(0.5, 0.2, 0.1, 0.2), (0.9, 0.06, 0.02, 0.02), (0.97, 0.01, 0.01, 0.01)])
def test_paired_interval_covers_the_truth_at_least_92_percent_of_the_time(cells):
    draws = np.random.default_rng(11).multinomial(60, cells, size=2000)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    truth = cells[1] - cells[2]
    covered = 0
    for kind, count in zip(kinds, counts, strict=True):
        low, high = _newcombe(*(int(cell) for cell in kind))
        covered += int(count) * (low <= truth <= high)
    assert covered / 2000 >= 0.92


def test_graded_interval_covers_the_truth():
    rng = np.random.default_rng(12)
    covered = 0
    for seed in range(300):
        difference = paired_difference(rng.beta(4, 2, 30), rng.beta(3, 2, 30), seed)
        covered += difference.ci95[0] <= 4 / 6 - 3 / 5 <= difference.ci95[1]
    assert covered / 300 >= 0.9


# ---- minimum_detectable_gain


def test_the_detectable_gain_shrinks_with_rows_and_grows_with_power():
    gains = [minimum_detectable_gain(n, 0.7) for n in (50, 100, 300, 1000)]
    assert gains == sorted(gains, reverse=True)
    assert minimum_detectable_gain(100, 0.7, power=0.9) > gains[1]


def test_no_gain_is_detectable_without_room_or_rows():
    assert minimum_detectable_gain(1000, 1.0) == math.inf
    assert minimum_detectable_gain(5, 0.1) == math.inf


def test_the_detectable_gain_is_found_with_about_the_stated_power():
    n, rate = 150, 0.6
    gain = minimum_detectable_gain(n, rate)
    rng = np.random.default_rng(3)
    wins = (rng.random((2000, n)) < rate + gain, rng.random((2000, n)) < rate)
    ups, downs = (wins[0] & ~wins[1]).sum(axis=1), (~wins[0] & wins[1]).sum(axis=1)
    found = [scipy_stats.binomtest(int(up), int(up + down)).pvalue <= 0.05 for up, down in zip(ups, downs, strict=True)]
    assert 0.72 <= np.mean(found) <= 0.86


# ---- racing


def test_wealth_equals_the_hand_computed_mixture():
    bets = [0.05 + 0.1 * step for step in range(10)]
    assert betting_e_value([-1.0, -0.5]) == pytest.approx(np.mean([(1 + bet) * (1 + bet / 2) for bet in bets]))
    assert betting_e_value([1.0, 1.0]) == 1.0
    assert betting_e_value([]) == 1.0


@given(st.lists(st.floats(-1, 1), max_size=60))
def test_wealth_is_at_least_one_never_falls_and_mirrors(differences):
    wealth = betting_e_value(differences)
    assert wealth >= 1
    assert wealth >= betting_e_value(differences[:-1]) - 1e-9
    assert wealth == pytest.approx(betting_e_value([-d for d in differences], "greater"))
    assert wealth == pytest.approx(betting_e_value([2 * d for d in differences], bound=2.0))


@pytest.mark.parametrize("differences", [[1.5], [float("nan")], [float("inf")]])
def test_differences_outside_the_bound_are_refused(differences):
    with pytest.raises(ValueError, match="within"):
        betting_e_value(differences)


def test_a_long_losing_streak_stays_finite():
    assert math.isfinite(betting_e_value([-1.0] * 5000))


def test_an_equal_candidate_is_rarely_pruned_under_looks_at_every_row():
    alpha = 0.1
    rng = np.random.default_rng(21)
    challengers, leaders = (rng.random((2000, 2, 150)) < 0.7).astype(float).transpose(1, 0, 2)
    race = PairedRace(1, alpha)  # prunes() takes the largest wealth over all prefixes: a look after every row
    pruned = sum(race.prunes(one, other) for one, other in zip(challengers, leaders, strict=True))
    assert pruned / 2000 <= alpha


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


# ---- the winner's curse


def test_correction_removes_most_of_the_curse_among_equal_candidates():
    rng = np.random.default_rng(31)
    naive, corrected = [], []
    for seed in range(40):
        outcomes = (rng.random((20, 60)) < 0.6).astype(float)
        winner = int(outcomes.mean(axis=1).argmax())
        naive.append(outcomes[winner].mean())
        corrected.append(selection_corrected(outcomes.tolist(), winner, seed))
    assert np.mean(naive) > 0.68
    assert abs(np.mean(corrected) - 0.6) < 0.03


def test_a_winner_far_ahead_is_hardly_corrected():
    rng = np.random.default_rng(32)
    outcomes = [(rng.random(100) < rate).astype(float).tolist() for rate in (0.3, 0.35, 0.9)]
    assert selection_corrected(outcomes, 2, 0) == pytest.approx(np.mean(outcomes[2]), abs=0.005)


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 3), st.data())
@settings(max_examples=25, deadline=None)
def test_the_corrected_score_is_seeded_in_range_and_at_most_the_winners_own(candidates, n, seed, data):
    outcomes = data.draw(st.lists(st.lists(unit, min_size=n, max_size=n), min_size=candidates, max_size=candidates))
    winner = int(np.argmax([np.mean(row) for row in outcomes]))
    corrected = selection_corrected(outcomes, winner, seed)
    assert 0 <= corrected <= np.mean(outcomes[winner]) + 1e-9
    assert corrected == selection_corrected(outcomes, winner, seed)


def test_ragged_outcomes_and_unknown_winners_are_refused():
    for outcomes, winner in ([[[1.0], [1.0, 0.0]], 0], [[[1.0]], 1], [[], 0]):
        with pytest.raises(ValueError, match="outcomes"):
            selection_corrected(outcomes, winner, 0)


def test_the_paired_test_on_a_thousand_graded_rows_is_quick():
    rng = np.random.default_rng(0)
    started = time.monotonic()
    paired_difference(rng.random(1000), rng.random(1000), 0)
    assert time.monotonic() - started < 5
