"""A search is called hopeless only where even a perfect prompt could not show, and the advice then works."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.scoring.stats import minimum_detectable_gain
from agent.search.preflight import detectable_gains, judge, rows_for


def scores(right, rows):
    return [1.0] * right + [0.0] * (rows - right)


def test_98_of_100_with_100_test_rows_is_not_worth_a_search_and_the_advice_is_a_number_of_rows_that_would_do():
    found = judge(scores(98, 100), [], 100)
    assert not found.worth
    assert found.headroom == pytest.approx(0.02)
    assert found.noise is None
    assert found.detectable == math.inf
    assert found.as_dict()["detectable"] is None
    assert found.why.startswith("not worth a search: your prompt scores 98.0 on 100 dev rows, and 100 test rows could")
    rows = int(re.search(r"about ([\d,]+) test rows", found.why)[1].replace(",", ""))
    assert rows == 2400  # two digits are enough
    assert minimum_detectable_gain(rows, 0.98) <= 0.01 < minimum_detectable_gain(rows - 100, 0.98)
    assert judge(scores(98, 100), [], rows).worth


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(1, 400))
def test_whatever_room_the_test_rows_can_show_is_worth_it_unless_noise_is_larger(right, wrong, test_rows):
    found = judge(scores(right, right + wrong), [], test_rows)
    json.dumps(found.as_dict(), allow_nan=False)
    assert "\n" not in found.why
    rows = right + wrong
    if test_rows < 6:  # all of them right against all of them wrong is p = 0.06 with five
        assert not found.worth
    elif rows < 20:
        assert found.worth
    else:
        assert found.worth == (found.detectable <= found.headroom + 1e-9 and wrong > 0)


def test_test_rows_that_show_no_gain_at_all_are_not_worth_a_search_and_the_advice_is_right():
    found = judge([], [], 5)
    assert (found.worth, found.detectable, found.headroom) == (False, math.inf, None)
    advice = re.search(
        r"with 5 test rows\. Give more: about (\d+) show a gain of 30 points, (\d+) one of 10", found.why
    )
    assert [minimum_detectable_gain(int(rows), 0.5) for rows in advice.groups()] == pytest.approx([0.3, 0.1], abs=0.01)


def test_few_rows_or_no_score_at_all_refuse_nothing():
    for seen in ([], [None, None], [1.0] * 5, [None] * 30 + [1.0] * 19):
        assert judge(seen, [], 100).worth


def test_a_prompt_that_changes_its_answers_more_than_there_is_to_win_is_not_worth_it():
    base = scores(92, 100)
    again = [1.0 - value for value in base[:5]] + base[5:10]
    found = judge(base, again, 1000)
    assert found.noise == 0.5
    assert not found.worth
    assert "50 % of the rows change" in found.why
    assert judge(base, base[:10], 1000).worth
    assert judge(base, [0.0, *base[1:10]], 1000).worth  # one flip of ten proves no noise of 8 %


def test_graded_scores_that_vary_little_show_smaller_gains():
    graded = [0.85 + 0.01 * (n % 10) for n in range(60)]
    flat = scores(54, 60)
    assert judge(graded, [], 50).detectable < judge(flat, [], 50).detectable


@pytest.mark.parametrize(("gain", "rate"), [(0.05, 0.5), (0.1, 0.9), (0.02, 0.9)])
def test_rows_for_a_gain_are_the_fewest_that_show_it(gain, rate):
    rows = rows_for(gain, rate)
    assert rows is not None
    assert minimum_detectable_gain(rows, rate) <= gain < minimum_detectable_gain(rows - 1, rate)


def test_no_number_of_rows_shows_nothing():
    assert rows_for(0.0, 0.5) is None
    assert rows_for(0.1, 1.0) is None


def test_more_test_rows_show_smaller_gains_at_every_assumed_baseline():
    few, many = detectable_gains(50), detectable_gains(500)
    assert list(few) == list(many) == [0.3, 0.5, 0.7, 0.9]
    assert all(many[rate] < few[rate] for rate in few)
