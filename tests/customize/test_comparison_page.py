"""The page of a comparison in the web view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.report import facts
from agent.report.html import environment
from tests.customize.conftest import Made
from tests.report.test_web import data, page
from tests.report.web_world import signed_in


def test_the_settings_of_a_training_without_a_rank_are_shown() -> None:
    """A soft prompt and a whole model have a rate alone."""
    tried = [{"learning_rate": 0.01, "dev_loss": 1.5, "epochs": 2}, {"learning_rate": 0.03, "dev_loss": None}]
    lines = [
        {"arm": "soft-prompt", "chosen": tried[0], "tried": tried},
        {"arm": "lora", "chosen": {**tried[0], "rank": 8}, "tried": [{**tried[0], "rank": 8}]},
    ]
    parts: Any = environment().get_template("comparison_parts.html").module
    shown = " ".join(str(parts.charts({"settings": lines}, "", "")).split())
    assert "soft-prompt: dev chose rate 0.01; tried were 0.01 (dev loss 1.500 in epoch 2), 0.03 (no dev loss)." in shown
    assert "lora: dev chose rate 0.01, rank 8; tried were 0.01 with rank 8 (dev loss 1.500 in epoch 2)." in shown


async def test_the_page_of_a_comparison_has_its_arms_its_advice_and_its_losses(compared: Made) -> None:
    _, made = compared
    address = f"/run/{made['run_id']}"
    async with signed_in(Path("runs/ledger.db")) as (client, _):
        shown = await page(client, address)
        found = (await data(client, f"{address}.json"))["comparison"]
        live = await data(client, f"{address}/live.json")
        listed = await page(client, "/")
    assert made["advice"]["text"] in shown.words
    assert made["curve_text"] in shown.words
    assert "svg" in shown.structure
    for arm, line in zip(made["arms"], found["arms"], strict=True):
        assert facts.points(arm["test"]) in shown.words
        assert [cost["calls"] for cost in line["costs"]] == [1_000, 1_000_000]
        assert all(cost["hours"] > 0 for cost in line["costs"] if arm["family"] != "no model")
    assert len(found["losses"]) == 6
    assert live["training"].startswith("lora+prompt, ")
    assert live["loss"] > 0
    assert "Score against cost" in shown.words
    assert "dev chose rate" in shown.words
    assert f"no model: {made['advice']['arm']}" in listed.words
