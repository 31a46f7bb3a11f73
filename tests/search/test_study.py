"""What is tried next: the same arguments give the same answer, and nothing is tried twice."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.search.study import PRIOR_ROWS, Point, Seen, choose, shrunk


def pool(size: int) -> list[Point]:
    places = [(a, b) for a in ("turns", "inline", "dspy-chat") for b in ("none", "balanced/8", "diverse/8")]
    return [
        Point(f"c{n}", {"layout": places[n % 9][0], "instruction": "own", "demos": places[n % 9][1]})
        for n in range(size)
    ]


def some_known(size: int) -> dict[str, Seen]:
    return {f"c{n}": Seen(0.9 if n % 9 == 4 else 0.2, 20) for n in range(size)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 12), st.integers(0, 2**70), st.booleans())
def test_only_new_ids_each_once_and_as_many_as_asked_for(size, tried, count, seed, doubled):
    points, known = pool(size), some_known(min(tried, size))
    chosen = choose(points * 2 if doubled else points, known, count, seed)
    assert len(chosen) == len(set(chosen)) == min(count, size - len(known))
    assert not set(chosen) & set(known)
    assert set(chosen) <= {point.candidate_id for point in points}


def test_same_arguments_same_answer_and_the_global_generator_is_left_alone():
    before = random.getstate()
    first = choose(pool(40), some_known(15), 8, 7)
    assert first == choose(pool(40), some_known(15), 8, 7)
    assert random.getstate() == before


def test_another_seed_may_choose_otherwise():
    assert len({tuple(choose(pool(40), some_known(15), 5, seed)) for seed in range(6)}) > 1


def test_a_place_that_did_well_is_tried_more_often_than_the_others():
    near = sum(
        int(candidate[1:]) % 9 == 4 for seed in range(8) for candidate in choose(pool(180), some_known(36), 5, seed)
    )
    assert near > 2 * 8 * 5 / 9, "chance alone gives one in nine"


def test_known_candidates_outside_the_pool_do_no_harm():
    assert len(choose(pool(20), {"stranger": Seen(1.0, 5)}, 4, 0)) == 4


@given(st.floats(0, 1), st.integers(0, 500), st.floats(0, 1))
def test_a_shrunk_mean_lies_between_the_mean_and_the_prior(mean, n, prior):
    low, high = min(mean, prior), max(mean, prior)
    assert low - 1e-9 <= shrunk(Seen(mean, n), prior) <= high + 1e-9


def test_no_rows_count_as_the_prior_and_many_as_the_mean():
    assert shrunk(Seen(1.0, 0), 0.3) == 0.3
    assert shrunk(Seen(1.0, int(PRIOR_ROWS)), 0.0) == 0.5
    assert shrunk(Seen(1.0, 10**6), 0.0) > 0.999
