"""The arm `soft-prompt` of a comparison: when it takes part, and with which models."""

from __future__ import annotations

from pathlib import Path

from agent.jobs.customize.arms import ARMS
from agent.jobs.customize.plan import require_arms
from agent.jobs.customize.trainer import why_no_soft_prompt
from tests.training.tiny import tiny, with_vocabulary


def test_it_takes_part_when_it_is_asked_for_alone() -> None:
    by_default, unknown = require_arms([])
    assert [spec.name for spec in by_default] == [
        name for name in ARMS if name not in ("soft-prompt", "full", "hosted")
    ]
    assert unknown == []
    asked, _ = require_arms(["lora", "soft-prompt"])
    assert [spec.name for spec in asked] == ["yours", "soft-prompt", "lora"]
    assert {spec.family for spec in asked[1:]} == {"tuned"}


def test_a_model_needs_a_free_token(tmp_path: Path) -> None:
    without = with_vocabulary(tiny(tmp_path / "a.gguf"))
    assert "no free control token" in why_no_soft_prompt(without)
    assert why_no_soft_prompt(with_vocabulary(tiny(tmp_path / "b.gguf"), control={3: "<a>"})) == ""
    assert why_no_soft_prompt(tmp_path / "not-fetched-yet.gguf") == ""
