"""Who goes on: the best, and nobody is called worse without proof."""

from hypothesis import given
from hypothesis import strategies as st

from agent.scoring.stats import PairedRace
from agent.search.race import best_of, clearly_behind, mean, ranked

RACE = PairedRace(12)
SCORES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=30), max_size=6
)


@given(SCORES, st.integers(1, 6))
def test_everybody_goes_on_or_is_out_with_a_reason(scores, keep):
    verdict = best_of(scores, keep, RACE)
    assert set(verdict.survivors) | set(verdict.pruned) == set(scores)
    assert not set(verdict.survivors) & set(verdict.pruned)
    assert len(verdict.survivors) == len(set(verdict.survivors)) <= keep
    assert all(verdict.pruned.values())


@given(SCORES)
def test_the_leader_is_never_out_and_the_order_is_best_first(scores):
    verdict = clearly_behind(scores, RACE)
    means = [mean(scores[candidate]) for candidate in verdict.survivors]
    assert means == sorted(means, reverse=True)
    if scores:
        assert verdict.survivors[0] == ranked(scores)[0]
        assert means[0] == max(map(mean, scores.values()))


def test_ties_keep_the_order_in_which_they_came():
    assert ranked({"b": [1.0, 0.0], "a": [0.5], "c": [1.0]}) == ["c", "b", "a"]


def test_a_sure_loser_is_out_and_the_reason_names_rows_and_means():
    scores = {"good": [1.0] * 60, "bad": [0.0] * 60, "near": [1.0] * 57 + [0.0] * 3}
    verdict = clearly_behind(scores, RACE)
    assert verdict.survivors == ("good", "near")
    assert verdict.pruned == {"bad": "clearly behind good after 60 paired rows: 0.00 against 1.00"}


def test_few_rows_prove_nothing():
    assert clearly_behind({"good": [1.0] * 4, "bad": [0.0] * 4}, RACE).pruned == {}


def test_halving_does_not_claim_that_those_who_are_out_are_worse():
    scores = {"a": [1.0, 1.0, 0.0, 1.0], "b": [1.0, 0.0, 1.0, 0.0], "c": [1.0, 0.0, 0.0, 0.0]}
    verdict = best_of(scores, 2, RACE)
    assert verdict.survivors == ("a", "b")
    assert verdict.pruned == {"c": "not among the best 2 after 4 rows: 0.25, the last of them has 0.50"}


def test_nobody_is_nobody():
    assert best_of({}, 3, RACE).survivors == ()
    assert mean([]) == 0.0
