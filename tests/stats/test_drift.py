"""Drift tests: each finds its change, and all together alarm at their level."""

import random

import numpy as np
import pytest

from agent.stats.drift import DriftTest, alarms, categories_moved, more_often, scores_fell, sizes_moved


def found(name: str, p_value: float | None, effect: float | None = 1.0) -> DriftTest:
    return DriftTest(name, None, None, effect, 0.1, p_value)


def test_alarms_are_corrected_for_the_number_of_tests() -> None:
    tests = [found("a", 0.004), found("b", 0.006), found("c", 0.03), found("d", None)]
    assert [each.name for each in alarms(tests, 0.01)] == []  # 0.004 > 0.01 / 3
    assert [each.name for each in alarms(tests, 0.02)] == ["a", "b"]
    assert [each.name for each in alarms(tests, 0.05)] == ["a", "b", "c"]


def test_a_small_change_is_no_alarm_however_sure() -> None:
    assert alarms([found("a", 1e-9, 0.09), found("b", 1e-9, None)], 0.05) == []


def test_more_often_is_one_sided() -> None:
    found = more_often("x", (5, 100), (20, 100), 0.02)
    assert (found.p_value or 1) < 0.01
    assert (found.was, found.now, found.effect) == pytest.approx((0.05, 0.2, 0.15))
    assert (more_often("x", (20, 100), (5, 100), 0.02).p_value or 0) > 0.9
    assert more_often("x", (0, 0), (5, 100), 0.02).p_value is None


def test_the_mix_that_moved_is_measured() -> None:
    told = categories_moved("x", {"a": 60, "b": 40}, {"a": 40, "b": 60}, 0.1, 0)
    assert told.effect == pytest.approx(0.2)
    assert told.test == "chi-square test"
    new = categories_moved("x", {"a": 50}, {"a": 45, "b": 5}, 0.1, 0)
    assert new.test.startswith("permutation")
    assert new.was == {"a": 1.0, "b": 0.0}
    few = categories_moved("x", {"a": 9, "b": 1}, {"a": 4, "b": 6}, 0.1, 0)
    assert few.p_value == pytest.approx(0.0573, abs=0.005), "Fisher's exact test"
    assert categories_moved("x", {"a": 50}, {"a": 9}, 0.1, 0).p_value == 1.0
    assert categories_moved("x", {}, {"a": 9}, 0.1, 0).p_value is None


@pytest.mark.parametrize("sides", [(20, 15), (60, 200)])
def test_the_same_mix_alarms_at_its_level(sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mix = (0.6, 0.25, 0.1, 0.05)
    tries, low = 150, 0
    for seed in range(tries):
        one, two = (dict(zip("abcd", map(int, rng.multinomial(n, mix)), strict=True)) for n in sides)
        low += (categories_moved("x", one, two, 0.1, seed).p_value or 0) <= 0.05
    assert low / tries <= 0.05 + 3 * (0.05 * 0.95 / tries) ** 0.5


def test_lengths_and_scores() -> None:
    rng = random.Random(1)
    one = [rng.gauss(50, 10) for _ in range(200)]
    longer = [rng.gauss(60, 10) for _ in range(200)]
    assert (sizes_moved("x", one, longer, 0.1).p_value or 1) < 0.001
    assert sizes_moved("x", [], longer, 0.1).p_value is None
    assert sizes_moved("x", [7] * 50, [7] * 50, 0.1).p_value == pytest.approx(1.0)
    high, low = [0.9] * 50 + [0.7] * 50, [0.6] * 50 + [0.7] * 50
    assert (scores_fell("x", high, low, 0.05).p_value or 1) < 0.001
    assert (scores_fell("x", low, high, 0.05).p_value or 0) > 0.9
    assert scores_fell("x", [0.5] * 9, [0.5] * 9, 0.05).p_value == 1.0
    assert scores_fell("x", [], low, 0.05).p_value is None
