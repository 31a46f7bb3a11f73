"""The winner's corrected dev score is right on average, whatever way the winner was found."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.stats import selection
from agent.stats.intervals import paired_difference
from agent.stats.selection import best_of_many, holm, selection_corrected
from tests.bench.arena.replay_stats import HALVING, curse, synthetic

unit = st.floats(0, 1)
tables = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(unit, min_size=n, max_size=n), st.lists(st.lists(unit, min_size=1, max_size=n), max_size=4)
    )
)


@pytest.mark.parametrize("rungs", [(), HALVING], ids=["all", "halving"])
@pytest.mark.parametrize("equal", [False, True], ids=["unequal", "equal"])
def test_the_corrected_score_is_right_on_average_where_the_raw_one_is_too_high(rungs, equal):
    raw, corrected, spread = curse(synthetic(), 250, 80, rungs, equal)  # 0.5 points: the error of such a mean
    assert raw > 3
    assert abs(corrected) < 1.8
    assert spread < 12


def test_early_rows_that_decided_who_runs_do_not_flatter_the_winner():
    # equal candidates, cut on 8 rows: a correction that sees only those that ran on is 2 points too high
    _, corrected, _ = curse(synthetic(), 250, 40, ((8, 2),), equal=True)
    assert abs(corrected) < 2
    rng = np.random.default_rng(1)
    blind = []
    for seed in range(250):
        scores = (rng.random((60, 40)) < 0.5).astype(float)
        on = scores[np.argsort(-scores[:, :8].mean(axis=1))[:2]]
        blind.append(selection_corrected(on.tolist(), int(on.mean(axis=1).argmax()), seed))
    assert np.mean(blind) - 0.5 > 0.05


def test_a_winner_that_ran_on_alone_is_scored_on_the_rows_that_did_not_choose_it():
    assert selection_corrected([[1.0] * 4 + [0.5] * 6, [0.0] * 4], 0, 0) == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False), st.integers(0, 3), st.integers(0, 4))
def test_the_corrected_score_is_in_range_and_depends_on_no_order_and_on_no_copy(table, random, seed, copies):
    first, others = table
    rows = [first, *others]
    corrected = selection_corrected(rows, 0, seed)
    assert 0 <= corrected <= 1
    order = random.sample(range(len(rows)), len(rows))
    moved = [rows[place] for place in order]
    assert selection_corrected(moved, order.index(0), seed) == pytest.approx(corrected, abs=1e-6)
    assert selection_corrected([first] * (copies + 1), 0, seed) == pytest.approx(np.mean(first))


def test_a_winner_that_is_unknown_or_did_not_see_all_rows_is_refused():
    for outcomes, winner in ([[[1.0], [1.0, 0.0]], 0], [[[1.0]], 1], [[], 0], [[[]], 0], [[[1.2]], 0]):
        with pytest.raises(ValueError, match="outcomes"):
            selection_corrected(outcomes, winner, 0)


LEVEL = 0.05


def draw(rng: np.random.Generator, count: int, rows: int, rate: float) -> list[list[float]]:
    """Scores of prompts that are as good as each other, on rows of different difficulty."""
    difficulty = rng.beta(4 * rate, 4 * (1 - rate), rows)
    return (rng.random((count, rows)) < difficulty).astype(float).tolist()


@pytest.mark.parametrize("rows", [30, 100])
def test_the_best_of_nine_equals_passes_as_seldom_as_it_says(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FLIPS", 1000)
    monkeypatch.setattr(selection, "BLOCK", 1000)
    rng, passed, alone, runs = np.random.default_rng(rows), 0, 0, 400
    for seed in range(runs):
        *nine, rival = draw(rng, 10, rows, 0.4)
        best = max(range(9), key=lambda place: sum(nine[place]))
        passed += best_of_many(nine, best, rival, seed) <= LEVEL
        single = paired_difference(nine[best], rival, seed)
        alone += single.diff > 0 and single.p_value <= 2 * LEVEL
    assert passed / runs <= 0.08, "5 % and what 400 runs may be off by"
    assert alone / runs > 0.12, "tested as if it were the only one it passes far too often"


def test_prompts_that_answer_alike_count_as_one() -> None:
    rival = [0.0] * 30
    one = [1.0] * 6 + [0.0] * 24
    alone = best_of_many([one], 0, rival, 0)
    assert alone == pytest.approx(1 / 64, abs=0.003)
    assert best_of_many([one] * 20, 3, rival, 0) == alone
    other = [[1.0 if start <= at < start + 6 else 0.0 for at in range(30)] for start in (6, 12, 18, 24)]
    assert best_of_many([one, *other], 0, rival, 0) == pytest.approx(1 - (63 / 64) ** 5, abs=0.006)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12), min_size=2, max_size=5))
def test_a_further_prompt_makes_no_gain_more_certain(tables: list[list[float]]) -> None:
    rival, *many = tables
    fewer = best_of_many(many[:1], 0, rival, 0)
    assert 0 < fewer <= 1
    assert best_of_many(many, 0, rival, 0) >= fewer - 0.02


def test_without_a_row_that_differs_nothing_is_shown() -> None:
    assert best_of_many([[1.0, 0.0], [1.0, 0.0]], 0, [1.0, 0.0], 0) == 1.0


@pytest.mark.parametrize(("chosen", "rows"), [(1, 2), (-1, 2), (0, 3)])
def test_what_cannot_be_compared_is_refused(chosen: int, rows: int) -> None:
    with pytest.raises(ValueError, match="candidates must hold"):
        best_of_many([[1.0] * rows], chosen, [0.0, 0.0], 0)


def test_holm_is_the_step_down_of_bonferroni() -> None:
    """By hand, and at most 5 % of families of true hypotheses have one that is shown."""
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.04, 0.001, 0.03, 0.9]) == pytest.approx([0.09, 0.004, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    rng = random.Random(3)
    families = [[rng.random() for _ in range(10)] for _ in range(2000)]
    shown = sum(min(holm(family)) < 0.05 for family in families) / len(families)
    assert 0.03 < shown < 0.065
