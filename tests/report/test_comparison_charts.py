"""Score against cost: the unit in which arms are compared, and what is drawn of names from elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from agent.report.charts import cost_points, cost_unit, losses, score_against_cost, svg
from agent.results.customize import ComparedArm


def arm(name: str, **more: Any) -> ComparedArm:
    line = {"arm": name, "about": "", "family": "prompt", "candidate_id": "c", "test": 0.5, "ci95": [0.4, 0.6]}
    line |= dict.fromkeys(("diff", "diff_ci95", "p_value", "break_even_calls", "elsewhere", "seeds"))
    line |= dict.fromkeys(("unscored", "labels", "train_s", "train_usd", "usd_per_1000", "megabytes"), 0)
    return ComparedArm.from_json({**line, "tokens_per_call": 100.0, "latency_s": 1.8, "path": "", **more})


LOCAL = [arm("yours"), arm("best"), arm("lora", family="tuned", test=0.7, train_s=3600.0, latency_s=0.36)]


def test_hours_of_training_and_calls_where_nothing_costs_dollars() -> None:
    assert cost_unit(LOCAL) == "hours"
    both, lora = cost_points(LOCAL, 1000)
    assert (both.names, both.score) == (("yours", "best"), 0.5)
    assert both.cost == pytest.approx(0.5)
    assert lora.cost == pytest.approx(1 + 0.1)
    assert cost_points(LOCAL, 1_000_000)[1].cost == pytest.approx(1 + 100)


def test_dollars_where_all_are_known_and_tokens_where_nothing_is() -> None:
    hosted = [arm("yours", usd_per_1000=2.0), arm("hosted", usd_per_1000=1.0, train_usd=3.0)]
    assert cost_unit(hosted) == "$"
    assert [point.cost for point in cost_points(hosted, 1000)] == [2.0, 4.0]
    unknown = [arm("yours", usd_per_1000=None, latency_s=None), arm("none", tokens_per_call=0.0)]
    assert cost_unit(unknown) == "tokens"
    assert [point.cost for point in cost_points(unknown, 1000)] == [100_000, 0]


def test_an_arm_without_a_score_is_left_out() -> None:
    assert [point.names for point in cost_points([arm("a"), arm("b", test=None, ci95=None)], 1000)] == [("a",)]


def test_names_are_text_in_the_drawing_and_nothing_is_lost() -> None:
    arms = [arm("<script>$x$", test=0.01), arm("free", tokens_per_call=0.0, latency_s=0.0, test=0.02), *LOCAL]
    drawn = svg(score_against_cost(arms), "cost", "t")
    assert "<script>" not in drawn
    for name in ("&lt;script&gt;$x$", "free", "yours, best", "lora", "1,000,000 calls"):
        assert name in drawn
    assert "mathdefault" not in drawn
    assert "lora, 160 rows" in svg(losses({"lora, 160 rows": [2.0, 1.0], "b": [1.0]}), "losses", "t")
