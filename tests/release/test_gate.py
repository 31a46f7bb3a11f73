"""A gate names everything that stands between a winner and production, and lets a clean gain through."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.release import gate
from agent.release.gate import gain_of_arm, no_prompt_ahead
from agent.release.result import RunResult
from agent.results.breakdown import Gain
from agent.stats.intervals import paired_difference
from agent.stats.power import SIGNIFICANT
from tests.cases import each_case
from tests.release.test_result import WHOLE

CODES = {
    "the gain is not": "gain_not_shown",
    "the gain may come from": "gain_from_lost_rows",
    "it is not significantly better": "no_better_than_constant",
    "it gives the same answer": "no_better_than_constant",
    "metric ": "metric_worse",
    "slice ": "slice_worse",
    "the judge ": "judge_untrusted",
}


def blocked_by(**changed: Any) -> list[str]:
    """The sentences of the gate on a result with these keys; each has a code of its kind."""
    parts: dict[str, Any] = {"yardsticks": [], "metrics": [], "slices": [], "judges": [], "answers": None}
    found = gate.gate(RunResult.from_json({**WHOLE, **parts, "lift": lift(), **changed}))
    for reason in found.reasons:
        assert [code for start, code in CODES.items() if reason.message.startswith(start)] == [reason.code]
    return list(found.messages)


def lift(diff: float = 0.12, p_value: float = 0.001, n: int = 100) -> dict[str, Any]:
    half = abs(diff) * (0.5 if p_value < SIGNIFICANT else 1.5)
    counts = {"wins": 20, "losses": 10, "ties": n - 30, "n": n}
    return {"diff": diff, "ci95": [diff - half, diff + half], "p_value": p_value, **counts}


def part(metric: str, diff: float | None, p_value: float | None, field: str = "") -> dict[str, Any]:
    return {"metric": metric, "field": field, "diff": diff, "p_value": p_value}


def cut(**groups: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    told = [{"value": value, "diff": diff, "p_value": p_value} for value, (diff, p_value) in groups.items()]
    return [{"slice": "lang", "groups": told}]


def judge(trusted: bool, why: str = "") -> dict[str, Any]:
    return {"metric": "judge", "models": ["a/small", "b/large"], "trusted": trusted, "why": why}


def test_nothing_blocks_a_clean_gain() -> None:
    metrics = [part("readable", 0.0, 1.0), part("judge", 0.12, 0.001, "text")]
    assert blocked_by(metrics=metrics, slices=cut(de=(0.2, 0.01), fr=(None, None)), judges=[judge(True)]) == []


@each_case(
    "changed, says",
    [
        (lift(0.0, 1.0), "+0.0 points"),
        (lift(0.05, 0.2), "+5.0 points"),
        (lift(-0.1, 0.001), "-10.0 points"),
        (lift(p_value=0.05), "+12.0 points"),
        (lift(0.031, 0.2134, 48), ": +3.1 points, p = 0.21 on 48 rows"),
    ],
)
def test_a_gain_that_is_not_shown_blocks(changed: dict[str, Any], says: str) -> None:
    (why,) = blocked_by(lift=changed)
    assert why.startswith("the gain is not")
    assert says in why


@pytest.mark.parametrize(
    ("diff", "p_value", "blocks"), [(0.3, 0.001, 0), (0.0, 1.0, 1), (-0.2, 0.01, 1), (0.1, 0.2, 1)]
)
def test_who_is_not_better_than_one_constant_answer_is_blocked(diff: float, p_value: float, blocks: int) -> None:
    made = {"candidate_id": "k", "trained_on": 90, "dev": 0.5, "test": 0.5, "ci95": [0.4, 0.6]}
    found = {"diff": diff, "diff_ci95": lift(diff, p_value)["ci95"], "p_value": p_value}
    constant = {"name": "largest class", **made, **found}
    better = {**constant, "name": "classifier", "diff": -0.5, "diff_ci95": [-0.6, -0.4], "p_value": 0.001}
    said = blocked_by(yardsticks=[constant, better])
    assert len(said) == blocks, "a classifier that is better is told of, and blocks nothing"
    assert all("largest class: 50.0" in why for why in said)
    assert blocked_by(yardsticks=[{**constant, **dict.fromkeys(found)}]) == []


def test_one_answer_to_all_rows_or_a_gain_that_lost_rows_would_undo_blocks() -> None:
    def answers(different: int, right: int) -> list[str]:
        counts = {"right": 60, "wrong": 40, "readable": 100, "different": different, "different_right": right}
        return blocked_by(answers={"winner": counts, "baseline": {}})

    assert answers(1, 3) == ["it gives the same answer to all 100 rows, which have 3 different right answers"]
    assert answers(2, 3) == answers(1, 1) == []
    assert blocked_by(lift={**lift(), "lost": 3, "diff_if_wrong": 0.09}) == []
    (why,) = blocked_by(lift={**lift(), "lost": 18, "diff_if_wrong": -0.1})
    assert "18 that your prompt got a score on have none with it; counted as wrong, -10.0 points" in why
    (why,) = blocked_by(lift={**lift(), "lost": 18, "diff_if_wrong": -0.1}, release="runs/x/texts.json")
    assert "18 that your texts got a score on have none with it" in why


def test_wins_that_are_small_and_losses_that_are_large_show_no_gain() -> None:
    won = [min(1.0, 0.9 + 0.0001 * n) for n in range(156)] + [0.0] * 4
    found = paired_difference(won, [0.85 + 0.0001 * n for n in range(156)] + [0.85] * 4, 0)
    assert found.diff > 0 > found.ci95[0]
    assert found.p_value >= SIGNIFICANT, "the sign flips alone reject, as they are made for even differences"
    (why,) = blocked_by(lift=found.to_json())
    assert re.search(r": \+\d\.\d points, p = \S+ on 160 rows$", why)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_of_scores_of_0_and_1_the_test_alone_decides(wins: int, losses: int, ties: int) -> None:
    won, based = [1.0] * wins + [0.0] * (losses + ties), [0.0] * wins + [1.0] * losses + [0.0] * ties
    found = paired_difference(won, based, 0)
    assert bool(blocked_by(lift=found.to_json())) == (found.diff <= 0 or found.p_value >= SIGNIFICANT)


# limits of Holm for three: 0.05 / 3, 0.05 / 2, 0.05; the second passes its own, and not that of Bonferroni
@each_case(
    "metrics, groups, names",
    [
        ([part("judge", 0.2, 0.001, "text"), part("rouge1", -0.3, 0.001, "text")], {}, ["metric rouge1 of text"]),
        ([], {"de": (0.3, 0.001), "en": (-0.2, 0.002)}, ["slice lang = en"]),
        ([], {"bad": (-0.2, 0.04)}, ["slice lang = bad"]),
        ([], {"bad": (-0.2, 0.04), **{f"g{at}": (0.0, 1.0) for at in range(9)}}, []),
        ([], {"bad": (-0.2, 0.04), **{f"g{at}": (None, None) for at in range(9)}}, ["slice lang = bad"]),
        ([], {"bad": (-0.2, 0.004), **{f"g{at}": (0.0, 1.0) for at in range(9)}}, ["slice lang = bad"]),
        ([], {"a": (-0.3, 0.01), "b": (-0.2, 0.02), "c": (-0.1, 0.06)}, ["slice lang = a", "slice lang = b"]),
        ([], {"a": (-0.3, 0.02), "b": (-0.2, 0.02), "c": (-0.1, 0.02)}, []),
        ([part("chrf", 0.0, 1.0)], {"en": (-0.2, 0.03)}, []),
    ],
)
def test_parts_that_got_worse_block_corrected_together(
    metrics: list[dict[str, Any]], groups: dict[str, Any], names: list[str]
) -> None:
    assert [why.partition(" got worse: ")[0] for why in blocked_by(metrics=metrics, slices=cut(**groups))] == names


def test_everything_in_the_way_is_told_at_once_gain_first_judges_last() -> None:
    metrics, judges = [part("chrf", -0.2, 0.001, "text")], [judge(True), judge(False, "kappa 0.21 is below 0.4")]
    found = blocked_by(lift=lift(0.0, 1.0), metrics=metrics, slices=cut(en=(-0.3, 0.002)), judges=judges)
    assert found[1:] == [
        "metric chrf of text got worse: -20.0 points, p = 0.001",
        "slice lang = en got worse: -30.0 points, p = 0.002",
        "the judge a/small, b/large (judge) is not trusted: kappa 0.21 is below 0.4",
    ]


tests = st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-6, 1)), max_size=8)


@given(tests, st.randoms(use_true_random=False))
def test_what_blocks_lies_between_the_level_and_bonferroni_in_any_order(
    told: list[tuple[float, float]], random: Any
) -> None:
    metrics = [part(f"m{at}", diff, p_value) for at, (diff, p_value) in enumerate(told)]
    found = blocked_by(metrics=metrics)
    named = {why.split()[1] for why in found}
    losses = {f"m{at}": p_value for at, (diff, p_value) in enumerate(told) if diff < 0}
    assert named <= {name for name, p_value in losses.items() if p_value < SIGNIFICANT}
    assert named >= {name for name, p_value in losses.items() if p_value < SIGNIFICANT / len(told)}
    assert blocked_by(metrics=random.sample(metrics, len(metrics))) == found


@each_case(
    "diff, p_value, ahead, gained",
    [(0.1, 0.01, ["prompt_better"], []), (0.1, 0.2, [], ["gain_not_shown"]), (-0.1, 0.01, [], ["gain_not_shown"]),
     (None, None, ["not_compared"], ["not_compared"])],
)  # fmt: skip
def test_an_arm_is_promoted_unless_a_prompt_is_better_and_a_tuned_one_if_its_gain_is_shown(
    diff: float | None, p_value: float | None, ahead: list[str], gained: list[str]
) -> None:
    interval = None if diff is None or p_value is None else tuple(lift(diff, p_value)["ci95"])
    gain = Gain(diff=diff, diff_ci95=interval, p_value=p_value)
    assert [reason.code for reason in no_prompt_ahead({"the best prompt": gain}).reasons] == ahead
    assert [reason.code for reason in gain_of_arm(gain).reasons] == gained
