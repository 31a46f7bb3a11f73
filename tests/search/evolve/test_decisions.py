"""Only the best of a rung climb, one rung at a time, and rows that not all of a rung saw do not count."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.search.evolve.decisions import ETA, LATEST, Bandit, clearly_behind, mean, promotions, rungs_for, stop_reason
from agent.search.study import MeanScore

RUNGS = (2, 4, 8)
ROW = st.sampled_from([0.0, 0.5, 1.0])
VECTORS = st.lists(
    st.sampled_from([0, *RUNGS]).flatmap(lambda n: st.lists(ROW, min_size=n, max_size=n)), max_size=30
).map(lambda rows: {f"c{n}": scores for n, scores in enumerate(rows)})


@given(VECTORS, st.sets(st.integers(0, 30)), st.lists(ROW, min_size=8, max_size=8))
def test_who_climbs_is_among_the_best_of_its_rung_and_takes_one_step(scores, gone, other):
    """Decided on the rows that all of the rung saw: what was done on later ones neither helps nor hurts."""
    out = {f"c{n}" for n in gone}
    planned = promotions(RUNGS, scores, out)
    assert len(dict(planned)) == len(planned)
    for candidate_id, rows in planned:
        seen = len(scores[candidate_id])
        assert candidate_id not in out
        assert rows == RUNGS[RUNGS.index(seen) + 1]
        here = [mean(vector[:seen]) for vector in scores.values() if len(vector) >= seen]
        better = [other for other in here if other > mean(scores[candidate_id])]
        assert len(better) + 1 <= len(here) / ETA
    later = {i: vector if len(vector) < 8 else [*vector[:4], *other[4:]] for i, vector in scores.items()}
    assert promotions(RUNGS, later, out) == planned


def test_who_does_not_climb_now_may_when_more_have_come_in_below():
    scores = {"best": [1.0, 1.0, 1.0, 1.0], "next": [1.0, 0.0]}
    assert promotions(RUNGS, scores, eta=2.0) == []
    scores |= {"low": [0.0, 0.0], "lower": [0.0, 0.0]}
    assert promotions(RUNGS, scores, eta=2.0) == [("next", 4)]


def test_rows_without_a_score_were_seen_all_the_same():
    scores = {"a": [1.0], "b": [0.0, 0.0], "c": [0.0, 0.0], "d": [0.0, 0.0]}
    assert promotions(RUNGS, scores, eta=4.0) == []
    assert promotions(RUNGS, scores, rows=dict.fromkeys(scores, 2), eta=4.0) == [("a", 4)]


RACED = (8, 22, 60)
SCORES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), max_size=60), max_size=6
)


@given(SCORES)
def test_the_best_of_a_rung_is_never_out_and_every_reason_names_rows(scores):
    out = clearly_behind(scores, RACED)
    assert set(out) <= set(scores)
    for rung in RACED:
        here = {name: mean(rows[:rung]) for name, rows in scores.items() if len(rows) >= rung}
        losers = [name for name, why in out.items() if f"after {rung} paired rows" in why]
        assert all(here[name] < max(here.values()) for name in losers)


def test_a_sure_loser_is_out_and_the_reason_names_rows_and_means():
    scores = {"good": [1.0] * 60, "bad": [0.0] * 60, "near": [1.0] * 57 + [0.0] * 3}
    assert clearly_behind(scores, (60,)) == {
        "bad": "clearly behind after 60 paired rows: 0.00, the best of them has 1.00"
    }


KNOWN = st.lists(st.builds(MeanScore, st.floats(0, 1), st.integers(0, 200)), max_size=40)
TIGHT = [MeanScore(0.4, 60)] * LATEST
WIDE = [MeanScore(value, 60) for value in (0.1, 0.3, 0.5, 0.7, 0.9)] * LATEST


@given(KNOWN, st.integers(0, 1000), st.integers(1, 500), st.floats(0, 1), st.integers(-5, 0))
def test_it_ends_where_the_leader_is_right_on_every_row_or_no_candidate_can_be_paid(
    known: list[MeanScore], more: int, rows: int, leader: float, none: int
) -> None:
    assert stop_reason(known, 0.8, more, rows, 1.0) == f"the leader is right on all {rows} dev rows"
    assert stop_reason(known, leader, none, 100)


@given(st.lists(st.builds(MeanScore, st.floats(0, 1), st.integers(1, 200)), max_size=LATEST - 1), st.floats(0, 0.9))
def test_few_candidates_say_nothing_about_the_next(known: list[MeanScore], leader: float) -> None:
    assert stop_reason(known, leader, 10, 40) == ""
    assert stop_reason([*known, *[MeanScore(0.0, 0)] * 30], leader, 10, 40) == "", "one without a score is not known"


def test_candidates_that_are_all_alike_do_not_reach_a_leader_far_above_and_one_that_came_as_far_might() -> None:
    why = stop_reason(TIGHT, 0.8, 30, 60)
    assert ("30 more candidates" in why, "0.80" in why, "\n" in why) == (True, True, False)
    assert stop_reason([*TIGHT[1:], MeanScore(0.875, 8)], 0.8, 30, 60) == "", "if only on a few rows"


@given(st.floats(0.05, 0.95), st.integers(1, 200))
def test_the_further_ahead_the_leader_the_sooner_it_ends(leader: float, more: int) -> None:
    if stop_reason(WIDE, leader, more, 60):
        assert stop_reason(WIDE, min(1.0, leader + 0.05), more, 60)
    if not stop_reason(WIDE, leader, more, 60):
        assert not stop_reason(WIDE, leader, more + 50, 60), "more candidates reach further"


NAMES = ("fresh", "swapped", "proposed")


def used(bandit: Bandit, draws: int = 600, seed: int = 1) -> Counter[str]:
    rng = random.Random(seed)
    return Counter(bandit.draw(NAMES, rng) for _ in range(draws))


def told(**results: tuple[int, int]) -> Bandit:
    bandit = Bandit()
    for name, (wins, losses) in results.items():
        for won in [True] * wins + [False] * losses:
            bandit.update(name, won)
    return bandit


def test_an_operator_that_never_wins_is_used_ever_less() -> None:
    shares = [used(told(swapped=(0, losses)))["swapped"] for losses in (0, 5, 20, 80)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert shares[-1] < 0.05 * 600


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(0, 1000))
def test_only_what_can_be_used_is_drawn_and_the_seed_decides(names: list[str], seed: int) -> None:
    bandit = told(fresh=(3, 0))
    drawn = [bandit.draw(names, random.Random(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] in names


@given(st.lists(st.lists(ROW, min_size=8, max_size=8), max_size=24))
def test_climbing_ends_and_each_rung_holds_no_more_than_its_share(table):
    whole = {f"c{n}": row for n, row in enumerate(table)}
    seen = {i: row[: RUNGS[0]] for i, row in whole.items()}
    for _ in range(len(table) * len(RUNGS) + 1):
        for candidate_id, goal in promotions(RUNGS, seen):
            seen[candidate_id] = whole[candidate_id][:goal]
    assert promotions(RUNGS, seen) == []
    for below, above in pairwise(RUNGS):
        count = sum(len(row) >= above for row in seen.values())
        assert count <= sum(len(row) >= below for row in seen.values()) / ETA + 1


@given(st.integers(1, 3_000), st.integers(1, 40), st.floats(2.0, 10))
def test_rungs_rise_and_end_with_all_rows(rows, first, factor):
    rungs = rungs_for(rows, first, factor)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[-1] == rows
    assert rungs[0] == min(first, rows) or rungs == (rows,)
    assert all(rung > 0 for rung in rungs)
