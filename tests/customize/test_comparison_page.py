"""The page of a comparison in the web view."""

from __future__ import annotations

from agent.report import wording
from agent.report.comparison import _settings
from agent.results.customize import ArmSettings
from tests.customize.conftest import Made
from tests.report.web_world import browsing


def test_the_settings_of_a_training_without_a_rank_are_shown() -> None:
    """A soft prompt and a whole model have a rate alone."""
    first = {"learning_rate": 0.01, "epochs": 2, "dev_loss": 1.5, "seconds": 3.0, "diverged": False, "ended": ""}
    tried = [first, {**first, "learning_rate": 0.03, "dev_loss": None}]
    line = ArmSettings.from_json({"arm": "soft-prompt", "chosen": {"learning_rate": 0.01}, "tried": tried})
    chosen, other = _settings([line]).rows
    assert chosen[:3] == ("soft-prompt", "0.01", "")
    assert (chosen[4], chosen[-1], other[4]) == ("1.500", "chosen", "-")


def test_the_page_of_a_comparison_has_its_arms_its_advice_and_its_losses(compared: Made) -> None:
    _, made = compared
    address = f"/run/{made['run_id']}"
    with browsing() as client:
        shown = client.page(address)
        sections = {each["name"]: each for each in client.data(f"{address}.json")["sections"]}
        live = client.data(f"{address}/live.json")
        listed = client.page("/")
    assert made["advice"]["text"] in shown.words
    assert made["curve_text"] in shown.words
    assert "svg" in shown.structure
    assert {"arms", "curve", "settings", "cost", "losses"} <= set(sections)
    for arm in made["arms"]:
        assert wording.points(arm["test"]) in shown.words
    assert live["training"].startswith("lora+prompt, ")
    assert live["loss"] > 0
    assert "Score against cost" in shown.words
    assert "settings that were tried on dev" in shown.words
    assert f"no model: {made['advice']['arm']}" in listed.words
