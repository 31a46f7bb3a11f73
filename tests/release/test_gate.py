"""A gate names everything that stands between a winner and production, and lets a clean gain through."""

import re
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.release import gate
from agent.release.gate import untrusted
from agent.release.result import RunResult
from agent.stats.intervals import SIGNIFICANT, paired_difference


def blocked_by(changed: dict[str, Any]) -> list[str]:
    """The sentences of the gate on a result with these keys; each has a code of its kind."""
    found = gate.gate(a_result(changed))
    assert [reason.code for reason in found.reasons] == [code_of(reason.message) for reason in found.reasons]
    return list(found.messages)


def a_result(changed: dict[str, Any]) -> RunResult:
    return RunResult.from_json({**SEARCHED, **changed})


def code_of(message: str) -> str:
    codes = {
        "the gain is not shown": "gain_not_shown",
        "the gain may come from": "gain_from_lost_rows",
        "it is not significantly better": "no_better_than_constant",
        "it gives the same answer": "no_better_than_constant",
        "metric ": "metric_worse",
        "slice ": "slice_worse",
        "the judge ": "judge_untrusted",
    }
    (found,) = [code for start, code in codes.items() if message.startswith(start)]
    return found


def lift(diff: float = 0.12, p_value: float = 0.001, n: int = 100) -> dict[str, Any]:
    half = abs(diff) * (0.5 if p_value < SIGNIFICANT else 1.5)
    counts = {"wins": 20, "losses": 10, "ties": n - 30, "n": n}
    return {"diff": diff, "ci95": [diff - half, diff + half], "p_value": p_value, **counts}


def part(metric: str, diff: float | None, p_value: float | None, field: str = "") -> dict[str, Any]:
    return {"metric": metric, "field": field, "diff": diff, "p_value": p_value}


def cut(name: str, **groups: tuple[float | None, float | None]) -> dict[str, Any]:
    told = [{"value": value, "diff": diff, "p_value": p_value} for value, (diff, p_value) in groups.items()]
    return {"slice": name, "groups": told}


def judge(trusted: bool, why: str = "") -> dict[str, Any]:
    return {"metric": "judge", "models": ["a/small", "b/large"], "trusted": trusted, "why": why}


SEARCHED: dict[str, Any] = {
    "run_id": "20260101T000000-abc",
    "task": "toy",
    "status": "complete",
    "model": "a/b",
    "seed": 0,
    "baseline": {"dev": 0.5, "test": 0.5},
    "winner": {
        "candidate_id": "c_1", "technique": "few-shot", "format": "inline", "n_examples": 4, "instruction": "Say it.",
        "dev": 0.7, "dev_corrected": 0.6, "test": 0.62, "prompt_tokens": 90,
    },
    "decision": "keep_baseline",
    "trials": {"complete": 3, "pruned": 2, "failed": 0},
    "calls": {"model": 90, "proposer": 0, "judge": 0, "cached": 0},
    "tokens": {"prompt": 1000, "completion": 10},
    "cost_usd": 0.0,
    "seconds": 1.0,
    "release": "runs/x/prompt.md",
    "ledger_head": "0" * 64,
}  # fmt: skip
"""What every version writes, but for the lift."""
CLEAN: dict[str, Any] = {
    "lift": lift(),
    "metrics": [part("readable", 0.0, 1.0), part("judge", 0.12, 0.001, "text")],
    "slices": [cut("lang", de=(0.2, 0.01), en=(0.0, 1.0), fr=(None, None))],
    "judges": [judge(True)],
}


def test_nothing_blocks_a_clean_gain() -> None:
    assert blocked_by(CLEAN) == []


@pytest.mark.parametrize(
    "changed",
    [lift(diff=0.0, p_value=1.0), lift(diff=0.05, p_value=0.2), lift(diff=-0.1, p_value=0.001), lift(p_value=0.05)],
    ids=["equal", "not shown", "worse", "at the limit"],
)
def test_a_gain_that_is_not_shown_blocks(changed: dict[str, Any]) -> None:
    (why,) = blocked_by({**CLEAN, "lift": changed})
    assert why.startswith("the gain is not shown: ")
    assert f"{100 * changed['diff']:+.1f} points" in why
    assert "on 100 rows" in why


@pytest.mark.parametrize(
    ("diff", "p_value", "blocks"), [(0.3, 0.001, 0), (0.0, 1.0, 1), (-0.2, 0.01, 1), (0.1, 0.2, 1)]
)
def test_who_is_not_better_than_one_constant_answer_is_blocked(diff: float, p_value: float, blocks: int) -> None:
    told = lift(diff, p_value)
    made = {"candidate_id": "k", "trained_on": 90, "dev": 0.5, "test": 0.5, "ci95": [0.4, 0.6]}
    constant = {"name": "largest class", **made, "diff": diff, "diff_ci95": told["ci95"], "p_value": p_value}
    better = {**constant, "name": "classifier", "diff": -0.5, "diff_ci95": [-0.6, -0.4], "p_value": 0.001}
    found = blocked_by({**CLEAN, "yardsticks": [constant, better]})
    assert len(found) == blocks, "a classifier that is better is told of, and blocks nothing"
    assert all("largest class: 50.0" in why for why in found)
    assert blocked_by({**CLEAN, "yardsticks": [{**constant, "diff": None, "diff_ci95": None, "p_value": None}]}) == []


def test_who_gives_one_answer_to_rows_that_have_several_is_blocked() -> None:
    def answers(different: int, right: int) -> dict[str, Any]:
        counts = {"right": 60, "wrong": 40, "readable": 100, "different": different, "different_right": right}
        return {**CLEAN, "answers": {"winner": counts, "baseline": {}}}

    (why,) = blocked_by(answers(1, 3))
    assert why == "it gives the same answer to all 100 rows, which have 3 different right answers"
    assert blocked_by(answers(2, 3)) == blocked_by(answers(1, 1)) == []


def test_a_gain_on_the_rows_that_the_winner_got_a_score_on_is_none_where_the_rest_would_undo_it() -> None:
    kept = {**CLEAN, "lift": {**lift(), "lost": 3, "diff_if_wrong": 0.09}}
    assert blocked_by(kept) == []
    (why,) = blocked_by({**CLEAN, "lift": {**lift(), "lost": 18, "diff_if_wrong": -0.1}})
    assert "18 that your prompt got a score on have none with it; counted as wrong, -10.0 points" in why


def test_the_sentence_tells_points_p_and_rows() -> None:
    (why,) = blocked_by({"lift": lift(0.031, 0.2134, 48)})
    assert why == "the gain is not shown: +3.1 points, p = 0.21 on 48 rows"


def test_graded_scores_that_win_a_little_and_sometimes_lose_much_show_no_gain_though_the_test_rejects() -> None:
    won = [min(1.0, 0.9 + 0.0001 * n) for n in range(156)] + [0.0] * 4
    based = [0.85 + 0.0001 * n for n in range(156)] + [0.85] * 4
    found = paired_difference(won, based, 0)
    assert found.diff > 0
    assert found.p_value < SIGNIFICANT
    assert found.ci95[0] < 0 < found.ci95[1]
    (why,) = blocked_by({"lift": asdict(found)})
    assert re.fullmatch(
        r"the gain is not shown: \+\d\.\d points, p = \S+ on 160 rows, but the 95 % interval, .* holds 0", why
    )


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_of_scores_of_0_and_1_the_test_alone_decides(wins: int, losses: int, ties: int) -> None:
    won, based = [1.0] * wins + [0.0] * (losses + ties), [0.0] * wins + [1.0] * losses + [0.0] * ties
    found = paired_difference(won, based, 0)
    assert bool(blocked_by({"lift": asdict(found)})) == (found.diff <= 0 or found.p_value >= SIGNIFICANT)


def test_a_metric_that_got_worse_blocks_by_its_name_and_field() -> None:
    metrics = [part("readable", -0.1, 0.002), part("judge", 0.2, 0.001, "text"), part("rouge1", -0.3, 0.001, "text")]
    found = blocked_by({**CLEAN, "metrics": metrics, "slices": []})
    assert found == [
        "metric rouge1 of text got worse: -30.0 points, p = 0.001",
        "metric readable got worse: -10.0 points, p = 0.002",
    ]


def test_a_slice_that_got_worse_blocks_though_the_whole_got_better() -> None:
    found = blocked_by({**CLEAN, "slices": [cut("lang", de=(0.3, 0.001), en=(-0.2, 0.002))]})
    assert found == ["slice lang = en got worse: -20.0 points, p = 0.002"]


def test_one_of_many_slices_that_looks_worse_by_chance_does_not_block() -> None:
    others = {f"g{at}": (0.0, 1.0) for at in range(9)}
    assert blocked_by({"lift": lift(), "slices": [cut("lang", bad=(-0.2, 0.04))]}) != []
    assert blocked_by({"lift": lift(), "slices": [cut("lang", bad=(-0.2, 0.04), **others)]}) == []
    assert blocked_by({"lift": lift(), "slices": [cut("lang", bad=(-0.2, 0.004), **others)]}) != []


def test_holm_steps_down_so_that_a_second_loss_needs_less_than_the_first() -> None:
    # limits 0.05 / 3, 0.05 / 2, 0.05: the second passes its own, and not that of Bonferroni
    found = blocked_by({"lift": lift(), "slices": [cut("lang", a=(-0.3, 0.01), b=(-0.2, 0.02), c=(-0.1, 0.06))]})
    assert [why.split(" got")[0] for why in found] == ["slice lang = a", "slice lang = b"]
    stopped = blocked_by({"lift": lift(), "slices": [cut("lang", a=(-0.3, 0.02), b=(-0.2, 0.02), c=(-0.1, 0.02))]})
    assert stopped == []


def test_metrics_and_slices_are_corrected_together() -> None:
    slices = [cut("lang", en=(-0.2, 0.03))]
    assert len(blocked_by({"lift": lift(), "slices": slices})) == 1
    assert blocked_by({"lift": lift(), "metrics": [part("chrf", 0.0, 1.0)], "slices": slices}) == []


def test_groups_without_a_test_cost_the_others_nothing() -> None:
    few: dict[str, Any] = {f"g{at}": (None, None) for at in range(9)}
    assert len(blocked_by({"lift": lift(), "slices": [cut("lang", bad=(-0.2, 0.04), **few)]})) == 1


def test_an_untrusted_judge_blocks_with_its_models_and_the_reason() -> None:
    found = blocked_by({**CLEAN, "judges": [judge(True), judge(False, "kappa 0.21 is below 0.4")]})
    assert found == ["the judge a/small, b/large (judge) is not trusted: kappa 0.21 is below 0.4"]
    assert list(untrusted(a_result(CLEAN))) == []


def test_everything_in_the_way_is_told_at_once_gain_first_judges_last() -> None:
    found = blocked_by(
        {
            "lift": lift(0.0, 1.0),
            "metrics": [part("chrf", -0.2, 0.001, "text")],
            "slices": [cut("lang", en=(-0.3, 0.002))],
            "judges": [judge(False, "never calibrated")],
        }
    )
    assert [why.split()[1] for why in found] == ["gain", "chrf", "lang", "judge"]


@pytest.mark.parametrize("more", [{}, {"metrics": [], "slices": []}])
def test_a_result_without_parts_and_judges_is_asked_about_its_gain_only(more: dict[str, Any]) -> None:
    assert blocked_by({"lift": lift(), **more}) == []
    assert len(blocked_by({"lift": lift(0.01, 0.6), **more})) == 1


tests = st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-6, 1)), max_size=8)


@given(tests)
def test_what_blocks_is_a_loss_below_the_level_and_every_loss_below_bonferroni_blocks(
    told: list[tuple[float, float]],
) -> None:
    metrics = [part(f"m{at}", diff, p_value) for at, (diff, p_value) in enumerate(told)]
    named = {why.split()[1] for why in blocked_by({"lift": lift(), "metrics": metrics})}
    losses = {f"m{at}": p_value for at, (diff, p_value) in enumerate(told) if diff < 0}
    assert named <= {name for name, p_value in losses.items() if p_value < SIGNIFICANT}
    assert named >= {name for name, p_value in losses.items() if p_value < SIGNIFICANT / len(told)}


@given(tests, st.randoms(use_true_random=False))
def test_the_order_of_parts_changes_nothing(told: list[tuple[float, float]], random: Any) -> None:
    metrics = [part(f"m{at}", diff, p_value) for at, (diff, p_value) in enumerate(told)]
    shuffled = random.sample(metrics, len(metrics))
    result: dict[str, Any] = {"lift": lift()}
    assert blocked_by({**result, "metrics": metrics}) == blocked_by({**result, "metrics": shuffled})
