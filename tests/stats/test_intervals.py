"""Intervals hold the truth as often as they say, and a test that says "better" is rarely wrong."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from agent.stats import intervals
from agent.stats.changes import moved_test
from agent.stats.intervals import groups_differ, loss_bound, lowest_difference, mean_ci, paired_difference
from agent.stats.paired_tests import counts_test
from agent.stats.power import minimum_detectable_gain, shown, smallest_margin
from tests.cases import each_case

unit = st.floats(0, 1)
binary = st.sampled_from([0.0, 1.0])
binary_pairs = st.lists(st.tuples(binary, binary), min_size=1, max_size=60)
pairs = st.one_of(binary_pairs, st.lists(st.tuples(unit, unit), min_size=1, max_size=25))


def hits(count, n):
    return [1.0] * count + [0.0] * (n - count)


# ---- mean_ci


def test_wilson_interval_equals_scipy():
    for successes, n in [(0, 10), (3, 10), (30, 100), (10, 10)]:
        expected = scipy_stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
        assert mean_ci(hits(successes, n)) == pytest.approx((successes / n, expected.low, expected.high))


def test_few_hits_have_the_poisson_limit():
    assert mean_ci(hits(1, 100))[1] == pytest.approx(-math.log(0.95) / 100)


@each_case("n", [40, 60, 100, 150, 200])
def test_the_interval_of_a_rate_covers_it_for_every_rate(n):
    counts, rates = np.arange(n + 1), np.linspace(0, 0.5, 501)
    low, high = np.array([mean_ci(hits(count, n))[1:] for count in counts]).T
    chances = scipy_stats.binom.pmf(counts[:, None], n, rates)
    covers = (chances * ((low[:, None] <= rates + 1e-12) & (rates - 1e-12 <= high[:, None]))).sum(axis=0)
    assert covers.min() >= 0.91  # Wilson's alone: 0.85
    assert np.mean(covers < 0.93) <= 0.02
    assert 0.945 <= covers.mean() <= 0.965


def test_graded_scores_near_zero_are_covered_where_students_t_is_too_short():
    rng = np.random.default_rng(4)
    world = np.where(rng.random(20_000) < 0.1, rng.random(20_000), 0.0)
    ours = students = 0
    for _ in range(500):
        values = rng.choice(world, 60)
        _, low, high = mean_ci(values)
        ours += low <= world.mean() <= high
        half = scipy_stats.t.ppf(0.975, 59) * values.std(ddof=1) / math.sqrt(60)
        students += abs(values.mean() - world.mean()) <= half
    assert ours / 500 >= 0.91
    assert ours > students + 5


def test_many_graded_scores_in_the_middle_have_students_interval():
    values = np.random.default_rng(5).beta(4, 4, 2000)
    expected = scipy_stats.t.interval(0.9, 1999, loc=values.mean(), scale=scipy_stats.sem(values))
    assert mean_ci(values, 0.9)[1:] == pytest.approx(expected, abs=2e-4)


@given(st.lists(st.one_of(unit, binary), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_and_stays_in_range(values):
    mean, low, high = mean_ci(values)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


@each_case("values", [[], [1.1], [float("nan")], [-0.1]])
def test_values_that_are_no_scores_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        mean_ci(values)
    with pytest.raises(ValueError, match="winner"):
        paired_difference(values, values, 0)


# ---- paired_difference


@each_case("n", [20, 50])
def test_equal_graded_differences_keep_the_width_of_what_so_many_rows_did_not_show(n):
    unseen = scipy_stats.binomtest(0, n).proportion_ci(0.95, "exact").high
    found = paired_difference([0.6] * n, [0.5] * n, 0).ci95
    assert found == pytest.approx((0.1 - unseen * 1.1, 0.1 + unseen * 0.9))
    assert paired_difference([0.6] * 5, [0.5] * 5, 0).ci95 == (-1, 1), (
        "of 32 ways to flip five rows, two are as extreme"
    )


def test_scores_that_are_not_paired_are_refused_also_where_some_are_missing() -> None:
    for compare in (paired_difference, lowest_difference):
        with pytest.raises(ValueError, match="row by row"):
            compare([1.0, 0.0], [1.0], 0)
    with pytest.raises(ValueError, match="winner has 2 scores and baseline 1: pair them row by row"):
        intervals.scored_difference([1.0, None], [0.0], 0)


def table(both, wins, losses, neither):
    rows = [(1.0, 1.0)] * both + [(1.0, 0.0)] * wins + [(0.0, 1.0)] * losses + [(0.0, 0.0)] * neither
    return [row[0] for row in rows], [row[1] for row in rows]


def test_the_paired_interval_equals_the_published_example():
    # Bentur et al. 2009 in Fagerland, Lydersen & Laake 2014 (Statistics in Medicine 33:2850), Tango's: -0.517 to -0.026
    assert intervals._tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    result = paired_difference(*table(1, 1, 7, 12), 0)
    assert result.diff == pytest.approx(-6 / 21)
    assert result.ci95[0] < -0.517
    assert result.ci95[1] > 0, "the exact test does not reject, where Tango's interval ends below 0"
    assert (result.wins, result.losses, result.ties, result.n) == (1, 7, 13, 21)
    assert result.p_value == pytest.approx(0.0703125), "the binomial tail of 1 in 8, twice"
    assert paired_difference(*table(20, 0, 0, 20), 0).p_value == 1.0


tenths = st.integers(0, 10).map(lambda part: part / 10)
uneven = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 40)).map(
    lambda counts: [(1.0, 0.3)] * counts[0] + [(0.2, 0.6)] * counts[1] + [(0.5, 0.5)] * counts[2]
)
any_pairs = st.one_of(binary_pairs, pairs, st.lists(st.tuples(tenths, tenths), min_size=1, max_size=30), uneven)


@settings(deadline=None)
@given(any_pairs, st.integers(0, 5))
def test_the_interval_excludes_0_exactly_when_significant(rows, seed):
    result = paired_difference([row[0] for row in rows], [row[1] for row in rows], seed)
    low, high = result.ci95
    assert low - 1e-9 <= result.diff <= high + 1e-9
    assert (result.p_value < 0.05) == (low > 0 or high < 0)
    assert shown(result.ci95, result.p_value) == (result.p_value < 0.05) * math.copysign(1, result.diff)


@each_case(("wins", "losses"), [(4, 0), (5, 0), (7, 1), (10, 2)])
def test_no_interval_above_0_is_called_not_significant(wins, losses):
    result = paired_difference(*table(0, wins, losses, 6), 0)
    assert result.p_value >= 0.05 or result.ci95[0] > 0
    assert result.p_value < 0.05 or result.ci95[0] <= 0


samples = st.lists(tenths, min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(samples, samples), min_size=1, max_size=15))
def test_scores_that_moved_have_the_interval_of_their_test(rows):
    test = moved_test(rows, 0, draws=2000)
    low, high = test.interval
    assert (test.p_value < 0.05) == (low > 0 or high < 0)


@each_case(
    ("ci95", "p_value", "found"),
    [
        *(((0.01, 0.2), 0.049, 1), ((-0.2, -0.01), 0.049, -1), ((0.01, 0.2), 0.05, 0)),
        *(((0.0, 0.2), 0.001, 0), ((-0.2, 0.0), 0.001, 0), ((-0.1, 0.2), 0.001, 0)),
    ],
)
def test_a_difference_is_shown_by_a_p_value_below_5_percent_and_an_interval_without_zero(ci95, p_value, found):
    assert shown(ci95, p_value) == found


CELLS = [  # both, wins, losses, neither
    (0.0, 0.1, 0.0, 0.9),
    (0.0, 0.6, 0.0, 0.4),
    (0.01, 0.03, 0.01, 0.95),
    (0.25, 0.25, 0.25, 0.25),
    (0.45, 0.15, 0.05, 0.35),
    (0.47, 0.03, 0.03, 0.47),
    (0.9, 0.06, 0.02, 0.02),
    (0.97, 0.01, 0.01, 0.01),
    (0.25, 0.45, 0.05, 0.25),
]


@each_case("cells", CELLS)
@each_case("n", [40, 120])
def test_the_paired_interval_covers_the_truth_and_is_not_wasteful(cells, n):
    draws = np.random.default_rng(11).multinomial(n, cells, size=1500)[:, 1:3]
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    truth, covered, exactly, width = cells[1] - cells[2], 0, 0, 0.0
    for kind, count in zip(kinds, counts, strict=True):
        low, high = intervals._tango(*map(int, kind), n)
        covered += int(count) * (low - 1e-12 <= truth <= high + 1e-12)
        width += int(count) * (high - low)
        low, high = counts_test(*map(int, kind), n).interval
        exactly += int(count) * (low - 1e-12 <= truth <= high + 1e-12)
    assert covered / 1500 >= 0.93
    assert exactly / 1500 >= 0.945
    if n * (cells[1] + cells[2]) > 10:
        assert covered / 1500 <= 0.985
        assert width / 1500 <= 2 * 1.96 * math.sqrt((cells[1] + cells[2] - truth**2) / n) * 1.15


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


def test_drawn_sign_flips_never_have_p_of_0():
    winner, baseline = np.linspace(0.8, 0.9, 40), np.linspace(0.1, 0.3, 40)
    assert paired_difference(winner, baseline, 5).p_value == 1 / 20_001


def test_the_graded_interval_is_the_union_of_its_tests():
    rng = np.random.default_rng(6)
    differences = rng.beta(1, 8, 60)  # skewed: the one is wider on the left, the other on the right
    bootstrap = scipy_stats.bootstrap(
        (differences,), np.mean, n_resamples=10_000, rng=np.random.default_rng(2)
    ).confidence_interval
    student = scipy_stats.t.interval(0.95, 59, loc=differences.mean(), scale=scipy_stats.sem(differences))
    assert student[0] < bootstrap.low
    assert student[1] < bootstrap.high
    assert paired_difference(differences, [0.0] * 60, 6).ci95 == pytest.approx((student[0], bootstrap.high), abs=0.002)
    few = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert paired_difference(few, [0.0] * 5, 6).ci95 == (-1, 1), "no five rows can show a gain to the sign flips"


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
    first, second = rng.random((1000, n)) < rate + gain, rng.random((1000, n)) < rate
    ups, downs = (first & ~second).sum(axis=1), (~first & second).sum(axis=1)
    found = scipy_stats.binom.cdf(np.minimum(ups, downs), ups + downs, 0.5) <= 0.025
    assert 0.7 <= np.mean(found) <= 0.87


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


# ---- groups_differ


def test_groups_that_differ_have_the_p_value_of_all_permutations():
    """Of 20 ways to deal six rows to two groups of three, two are as far apart as these."""
    assert groups_differ([[0.0] * 3, [1.0] * 3], 0) == pytest.approx(0.1, abs=0.015)
    assert groups_differ([[1.0, 0.0], [0.0, 1.0]], 0) == 1.0
    assert groups_differ([[0.0] * 20, [0.5] * 20, [1.0] * 20], 0) == pytest.approx(1 / 5001)


@given(st.lists(st.integers(0, 20).map(lambda part: part / 20), min_size=1, max_size=40))
def test_turning_the_scores_around_turns_the_interval_around(values):
    mean, low, high = mean_ci(values)
    assert mean_ci([1 - value for value in values]) == pytest.approx((1 - mean, 1 - high, 1 - low), abs=1e-6)


@given(st.integers(0, 60), st.integers(1, 60))
def test_more_hits_never_lower_a_limit(count, n):
    below, above = mean_ci(hits(min(count, n - 1), n)), mean_ci(hits(min(count, n - 1) + 1, n))
    assert all(one <= other for one, other in zip(below, above, strict=True))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_a_tie_turned_into_a_win_raises_the_interval(wins, losses, ties):
    before, after = (paired_difference(*table(0, wins + more, losses, ties - more), 0).ci95 for more in (0, 1))
    assert after[0] >= before[0] - 1e-9
    assert after[1] >= before[1] - 1e-9
