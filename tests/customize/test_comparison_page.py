"""The page of a comparison in the web view."""

from __future__ import annotations

from pathlib import Path

from agent.report import facts
from tests.customize.conftest import Made
from tests.report.test_web import data, page
from tests.report.web_world import signed_in


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
