"""Agreement equals published examples, is nothing where nothing varies, and its intervals hold the truth."""

import math
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


@each_case("levels", [2, 3, 4, 5, 6, 7, 10, 11, 101])
def test_the_mean_of_two_neighbouring_ratings_goes_to_the_one_nearer_the_middle_of_every_scale(levels: int) -> None:
    means = [math.fsum([rating / (levels - 1), (rating + 1) / (levels - 1)]) / 2 for rating in range(levels - 1)]
    up = levels // 2  # this number of means lies in the lower half, or in the middle of an even scale
    assert categories(means, levels).tolist() == [*range(1, up + 1), *range(up, levels - 1)]


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


@each_case("value", [0.0, 0.5, 1.0])
def test_without_variation_there_is_no_agreement_to_tell(value: float) -> None:
    nothing, same, other = IntervalEstimate(None, None), [value] * 6, [0, 0.25, 0.5, 0.75, 1, 1]
    assert kappa(same, same, 5, weighted=False, seed=0) == nothing
    assert kappa(same, same, 5, weighted=True, seed=0) == nothing
    assert alpha([same, same], 5, 0) == nothing
    assert spearman(same, other, 0) == spearman(other, same, 0) == nothing


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


def test_a_share_has_wilsons_interval_and_nothing_has_none() -> None:
    expected = stats.binomtest(30, 100).proportion_ci(0.95, "wilson")
    found = mean_share([1.0] * 30 + [0.0] * 70)
    assert found.value == approx(0.3)
    assert found.ci95 == approx((expected.low, expected.high))
    assert mean_share([]) == IntervalEstimate(None, None)


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


def test_length_bias_turns_around_with_the_judge_and_needs_two_lengths() -> None:
    judge, people, lengths = planted(2, 1.0)
    up, down = length_bias(judge, people, lengths, 0), length_bias(people, judge, lengths, 0)
    assert up.value is not None
    assert up.value == approx(-down.value)
    assert length_bias(judge, people, [7] * len(judge), 0) == IntervalEstimate(None, None)


@each_case("lengths", [[10, 10, 10, 50, 50], [10, 10, 10, 50, 60], [10, 20, 50, 50, 50], [1, 1, 1, 2, 2]])
def test_a_length_that_half_of_the_answers_share_does_not_hide_the_bias(lengths: list[int]) -> None:
    short = [length < sum(lengths) / 5 for length in lengths]
    found = length_bias([0.25 if small else 0.75 for small in short], [0.5] * 5, lengths, 0)
    assert found.value == approx(0.5)
    assert found.ci95 == approx((0.5, 0.5))


@each_case(("one", "two"), [(3, 4), (4, 3), (1, 9), (0, 1)])
def test_values_that_cannot_be_paired_are_refused(one: int, two: int) -> None:
    few, many = [0.5] * one, [0.5] * two
    for ask in (
        lambda: kappa(few, many, 5, weighted=True, seed=0),
        lambda: spearman(few, many, 0),
        lambda: length_bias(few, many, few, 0),
        lambda: length_bias(few, few, many, 0),
        lambda: confusion(few, many, 5),
    ):
        with pytest.raises(ValueError, match="pair them item by item"):
            ask()


def test_the_confusion_table_has_people_in_rows_and_the_judge_in_columns() -> None:
    assert confusion([0, 0.5, 1, 1], [0, 0, 0, 1], 3) == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]


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


@each_case("weighted", [False, True])
def test_the_interval_of_kappa_covers_the_truth(weighted: bool) -> None:
    cells = np.full((3, 3), 0.05) + np.diag([0.2, 0.15, 0.2])
    apart = np.abs(np.subtract.outer(np.arange(3), np.arange(3))) ** (2 if weighted else 1)
    cost = apart if weighted else apart > 0
    truth = 1 - (cost * cells).sum() / (cost * np.outer(cells.sum(1), cells.sum(0))).sum()
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(60):
        drawn = rng.choice(9, 60, p=cells.ravel())
        covered += covers(kappa(drawn // 3 / 2, drawn % 3 / 2, 3, weighted=weighted, seed=seed), truth)
    assert covered / 60 >= 0.85


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    judge, people, lengths = planted(3, 1.0)
    assert length_bias(judge, people, lengths, 5) == length_bias(judge, people, lengths, 5)
    assert length_bias(judge, people, lengths, 5).ci95 != length_bias(judge, people, lengths, 6).ci95


odd_scales = st.integers(1, 50).map(lambda half: 2 * half + 1)


on_a_scale = odd_scales.flatmap(
    lambda levels: st.tuples(
        st.just(levels),
        st.lists(unit | st.integers(0, 4 * levels - 4).map(lambda n: n / (4 * levels - 4)), max_size=20),
    )
)


def alpha_of(rows: Sequence[Sequence[float | None]], levels: int) -> float | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        return alpha([scaled(row, 1, levels) for row in rows], levels, 0).value


marks = st.none() | st.integers(1, 5)


tables = st.tuples(st.integers(1, 4), st.integers(3, 12)).flatmap(
    lambda size: st.lists(st.lists(marks, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])
)


@given(on_a_scale)
def test_a_category_is_the_nearest_on_the_scale_and_turns_around_with_it(case: tuple[int, list[float]]) -> None:
    levels, values = case
    found = categories(values, levels)
    assert all(0 <= category < levels for category in found)
    assert all(abs(at - value * (levels - 1)) <= 0.5 + 1e-6 for at, value in zip(found, values, strict=True))
    assert categories([1 - value for value in values], levels).tolist() == (levels - 1 - found).tolist()


@given(on_a_scale)
def test_the_confusion_table_adds_up_and_turns_around_with_its_scale_and_kappa_stays(
    case: tuple[int, list[float]],
) -> None:
    levels, values = case
    judge, people = values[::2], values[1::2] + values[: len(values) % 2]
    turned, table = ([1 - value for value in judge], [1 - value for value in people]), confusion(judge, people, levels)
    assert [len(row) for row in table] == [levels] * levels
    agreed = sum(one == two for one, two in zip(*(categories(side, levels) for side in (judge, people)), strict=True))
    assert (sum(map(sum, table)), sum(table[level][level] for level in range(levels))) == (len(judge), agreed)
    assert confusion(*turned, levels) == [row[::-1] for row in table[::-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        for weighted in (True, False):
            as_it_is = kappa(judge, people, levels, weighted=weighted, seed=0).value
            assert kappa(*turned, levels, weighted=weighted, seed=0).value == approx(as_it_is)


@settings(max_examples=50)
@given(
    tables.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows), st.permutations(range(len(rows[0])))))
)
def test_alpha_depends_on_no_order_of_raters_or_items_and_on_no_end_of_the_scale(case: Any) -> None:
    rows, raters, items = case
    turned = [[None if mark is None else 6 - mark for mark in row] for row in rows]
    for other in (raters, [[row[at] for at in items] for row in rows], turned):
        assert alpha_of(other, 5) == approx(alpha_of(rows, 5))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 3))), min_size=3, max_size=12))
def test_raters_who_agree_wherever_two_rated_have_alpha_one_or_nothing_to_tell(
    items: list[tuple[int, set[int]]],
) -> None:
    found = alpha_of([[mark if rater in who else None for mark, who in items] for rater in range(4)], 5)
    compared = {mark for mark, who in items if len(who) > 1}
    assert found == (1 if len(compared) > 1 else None)


@given(st.lists(st.tuples(unit, st.integers(1, 4)), min_size=3, max_size=12))
def test_length_bias_is_told_wherever_there_are_two_lengths(rows: list[tuple[float, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "DRAWS", 2)
        found = length_bias([value for value, _ in rows], [0.5] * len(rows), [length for _, length in rows], 0)
    assert (found.value is None) == (len({length for _, length in rows}) == 1)
    assert found.value is None or -1 - 1e-9 <= found.value <= 1 + 1e-9


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
