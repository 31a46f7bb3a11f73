"""Charts: the unit of costs, what is drawn of names from elsewhere, and room for the plot."""

from __future__ import annotations

from typing import Any

import pytest

from agent.report.charts import cost_points, cost_unit, losses, over_time, score_against_cost, svg
from agent.report.checks import CheckPoint
from agent.results.customize import ComparedArm


def arm(name: str, **more: Any) -> ComparedArm:
    line = {"arm": name, "about": "", "family": "prompt", "candidate_id": "c", "test": 0.5, "ci95": [0.4, 0.6]}
    line |= dict.fromkeys(("diff", "diff_ci95", "p_value", "break_even_calls", "elsewhere", "seeds"))
    line |= dict.fromkeys(("unscored", "labels", "train_s", "train_usd", "usd_per_1000", "megabytes"), 0)
    return ComparedArm.from_json({**line, "tokens_per_call": 100.0, "latency_s": 1.8, "path": "", **more})


LOCAL = [arm("yours"), arm("best"), arm("lora", family="tuned", test=0.7, train_s=3600.0, latency_s=0.36)]
HOSTED = [arm("yours", usd_per_1000=2.0), arm("hosted", usd_per_1000=1.0, train_usd=3.0)]
UNKNOWN = [arm("yours", usd_per_1000=None, latency_s=None), arm("none", tokens_per_call=0.0)]


@pytest.mark.parametrize(
    ("arms", "calls", "unit", "costs"),
    [
        (LOCAL, 1000, "hours", {("yours", "best"): 0.5, ("lora",): 1.1}),
        (LOCAL, 1_000_000, "hours", {("yours", "best"): 500, ("lora",): 101}),
        (HOSTED, 1000, "$", {("yours",): 2, ("hosted",): 4}),
        (UNKNOWN, 1000, "tokens", {("yours",): 100_000, ("none",): 0}),
        ([*LOCAL[:1], arm("b", test=None, ci95=None)], 1000, "hours", {("yours",): 0.5}),
    ],
)
def test_costs_have_the_unit_that_all_arms_have(
    arms: list[ComparedArm], calls: int, unit: str, costs: dict[tuple[str, ...], float]
) -> None:
    assert cost_unit(arms) == unit
    assert {point.names: point.cost for point in cost_points(arms, calls)} == pytest.approx(costs)


def test_names_are_text_in_the_drawing_and_nothing_is_lost() -> None:
    arms = [arm("<script>$x$", test=0.01), arm("free", tokens_per_call=0.0, latency_s=0.0, test=0.02), *LOCAL]
    drawn = svg(score_against_cost(arms), "cost", "t")
    for name in ("&lt;script&gt;$x$", "free", "yours, best", "lora", "1,000,000 calls"):
        assert name in drawn
    assert ("<script>" in drawn, "mathdefault" in drawn) == (False, False)
    assert "lora, 160 rows" in svg(losses({"lora, 160 rows": [2.0, 1.0], "b": [1.0]}), "losses", "t")


def test_a_long_model_name_takes_no_room_from_the_plot_and_the_reference_is_that_of_each_check() -> None:
    model = "openai-compatible/" + "a_model_with_a_long_name" * 4 + "@http://127.0.0.1:8080/v1"
    same = {"run_id": "r", "name": "rows", "version": "p_1", "model": model, "gate": "passed", "score": 0.9}
    same |= {"flipped": 1, "rows": 30, "p_value": 0.5}
    days = zip((10, 11, 12), (0.867, 0.867, 0.933), strict=True)
    figure = over_time([CheckPoint(**same, utc=f"2026-11-{day}T08:00:00+00:00", reference=was) for day, was in days])
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_position().width > 0.75
    assert axes.get_position().height > 0.4
    shown = legend.get_window_extent().transformed(figure.transFigure.inverted())
    assert 0 <= shown.x0 < shown.x1 <= 1
    assert axes.get_position().y1 < shown.y0 < shown.y1 <= 1
    assert "".join(legend.get_texts()[0].get_text().split()) == f"p_1on{model}"
    (dashed,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(dashed.get_ydata()) == pytest.approx([86.7, 86.7, 93.3])  # type: ignore[arg-type]
