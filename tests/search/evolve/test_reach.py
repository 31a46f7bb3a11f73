"""It stops where nothing more is to be expected, says why, and goes on while little is known or spread is wide."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.search.evolve.decisions import LATEST, expected_maximum, stop_reason
from agent.search.study import MeanScore

KNOWN = st.lists(st.builds(MeanScore, st.floats(0, 1), st.integers(0, 200)), max_size=40)
TIGHT = [MeanScore(0.4, 60)] * LATEST
WIDE = [MeanScore(value, 60) for value in (0.1, 0.3, 0.5, 0.7, 0.9)] * LATEST


@given(KNOWN, st.integers(0, 1000), st.integers(1, 500))
def test_a_leader_that_is_right_on_every_row_ends_it(known: list[MeanScore], more: int, rows: int) -> None:
    assert stop_reason(known, 0.8, more, rows, 1.0) == f"the leader is right on all {rows} dev rows"


@given(KNOWN, st.floats(0, 1), st.integers(-5, 0))
def test_where_no_candidate_can_be_paid_it_ends(known: list[MeanScore], leader: float, more: int) -> None:
    assert stop_reason(known, leader, more, 100)


@given(st.lists(st.builds(MeanScore, st.floats(0, 1), st.integers(1, 200)), max_size=LATEST - 1), st.floats(0, 0.9))
def test_few_candidates_say_nothing_about_the_next(known: list[MeanScore], leader: float) -> None:
    assert stop_reason(known, leader, 10, 40) == ""
    assert stop_reason([*known, *[MeanScore(0.0, 0)] * 30], leader, 10, 40) == "", "one without a score is not known"


def test_candidates_that_are_all_alike_do_not_reach_a_leader_far_above() -> None:
    why = stop_reason(TIGHT, 0.8, 30, 60)
    assert "30 more candidates" in why
    assert "0.80" in why
    assert "\n" not in why


def test_where_candidates_differ_widely_it_goes_on() -> None:
    assert stop_reason(WIDE, 0.9, 30, 60) == ""


def test_while_newcomers_come_as_far_as_the_leader_it_goes_on() -> None:
    assert stop_reason(TIGHT, 0.8, 30, 60)
    assert stop_reason([*TIGHT[1:], MeanScore(0.875, 8)], 0.8, 30, 60) == "", "if only on a few rows"


@given(st.floats(0.05, 0.95), st.integers(1, 200))
def test_the_further_ahead_the_leader_the_sooner_it_ends(leader: float, more: int) -> None:
    if stop_reason(WIDE, leader, more, 60):
        assert stop_reason(WIDE, min(1.0, leader + 0.05), more, 60)
    if not stop_reason(WIDE, leader, more, 60):
        assert not stop_reason(WIDE, leader, more + 50, 60), "more candidates reach further"


@pytest.mark.parametrize("count", [1, 2, 5, 20, 100])
def test_the_expected_maximum_is_near_what_a_draw_gives(count: int) -> None:
    rng = random.Random(count)
    drawn = [max(rng.gauss(0, 1) for _ in range(count)) for _ in range(2000)]
    assert expected_maximum(count) == pytest.approx(sum(drawn) / len(drawn), abs=0.1)
