"""The flip test: silent when nothing changed or noise explains it, loud when answers changed for good."""

import random

import pytest

from agent.stats.changes import flip_p_value, moved_test
from agent.stats.intervals import paired_difference

Rows = list[tuple[list[str], list[str]]]


def differ(a: str, b: str) -> float:
    return float(a != b)


def certain(count: int, flipped: int, before: int, now: int) -> Rows:
    """Rows whose answers never vary; some have another answer now."""
    return [(["a"] * before, ["b" if at < flipped else "a"] * now) for at in range(count)]


@pytest.mark.parametrize(("before", "now"), [(1, 2), (3, 2), (3, 3)])
def test_a_tenth_of_sixty_certain_rows_is_found(before: int, now: int) -> None:
    assert flip_p_value(certain(60, 6, before, now), differ, seed=0) < 0.005


def test_one_answer_on_each_side_or_on_one_side_alone_says_nothing_and_too_many_are_refused() -> None:
    assert flip_p_value(certain(60, 30, 1, 1), differ, seed=0) == 1.0
    assert flip_p_value([([], ["a"]), (["a", "a"], [])], differ, seed=0) == 1.0
    with pytest.raises(ValueError, match="13 samples"):
        flip_p_value([(["a"] * 6, ["a"] * 7)], differ, seed=0)


@pytest.mark.parametrize(
    ("before", "now", "rate", "count"), [(1, 5, 0.9, 20), (1, 2, 0.97, 50), (3, 2, 0.9, 20), (3, 5, 0.97, 50)]
)
def test_scores_that_moved_by_repeat_noise_alarm_at_most_at_the_level_however_often_rows_were_asked(
    before: int, now: int, rate: float, count: int
) -> None:
    """A test on the differences of means fails it in up to 13 % of such cases, most with one answer before."""
    rng, found = random.Random(1), []
    for seed in range(300):
        drawn = [[float(rng.random() < rate) for _ in range(before + now)] for _ in range(count)]
        p_value = moved_test([(row[:before], row[before:]) for row in drawn], seed, draws=1000).p_value
        means = [sum(row[before:]) / now - sum(row[:before]) / before for row in drawn]
        found.append(p_value < 0.05 and sum(means) < 0)
    assert sum(found) / len(found) <= 0.025 + 3 * (0.025 * 0.975 / len(found)) ** 0.5


def test_a_score_that_fell_for_good_is_found_and_one_that_moved_nowhere_is_not() -> None:
    fell = [([1.0] * 3, [0.0] * 2 if row < 8 else [1.0] * 2) for row in range(60)]
    assert moved_test(fell, 0).p_value < 0.01
    assert moved_test([([1.0], [0.0])] * 2, 0).p_value == pytest.approx(0.5, abs=0.01), "two sides of one in four"
    assert moved_test([([1.0] * 3, [1.0] * 2)] * 60, 0).p_value == 1.0
    assert moved_test([([], [1.0]), ([1.0], [])], 0).p_value == 1.0
    with pytest.raises(ValueError, match="13 samples"):
        moved_test([([1.0] * 6, [1.0] * 7)], 0)


def noisy(rng: random.Random, count: int, before: int, now: int) -> Rows:
    """Half of the rows are certain, the others toss a coin each; the same before and now."""
    rows: Rows = []
    for _ in range(count):
        rate = rng.choice((0.0, 1.0, rng.random(), 0.9))
        draw = ["ab"[rng.random() < rate] for _ in range(before + now)]
        rows.append((draw[:before], draw[before:]))
    return rows


@pytest.mark.parametrize(("before", "now"), [(1, 2), (3, 2)])
def test_both_questions_of_the_gate_together_alarm_at_most_in_a_twentieth(before: int, now: int) -> None:
    """More flips than noise (at 2.5 %), or significantly worse (two-sided at 5 %, so 2.5 % on that side)."""
    rng, alarms, tries = random.Random(2), 0, 100
    for seed in range(tries):
        rows = noisy(rng, 40, before, now)
        was, is_ = ([sum(v == "a" for v in row[side]) / len(row[side]) for row in rows] for side in (0, 1))
        found = paired_difference(is_, was, seed)
        worse = found.diff < 0 and found.p_value < 0.05
        alarms += worse or flip_p_value(rows, differ, seed, draws=1000) <= 0.025
    assert alarms / tries <= 0.05


def test_noise_does_not_hide_a_change() -> None:
    rng, found = random.Random(3), 0
    for seed in range(60):
        rows = noisy(rng, 60, 3, 2)
        rows = [(before, ["c"] * 2) if at % 10 == 0 else (before, now) for at, (before, now) in enumerate(rows)]
        found += flip_p_value(rows, differ, seed, draws=2000) <= 0.025
    assert found >= 55
