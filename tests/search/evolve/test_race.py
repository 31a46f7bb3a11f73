"""Nobody is called worse without proof."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.search.evolve.decisions import clearly_behind, mean

RUNGS = (8, 22, 60)
SCORES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), max_size=60),
    max_size=6,
)


@given(SCORES)
def test_the_best_of_a_rung_is_never_out_and_every_reason_names_rows(scores):
    out = clearly_behind(scores, RUNGS)
    assert set(out) <= set(scores)
    for rung in RUNGS:
        here = {name: mean(rows[:rung]) for name, rows in scores.items() if len(rows) >= rung}
        losers = [name for name, why in out.items() if f"after {rung} paired rows" in why]
        assert all(here[name] < max(here.values()) for name in losers)


def test_a_sure_loser_is_out_and_the_reason_names_rows_and_means():
    scores = {"good": [1.0] * 60, "bad": [0.0] * 60, "near": [1.0] * 57 + [0.0] * 3}
    assert clearly_behind(scores, (60,)) == {
        "bad": "clearly behind after 60 paired rows: 0.00, the best of them has 1.00"
    }


def test_few_rows_prove_nothing():
    assert clearly_behind({"good": [1.0] * 4, "bad": [0.0] * 4}, (4,)) == {}


def test_who_has_not_reached_a_rung_is_not_judged_on_it():
    assert clearly_behind({"good": [1.0] * 60, "new": [0.0] * 5}, RUNGS) == {}


def test_nobody_is_nobody():
    assert clearly_behind({}, RUNGS) == {}
    assert mean([]) == 0.0
    assert mean([None, 1.0]) == 1.0
