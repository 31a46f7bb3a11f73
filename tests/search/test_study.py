"""Where to look next: places of the space only, the same for the same arguments, and good places more often."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.search.study import PRIOR_ROWS, MeanScore, Study, shrunk

SPACE = {"format": ("turns", "inline", "dspy-chat"), "kind": ("balanced", "natural"), "size": ("4", "8", "16")}
GOOD = {"format": "inline", "kind": "natural", "size": "8"}


def every_place() -> list[dict[str, str]]:
    return [
        {"format": layout, "kind": kind, "size": size}
        for layout in SPACE["format"]
        for kind in SPACE["kind"]
        for size in SPACE["size"]
    ]


def warm(rows: int = 30) -> list[tuple[dict[str, str], MeanScore]]:
    """Every place was tried twice; one of them is good."""
    return [(place, MeanScore(0.9 if place == GOOD else 0.2, rows)) for place in every_place() * 2]


def places(seen: list[tuple[dict[str, str], MeanScore]], seed: int, count: int = 6) -> list[dict[str, str]]:
    study = Study(SPACE, seen, seed)
    return [study.ask() for _ in range(count)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**70), st.integers(0, 36))
def test_every_place_is_one_of_the_space(seed: int, known: int) -> None:
    for place in places(warm()[:known], seed):
        assert set(place) == set(SPACE)
        assert all(place[name] in SPACE[name] for name in SPACE)


def test_same_arguments_same_places_and_the_global_generator_is_left_alone() -> None:
    before = random.getstate()
    assert places(warm(), 7) == places(warm(), 7)
    assert random.getstate() == before
    assert len({str(places([], seed)) for seed in range(4)}) > 1


def test_a_place_that_did_well_is_proposed_more_often_than_by_chance() -> None:
    asked = [place for seed in range(12) for place in places(warm(), seed, 4)]
    assert asked.count(GOOD) > 2 * len(asked) / len(every_place())


def test_places_that_the_space_does_not_have_any_more_do_no_harm() -> None:
    strange = [
        ({"format": "gone", "kind": "natural", "size": "4"}, MeanScore(1.0, 50)),
        ({"format": "turns"}, MeanScore(1.0, 5)),
    ]
    unseen = [(GOOD, MeanScore(0.0, 0))]
    assert places([*strange, *unseen, *warm()], 3)


def test_a_place_that_is_refused_costs_nothing_and_the_study_goes_on() -> None:
    study = Study(SPACE, warm(), 1)
    for _ in range(5):
        study.ask()
        study.refuse()
    assert set(study.ask()) == set(SPACE)


@given(st.floats(0, 1), st.integers(0, 500), st.floats(0, 1))
def test_a_shrunk_mean_lies_between_the_mean_and_the_prior(mean: float, n: int, prior: float) -> None:
    low, high = min(mean, prior), max(mean, prior)
    assert low - 1e-9 <= shrunk(MeanScore(mean, n), prior) <= high + 1e-9


def test_no_rows_count_as_the_prior_and_many_as_the_mean() -> None:
    assert shrunk(MeanScore(1.0, 0), 0.3) == 0.3
    assert shrunk(MeanScore(1.0, int(PRIOR_ROWS)), 0.0) == 0.5
    assert shrunk(MeanScore(1.0, 10**6), 0.0) > 0.999
