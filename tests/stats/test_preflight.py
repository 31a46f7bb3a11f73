"""A search is called hopeless only where nothing better could be found or shown, and the advice then works."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from agent.stats.intervals import mean_ci
from agent.stats.power import minimum_detectable_gain, rows_for
from agent.stats.preflight import assess


def scores(right, rows):
    return [1.0] * right + [0.0] * (rows - right)


def test_98_of_100_with_100_test_rows_is_not_worth_a_search_and_the_advice_is_a_number_of_rows_that_would_do():
    found = assess(scores(98, 100), [], 100)
    assert not found.worth
    assert found.headroom == pytest.approx(0.02)
    assert (found.noise, found.noise_rows) == (None, 0)
    assert found.detectable is None
    assert found.why.startswith(
        "not worth a search: your prompt scores 98.0 on 100 dev rows (95 % CI 93.0 to 99.6), and"
    )
    assert "100 test rows could not tell even a perfect prompt from it" in found.why
    rows = int(re.search(r"about ([\d,]+) test rows", found.why)[1].replace(",", ""))
    assert rows == 2400  # two digits are enough
    assert minimum_detectable_gain(rows, 0.98) <= 0.01 < minimum_detectable_gain(rows - 100, 0.98)
    assert assess(scores(98, 100), [], rows).worth


def test_a_prompt_that_may_be_worse_than_it_looks_on_dev_is_searched_and_what_can_be_shown_is_told():
    found = assess(scores(97, 100), [], 160)
    assert (found.worth, found.detectable) == (True, None)
    assert minimum_detectable_gain(160, 1 - found.headroom_ci95[1]) < found.headroom_ci95[1]
    assert found.why == (
        "your prompt scores 97.0 on 100 dev rows (95 % CI 91.5 to 99.2); 160 test rows can show a gain only if it "
        "truly scores at the low end of that"
    )


@pytest.mark.parametrize(("truth", "at_most"), [(0.93, 0.005), (0.95, 0.01), (0.97, 0.06)])
def test_a_search_that_could_show_something_is_seldom_refused(truth, at_most):
    refused = [right for right in range(101) if not assess(scores(right, 100), [], 160).worth]
    assert sum(stats.binom.pmf(right, 100, truth) for right in refused) < at_most


def test_a_prompt_with_full_marks_on_dev_is_not_worth_a_search_for_nothing_is_preferred_to_it_there():
    found = assess(scores(20, 20), [], 400)
    assert (found.worth, found.headroom) == (False, 0.0)
    assert found.why == (
        "not worth a search: your prompt scores 100.0 on 20 dev rows, and no other can score higher there. "
        "Keep the prompt, or add harder rows"
    )


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(1, 400))
@example(1, 27, 6)  # the variance of these scores and mean * (1 - mean) differ in their last digits
def test_whatever_room_the_test_rows_can_show_is_worth_it(right, wrong, test_rows):
    found = assess(scores(right, right + wrong), [], test_rows)
    json.dumps(found.to_json(), allow_nan=False)
    assert "\n" not in found.why
    rows = right + wrong
    if test_rows < 6:  # all of them right against all of them wrong is p = 0.06 with five
        assert not found.worth
    elif rows < 20:
        assert found.worth
    else:
        low = mean_ci(scores(right, rows))[1]
        assert found.worth == (wrong > 0 and math.isfinite(minimum_detectable_gain(test_rows, low)))


def test_test_rows_that_show_no_gain_at_all_are_not_worth_a_search_and_the_advice_is_right():
    found = assess([], [], 5)
    assert (found.worth, found.detectable, found.headroom) == (False, None, None)
    advice = re.search(
        r"with 5 test rows\. Give more: about (\d+) show a gain of 30 points, (\d+) one of 10", found.why
    )
    assert [minimum_detectable_gain(int(rows), 0.5) for rows in advice.groups()] == pytest.approx([0.3, 0.1], abs=0.01)


def test_few_rows_or_no_score_at_all_refuse_nothing():
    for seen in ([], [None, None], [1.0] * 5, [None] * 30 + [1.0] * 19):
        assert assess(seen, [], 100).worth


def test_answers_that_change_are_told_and_refuse_nothing():
    base = scores(92, 100)
    found = assess(base, [1.0 - value for value in base[:5]] + base[5:10], 1000)
    assert (found.noise, found.noise_rows) == (0.5, 10)
    assert found.worth
    graded = [0.6 + 0.002 * n for n in range(100)]
    assert assess(graded, [value + 0.005 for value in graded[:10]], 160).worth  # every score moved, by next to nothing


def test_graded_scores_that_vary_little_show_smaller_gains_but_count_for_no_more_than_four_rows():
    graded = [0.6 + 0.1 * (n % 5) for n in range(60)]
    flat = scores(48, 60)
    assert assess(graded, [], 50).detectable < assess(flat, [], 50).detectable
    nearly_equal = [0.8 + 0.001 * (n % 2) for n in range(60)]
    assert assess(nearly_equal, [], 50).detectable == pytest.approx(minimum_detectable_gain(200, 0.8005), abs=1e-4)


def test_a_baseline_that_ties_with_itself_says_nothing_of_how_much_a_pairwise_judge_shows():
    ties = [0.5] * 99 + [0.0]
    found = assess(ties, [], 160, pairwise=True)
    assert found.detectable == minimum_detectable_gain(160, 0.495)


@pytest.mark.parametrize(("gain", "rate"), [(0.05, 0.5), (0.1, 0.9), (0.02, 0.9)])
def test_rows_for_a_gain_are_the_fewest_that_show_it(gain, rate):
    rows = rows_for(gain, rate)
    assert rows is not None
    assert minimum_detectable_gain(rows, rate) <= gain < minimum_detectable_gain(rows - 1, rate)
