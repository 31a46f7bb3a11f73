"""Agreement equals published examples, is nothing where nothing varies, and its intervals hold the truth."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agent.stats import agreement
from agent.stats.agreement import (
    IntervalEstimate,
    alpha,
    categories,
    confusion,
    kappa,
    length_bias,
    mean_share,
    share,
    spearman,
)
from tests.cases import each_case

approx = pytest.approx
unit = st.floats(0, 1)
both = st.lists(st.tuples(unit, unit), min_size=3, max_size=40)
N = None


def scaled(ratings: Sequence[float | None], low: int, high: int) -> list[Any]:
    """Ratings of a scale as values in [0, 1]."""
    return [None if rating is None else (rating - low) / (high - low) for rating in ratings]


def from_table(table: Sequence[Sequence[int]]) -> tuple[list[float], list[float], int]:
    """The ratings behind a table of counts, rows by the first rater, and the number of levels."""
    levels = len(table)
    cells = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i / (levels - 1) for i, _ in cells], [j / (levels - 1) for _, j in cells], levels


def kappa_of(table: Sequence[Sequence[int]], *, weighted: bool) -> float | None:
    one, two, levels = from_table(table)
    return kappa(one, two, levels, weighted=weighted, seed=0).value


def covers(estimate: IntervalEstimate, truth: float) -> bool:
    return estimate.ci95 is not None and estimate.ci95[0] <= truth <= estimate.ci95[1]


# ---- categories


def test_values_become_the_nearest_rating_and_halves_go_towards_the_middle() -> None:
    assert categories([0, 0.12, 0.125, 0.25, 0.5, 0.875, 0.88, 1], 5).tolist() == [0, 0, 1, 1, 2, 3, 4, 4]
    assert (categories(scaled([1.5, 2.5, 3.5, 4.5], 1, 5), 5) + 1).tolist() == [2, 3, 3, 4]
    assert categories([0.25, 0.75], 3).tolist() == [1, 1]


def test_between_the_two_middle_ratings_of_an_even_scale_halves_go_up() -> None:
    assert categories([0, 0.49, 0.5, 1], 2).tolist() == [0, 0, 1, 1]
    assert (categories(scaled([1.5, 2.5, 3.5], 1, 4), 4) + 1).tolist() == [2, 3, 3]


@each_case("levels", [2, 3, 4, 5, 6, 7, 10, 11, 101])
def test_every_rating_comes_back_from_its_value(levels: int) -> None:
    assert categories([rating / (levels - 1) for rating in range(levels)], levels).tolist() == list(range(levels))


@each_case("levels", [2, 3, 4, 5, 6, 7, 10, 11, 101])
def test_the_mean_of_two_neighbouring_ratings_goes_to_the_one_nearer_the_middle_of_every_scale(levels: int) -> None:
    means = [math.fsum([rating / (levels - 1), (rating + 1) / (levels - 1)]) / 2 for rating in range(levels - 1)]
    up = levels // 2  # so many of the means lie in the lower half, or in the middle of an even scale
    assert categories(means, levels).tolist() == [*range(1, up + 1), *range(up, levels - 1)]


odd_scales = st.integers(1, 50).map(lambda half: 2 * half + 1)
on_a_scale = odd_scales.flatmap(
    lambda levels: st.tuples(
        st.just(levels),
        st.lists(unit | st.integers(0, 4 * levels - 4).map(lambda n: n / (4 * levels - 4)), max_size=20),
    )
)


@given(on_a_scale)
def test_turning_a_scale_around_turns_its_categories_around(case: tuple[int, list[float]]) -> None:
    levels, values = case
    turned = categories([1 - value for value in values], levels)
    assert turned.tolist() == (levels - 1 - categories(values, levels)).tolist()


@given(on_a_scale)
def test_turning_pairs_around_turns_the_confusion_table_and_leaves_kappa_as_it_is(
    case: tuple[int, list[float]],
) -> None:
    levels, values = case
    judge, people = values[::2], values[1::2] + values[: len(values) % 2]
    turned = [1 - value for value in judge], [1 - value for value in people]
    assert confusion(*turned, levels) == [row[::-1] for row in confusion(judge, people, levels)[::-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        for weighted in (True, False):
            as_it_is = kappa(judge, people, levels, weighted=weighted, seed=0).value
            assert kappa(*turned, levels, weighted=weighted, seed=0).value == approx(as_it_is)


def test_people_who_lean_to_one_of_two_answers_are_a_tie_whichever_stands_first() -> None:
    judge, people = [1, 0, 1, 0, 0.5], [0.75, 0.25, 1, 0, 0.5]  # 0.75: of two raters one says first, one says tie
    assert confusion(judge, people, 3) == [[1, 0, 0], [1, 1, 1], [0, 0, 1]]


@given(unit, st.integers(2, 101))
def test_a_category_lies_on_the_scale_and_within_half_a_step(value: float, levels: int) -> None:
    (category,) = categories([value], levels)
    assert 0 <= category < levels
    assert abs(category - value * (levels - 1)) <= 0.5 + 1e-6


# ---- shares


def test_the_interval_of_a_steadiness_covers_it_though_an_item_is_asked_again_and_again() -> None:
    """A tenth of the items never say the same twice, the others always; each is asked five times more."""
    missed = {"items": 0, "askings": 0}
    for seed in range(300):
        rng = random.Random(seed)
        items = [float(rng.random() < 0.9) for _ in range(30)]
        for name, found in (("items", mean_share(items)), ("askings", share([bool(item) for item in items] * 5))):
            assert found.ci95 is not None
            missed[name] += not found.ci95[0] <= 0.9 <= found.ci95[1]
    assert missed["items"] <= 0.08 * 300 < missed["askings"]
    assert mean_share([]).value is None


# ---- kappa


@each_case(
    ("table", "value"),
    [
        ([[20, 5], [10, 15]], 0.4),  # Wikipedia, Cohen's kappa, simple example
        ([[45, 15], [25, 15]], 0.1304),  # the same article: equal agreement, other marginals
        ([[25, 35], [5, 35]], 0.2593),
        ([[88, 14, 18], [10, 40, 10], [2, 6, 12]], 0.492),  # Cohen 1968, Psychological Bulletin 70:213, n = 200
        ([[0, 4, 1], [0, 8, 0], [0, 1, 5]], 0.4842),  # SAS PROC FREQ, in the tests of statsmodels' inter_rater
    ],
)
def test_kappa_equals_published_examples(table: list[list[int]], value: float) -> None:
    assert kappa_of(table, weighted=False) == approx(value, abs=5e-4)


def test_kappa_equals_the_examples_of_two_r_packages_without_and_with_quadratic_weights() -> None:
    # psych::cohen.kappa, first example of its manual
    one, two = scaled([1, 2, 3, 4, 5, 6, 7, 8, 9], 1, 9), scaled([1, 3, 1, 6, 1, 5, 5, 6, 7], 1, 9)
    assert kappa(one, two, 9, weighted=False, seed=0).value == approx(0.00, abs=5e-3)
    assert kappa(one, two, 9, weighted=True, seed=0).value == approx(0.68, abs=5e-3)
    # irr::kappa2 on raters 2 and 3 of its data set `anxiety`, in the tests of statsmodels' inter_rater; neither rater
    # gave a 5, which irr leaves out, so that the 6 of the data is a 5 here
    one = scaled([3, 5, 4, 5, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4], 1, 5)
    two = scaled([2, 1, 4, 4, 3, 2, 1, 5, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2], 1, 5)
    assert kappa(one, two, 5, weighted=False, seed=0).value == approx(-0.006289308, abs=1e-8)
    assert kappa(one, two, 5, weighted=True, seed=0).value == approx(0.2520325, abs=1e-7)


def test_quadratic_kappa_is_computed_by_hand() -> None:
    # 6 of 10 equal, 3 one level apart, 1 two levels apart: 3 + 4 = 7 of squared distance
    # by chance, marginals (4, 3, 3) and (3, 4, 3): (4*4 + 3*3 + 3*3 + 3*4 + 4 * (4*3 + 3*3)) / 10 = 13
    assert kappa_of([[2, 1, 1], [1, 2, 0], [0, 1, 2]], weighted=True) == approx(1 - 7 / 13)
    # plain: 0.6 seen, (4*3 + 3*4 + 3*3) / 100 = 0.33 by chance
    assert kappa_of([[2, 1, 1], [1, 2, 0], [0, 1, 2]], weighted=False) == approx((0.6 - 0.33) / (1 - 0.33))


def test_two_levels_weigh_all_disagreement_alike() -> None:
    table = [[20, 5], [10, 15]]
    assert kappa_of(table, weighted=True) == approx(kappa_of(table, weighted=False))


def test_a_near_miss_costs_less_than_a_far_one_only_with_weights() -> None:
    near, far = [[5, 1, 0], [0, 5, 0], [0, 0, 5]], [[5, 0, 1], [0, 5, 0], [0, 0, 5]]
    close, wide = kappa_of(near, weighted=True), kappa_of(far, weighted=True)
    assert close is not None
    assert wide is not None
    assert close > wide + 0.1
    assert kappa_of(near, weighted=False) == approx(kappa_of(far, weighted=False), abs=0.02)


@each_case("weighted", [False, True])
def test_identical_ratings_have_kappa_one(weighted: bool) -> None:
    assert kappa([0, 0.5, 1, 1], [0, 0.5, 1, 1], 5, weighted=weighted, seed=0) == IntervalEstimate(1.0, (1.0, 1.0))


@each_case("weighted", [False, True])
def test_opposite_ratings_have_kappa_below_zero(weighted: bool) -> None:
    assert kappa_of([[0, 10], [10, 0]], weighted=weighted) == approx(-1)


@each_case("weighted", [False, True])
def test_independent_ratings_have_kappa_about_zero(weighted: bool) -> None:
    one, two = np.random.default_rng(1).integers(0, 5, (2, 2000)) / 4
    found = kappa(one, two, 5, weighted=weighted, seed=0)
    assert found.value == approx(0, abs=0.05)
    assert covers(found, 0)


@each_case("value", [0.0, 0.5, 1.0])
def test_without_variation_there_is_no_agreement_to_tell(value: float) -> None:
    nothing, same, other = IntervalEstimate(None, None), [value] * 6, [0, 0.25, 0.5, 0.75, 1, 1]
    assert kappa(same, same, 5, weighted=False, seed=0) == nothing
    assert kappa(same, same, 5, weighted=True, seed=0) == nothing
    assert alpha([same, same], 5, 0) == nothing
    assert spearman(same, other, 0) == spearman(other, same, 0) == nothing


def test_a_judge_that_always_says_the_same_agrees_no_more_than_chance() -> None:
    assert kappa([0.5] * 8, [0, 0.25, 0.5, 0.75] * 2, 5, weighted=False, seed=0).value == approx(0)


@each_case("n", [0, 1, 2])
def test_fewer_than_three_items_say_nothing(n: int) -> None:
    one, two, nothing = [0.0, 1.0][:n], [0.0, 1.0][:n], IntervalEstimate(None, None)
    assert kappa(one, two, 5, weighted=True, seed=0) == nothing
    assert alpha([one, two], 5, 0) == nothing
    assert spearman(one, two, 0) == nothing
    assert length_bias(one, two, [1.0, 9.0][:n], 0) == nothing


# ---- alpha

EXAMPLE = [  # Krippendorff 2011, Computing Krippendorff's alpha-reliability, part C: ordinal 0.815
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


def test_alpha_equals_krippendorffs_example() -> None:
    found = alpha([scaled(row, 1, 5) for row in EXAMPLE], 5, 0)
    assert found.value == approx(0.815, abs=5e-4)
    assert covers(found, 0.815)


# Hayes and Krippendorff 2007, Communication Methods and Measures 1:77, table 1: 40 articles by five observers, 0 to 3
NEWS = """
112.2 1101. 2333. .00.0 000.0 000.0 102.1 1.20. 222.2 2111. .100. 0000. 1222. 33223 111.1 111.1 212.2 1233. 1101. 000.0
0011. 00.00 2333. 0000. 12.22 0111. 00010 1212. 1122. 112.2 110.0 2121. 22.22 3222. 222.2 223.2 222.2 22.12 2222. 111.1
"""


def test_alpha_equals_the_example_of_hayes_and_krippendorff() -> None:
    articles = [[N if mark == "." else int(mark) / 3 for mark in article] for article in NEWS.split()]
    found = alpha(list(zip(*articles, strict=True)), 4, 0)
    assert found.value == approx(0.7598, abs=5e-5)
    assert covers(found, 0.7598)


def test_alpha_equals_krippendorffs_example_of_two_values() -> None:
    # Krippendorff 2004, Content analysis, 11.3.1: two values have one distance, so that nominal is ordinal
    jon, han = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0, 1, 0, 0]
    assert alpha([jon, han], 2, 0).value == approx(0.095, abs=5e-4)


@each_case(
    ("rows", "value"),
    [
        # 3, 2 and 3 of 8 ratings; squared distances (5/2)^2, (5/2)^2 and 5^2; 2 * 25 seen, 2/7 * (37.5 + 37.5 + 225)
        ([[1, 2, 3, 1], [1, 2, 3, 3]], 1 - 50 * 7 / 600),
        # 3, 3 and 2 of 8 ratings; squared distances 3^2, (5/2)^2 and (11/2)^2; 2 * 9 seen, 2/7 * (81 + 37.5 + 181.5)
        ([[1, 2, 3, 1], [1, 2, 3, 2]], 1 - 18 * 7 / 600),
        # 2, 3 and 3 of 8 ratings; squared distances (5/2)^2, 3^2 and (11/2)^2; the first item has six pairs, each worth
        # a half, and four of them are unlike: 2 * 6.25 seen, 2/7 * (37.5 + 81 + 181.5)
        ([[1, 2, 3], [1, N, 3], [2, 2, 3]], 1 - 12.5 * 7 / 600),
    ],
)
def test_alpha_is_computed_by_hand(rows: list[list[float | None]], value: float) -> None:
    assert alpha([scaled(row, 1, 3) for row in rows], 3, 0).value == approx(value)


def alpha_of(rows: Sequence[Sequence[float | None]], levels: int) -> float | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        return alpha([scaled(row, 1, levels) for row in rows], levels, 0).value


marks = st.none() | st.integers(1, 5)
tables = st.tuples(st.integers(1, 4), st.integers(3, 12)).flatmap(
    lambda size: st.lists(st.lists(marks, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])
)


@settings(max_examples=50)
@given(
    tables.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows), st.permutations(range(len(rows[0])))))
)
def test_alpha_does_not_depend_on_the_order_of_raters_or_items(case: Any) -> None:
    rows, raters, items = case
    assert alpha_of(raters, 5) == approx(alpha_of(rows, 5))
    assert alpha_of([[row[at] for at in items] for row in rows], 5) == approx(alpha_of(rows, 5))


@settings(max_examples=50)
@given(tables)
def test_alpha_does_not_depend_on_which_end_of_the_scale_is_the_higher(rows: list[list[int | None]]) -> None:
    turned = [[None if mark is None else 6 - mark for mark in row] for row in rows]
    assert alpha_of(turned, 5) == approx(alpha_of(rows, 5))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 3))), min_size=3, max_size=12))
def test_raters_who_agree_wherever_two_rated_have_alpha_one_or_nothing_to_tell(
    items: list[tuple[int, set[int]]],
) -> None:
    found = alpha_of([[mark if rater in who else None for mark, who in items] for rater in range(4)], 5)
    compared = {mark for mark, who in items if len(who) > 1}
    assert found == (1 if len(compared) > 1 else None)


def test_identical_raters_have_alpha_one() -> None:
    row = [0, 0.25, 0.5, 0.75, 1]
    assert alpha([row, row, row], 5, 0) == IntervalEstimate(1.0, (1.0, 1.0))


def test_only_the_order_of_ratings_counts_for_alpha() -> None:
    rows = [[1, 2, 2, 3, 1, 3, 2, N], [1, 2, 3, 3, 2, 3, N, 1]]
    spread = [[None if mark is None else (1, 2, 9)[mark - 1] for mark in row] for row in rows]
    assert alpha_of(spread, 9) == approx(alpha_of(rows, 3))


def test_independent_raters_have_alpha_about_zero() -> None:
    found = alpha(np.random.default_rng(1).integers(0, 5, (2, 1000)) / 4, 5, 0)
    assert found.value == approx(0, abs=0.08)
    assert covers(found, 0)


def test_items_that_nobody_rated_twice_add_nothing_to_alpha() -> None:
    one, two = [0, 0.25, 0.5, 1, 1], [0, 0.5, 0.5, 1, 0.75]
    more = alpha([[*one, 0, N], [*two, N, 1]], 5, 0)
    assert more.value == approx(alpha([one, two], 5, 0).value)
    assert alpha([[0, 1, 0, N, N, N], [N, N, N, 1, 0, 1]], 5, 0) == IntervalEstimate(None, None)


# ---- spearman, share, length, confusion


def test_spearman_equals_scipy() -> None:
    rng = np.random.default_rng(2)
    one = rng.random(50)
    two = one + rng.normal(0, 0.3, 50)
    assert spearman(one, two, 0).value == approx(stats.spearmanr(one, two).statistic)
    ties = [1, 2, 2, 3, 5, 5], [2, 1, 2, 4, 5, 3]
    assert spearman(*ties, 0).value == approx(stats.spearmanr(*ties).statistic)


def test_spearman_knows_only_ranks() -> None:
    one, two = [0.1, 0.2, 0.5, 0.9], [1, 10, 100, 1000]
    assert spearman(one, two, 0).value == approx(1)
    assert spearman(one, [-value for value in two], 0).value == approx(-1)


def test_a_share_has_wilsons_interval_and_nothing_has_none() -> None:
    expected = stats.binomtest(30, 100).proportion_ci(0.95, "wilson")
    found = share([True] * 30 + [False] * 70)
    assert found.value == approx(0.3)
    assert found.ci95 == approx((expected.low, expected.high))
    assert share([]) == IntervalEstimate(None, None)


def test_an_estimate_is_named_and_put_into_another_unit() -> None:
    assert IntervalEstimate(0.5, (0.25, 0.75)).times(4) == IntervalEstimate(2.0, (1.0, 3.0))
    assert IntervalEstimate(0.5, (0.25, 0.75)).named("kappa") == {"kappa": 0.5, "kappa_ci95": [0.25, 0.75]}
    assert IntervalEstimate(None, None).times(4).named("x") == {"x": None, "x_ci95": None}


def planted(seed: int, bonus: float, n: int = 120) -> tuple[Any, Any, Any]:
    """A judge that rates as people do with noise, and `bonus` points of 5 more for long answers."""
    rng = np.random.default_rng(seed)
    people = rng.integers(1, 5, n)  # 1 to 4: there is room above
    lengths = rng.choice([12, 50], n) + rng.integers(0, 4, n)
    judge = people + rng.choice([-0.5, 0, 0.5], n) + bonus * (lengths > 30)
    return (judge - 1) / 4, (people - 1) / 4, lengths


def test_a_planted_point_for_length_is_found_within_its_interval() -> None:
    found = [length_bias(*planted(seed, 1.0), seed).times(4) for seed in range(40)]
    assert np.mean([covers(estimate, 1.0) for estimate in found]) >= 0.85
    assert all(estimate.ci95 is not None and estimate.ci95[0] > 0.5 for estimate in found)


def test_a_judge_without_a_length_bias_has_none_even_where_longer_answers_are_better() -> None:
    judge, people, lengths = planted(1, 0.0)
    better = (lengths > 30) * 0.25
    assert covers(length_bias(judge + better, people + better, lengths, 0), 0)


def test_length_bias_turns_around_with_the_judge_and_needs_two_lengths() -> None:
    judge, people, lengths = planted(2, 1.0)
    up, down = length_bias(judge, people, lengths, 0), length_bias(people, judge, lengths, 0)
    assert up.value is not None
    assert up.value == approx(-down.value)
    assert length_bias(judge, people, [7] * len(judge), 0) == IntervalEstimate(None, None)


def test_answers_of_the_middle_length_belong_to_neither_half() -> None:
    assert length_bias([0, 1, 0.5], [0, 0, 0], [1, 5, 9], 0).value == approx(0.5)


@each_case("lengths", [[10, 10, 10, 50, 50], [10, 10, 10, 50, 60], [10, 20, 50, 50, 50], [1, 1, 1, 2, 2]])
def test_a_length_that_half_of_the_answers_share_does_not_hide_the_bias(lengths: list[int]) -> None:
    short = [length < sum(lengths) / 5 for length in lengths]
    found = length_bias([0.25 if small else 0.75 for small in short], [0.5] * 5, lengths, 0)
    assert found.value == approx(0.5)
    assert found.ci95 == approx((0.5, 0.5))


@given(st.lists(st.tuples(unit, st.integers(1, 4)), min_size=3, max_size=12))
def test_length_bias_is_told_wherever_there_are_two_lengths(rows: list[tuple[float, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        found = length_bias([value for value, _ in rows], [0.5] * len(rows), [length for _, length in rows], 0)
    assert (found.value is None) == (len({length for _, length in rows}) == 1)
    assert found.value is None or -1 - 1e-9 <= found.value <= 1 + 1e-9


@each_case(("one", "two"), [(3, 4), (4, 3), (1, 9), (0, 1)])
def test_values_that_cannot_be_paired_are_refused(one: int, two: int) -> None:
    few, many = [0.5] * one, [0.5] * two
    for weighted in (True, False):
        with pytest.raises(ValueError, match="pair them item by item"):
            kappa(few, many, 5, weighted=weighted, seed=0)
    with pytest.raises(ValueError, match="pair them item by item"):
        spearman(few, many, 0)
    for judge, people, lengths in ((few, many, few), (few, few, many), (many, few, few)):
        with pytest.raises(ValueError, match="pair them item by item"):
            length_bias(judge, people, lengths, 0)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        confusion(few, many, 5)


def test_the_confusion_table_has_people_in_rows_and_the_judge_in_columns() -> None:
    assert confusion([0, 0.5, 1, 1], [0, 0, 0, 1], 3) == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]


@given(st.lists(st.tuples(unit, unit), max_size=40), st.integers(2, 11))
def test_the_confusion_table_adds_up_to_the_items(rows: list[tuple[float, float]], levels: int) -> None:
    judge, people = [row[0] for row in rows], [row[1] for row in rows]
    table = confusion(judge, people, levels)
    assert [len(row) for row in table] == [levels] * levels
    assert sum(map(sum, table)) == len(rows)
    agreed = sum(table[level][level] for level in range(levels))
    assert agreed == int((categories(judge, levels) == categories(people, levels)).sum())


# ---- intervals


@settings(max_examples=25)
@given(both, st.integers(0, 9))
def test_an_estimate_lies_in_its_range_and_is_nothing_only_together_with_its_interval(
    rows: list[tuple[float, float]], seed: int
) -> None:
    judge, people = [row[0] for row in rows], [row[1] for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 40)
        found = [kappa(judge, people, 5, weighted=weighted, seed=seed) for weighted in (True, False)]
        found += [alpha([judge, people], 5, seed), spearman(judge, people, seed)]
    for estimate in found:
        assert (estimate.value is None) == (estimate.ci95 is None)
        if estimate.value is not None and estimate.ci95 is not None:
            assert estimate.ci95[0] <= estimate.ci95[1] <= 1 + 1e-9
            assert -1 - 1e-9 <= estimate.value <= 1 + 1e-9


@settings(max_examples=25)
@given(both)
def test_kappa_and_alpha_do_not_care_who_is_the_judge(rows: list[tuple[float, float]]) -> None:
    judge, people = [row[0] for row in rows], [row[1] for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 5)
        for weighted in (True, False):
            one = kappa(judge, people, 5, weighted=weighted, seed=0).value
            assert one == approx(kappa(people, judge, 5, weighted=weighted, seed=0).value)
        assert alpha([judge, people], 5, 0).value == approx(alpha([people, judge], 5, 0).value)


@each_case("seed", range(2))
def test_an_interval_holds_its_estimate_and_narrows_with_more_items(seed: int) -> None:
    widths = []
    for n in (20, 80, 320):
        rng = np.random.default_rng(seed)
        people = rng.integers(0, 5, n)
        judge = np.clip(people + rng.integers(-1, 2, n), 0, 4)
        found = kappa(judge / 4, people / 4, 5, weighted=True, seed=seed)
        others = [alpha([judge / 4, people / 4], 5, seed), spearman(judge, people, seed)]
        for estimate in (found, *others):
            assert estimate.value is not None
            assert covers(estimate, estimate.value)
        assert found.ci95 is not None
        widths.append(found.ci95[1] - found.ci95[0])
    assert widths == sorted(widths, reverse=True)


@each_case("weighted", [False, True])
def test_the_interval_of_kappa_covers_the_truth(weighted: bool) -> None:
    cells = np.full((3, 3), 0.05) + np.diag([0.2, 0.15, 0.2])
    apart = np.abs(np.subtract.outer(np.arange(3), np.arange(3))) ** (2 if weighted else 1)
    cost = apart if weighted else apart > 0
    truth = 1 - (cost * cells).sum() / (cost * np.outer(cells.sum(1), cells.sum(0))).sum()
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(100):
        drawn = rng.choice(9, 60, p=cells.ravel())
        covered += covers(kappa(drawn // 3 / 2, drawn % 3 / 2, 3, weighted=weighted, seed=seed), truth)
    assert covered / 100 >= 0.85


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    judge, people, lengths = planted(3, 1.0)
    assert length_bias(judge, people, lengths, 5) == length_bias(judge, people, lengths, 5)
    assert length_bias(judge, people, lengths, 5).ci95 != length_bias(judge, people, lengths, 6).ci95
