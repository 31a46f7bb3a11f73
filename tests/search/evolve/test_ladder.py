"""Only the best of a rung climb, one rung at a time, and rows that not all of a rung saw do not count."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.search.evolve.decisions import Ladder, PlannedRows, mean, rungs_for

RUNGS = (2, 4, 8)
LADDER = Ladder(RUNGS)
ROW = st.sampled_from([0.0, 0.5, 1.0])
VECTORS = st.lists(
    st.sampled_from([0, *RUNGS]).flatmap(lambda n: st.lists(ROW, min_size=n, max_size=n)), max_size=30
).map(lambda rows: {f"c{n}": scores for n, scores in enumerate(rows)})


@given(VECTORS, st.sets(st.integers(0, 30)))
def test_who_climbs_is_among_the_best_of_its_rung_and_takes_one_step(scores, gone):
    out = {f"c{n}" for n in gone}
    planned = LADDER.promotions(scores, out)
    assert len({each.candidate_id for each in planned}) == len(planned)
    for each in planned:
        seen = len(scores[each.candidate_id])
        assert each.candidate_id not in out
        assert each.rows == RUNGS[RUNGS.index(seen) + 1]
        here = [mean(vector[:seen]) for vector in scores.values() if len(vector) >= seen]
        better = [other for other in here if other > mean(scores[each.candidate_id])]
        assert len(better) + 1 <= len(here) / LADDER.eta


@given(VECTORS, st.lists(ROW, min_size=8, max_size=8))
def test_what_a_candidate_did_on_later_rows_does_not_help_or_hurt_those_below(scores, other):
    """A climb from a rung is decided on the rows that all of that rung saw."""
    changed = {
        i: vector if len(vector) < 8 else [*vector[:4], *other[4:]] for i, vector in scores.items()
    }  # the rows of the last rung only
    assert LADDER.promotions(scores) == LADDER.promotions(changed)


@given(st.lists(st.lists(ROW, min_size=8, max_size=8), max_size=24))
def test_climbing_ends_and_each_rung_holds_no_more_than_its_share(table):
    whole = {f"c{n}": row for n, row in enumerate(table)}
    seen = {i: row[: RUNGS[0]] for i, row in whole.items()}
    for _ in range(len(table) * len(RUNGS) + 1):
        planned = LADDER.promotions(seen)
        if not planned:
            break
        for each in planned:
            seen[each.candidate_id] = whole[each.candidate_id][: each.rows]
    assert LADDER.promotions(seen) == []
    for below, above in pairwise(RUNGS):
        count = sum(len(row) >= above for row in seen.values())
        assert count <= sum(len(row) >= below for row in seen.values()) / LADDER.eta + 1


def test_who_does_not_climb_now_may_when_more_have_come_in_below():
    ladder = Ladder(RUNGS, eta=2.0)
    scores = {"best": [1.0, 1.0, 1.0, 1.0], "next": [1.0, 0.0]}
    assert ladder.promotions(scores) == []
    scores |= {"low": [0.0, 0.0], "lower": [0.0, 0.0]}
    assert ladder.promotions(scores) == [PlannedRows("next", 4)]


def test_rows_without_a_score_were_seen_all_the_same():
    scores = {"a": [1.0], "b": [0.0, 0.0], "c": [0.0, 0.0], "d": [0.0, 0.0]}
    ladder = Ladder(RUNGS, eta=4.0)
    assert ladder.promotions(scores) == []
    assert ladder.promotions(scores, rows=dict.fromkeys(scores, 2)) == [PlannedRows("a", 4)]


@given(st.integers(1, 3_000), st.integers(1, 40), st.floats(2.0, 10))
def test_rungs_rise_and_end_with_all_rows(rows, first, factor):
    rungs = rungs_for(rows, first, factor)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[-1] == rows
    assert rungs[0] == min(first, rows) or rungs == (rows,)
    assert all(rung > 0 for rung in rungs)


@given(st.integers(0, 20))
def test_the_level_is_the_highest_rung_that_was_reached(rows):
    level = LADDER.level(rows)
    assert level == max((n for n, rung in enumerate(RUNGS) if rows >= rung), default=-1)
