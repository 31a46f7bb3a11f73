"""`--sampler` and `--pruner` through the whole command: kept, refused early, the same after a kill, and shown."""

from __future__ import annotations

from typing import Any

import pytest

import promptassay as pa
from tests.cli.world import compatible, files, learner, refused
from tests.wire import WireServer


def test_what_cannot_work_is_a_mistake_of_use_before_anything_is_called(monkeypatch: Any) -> None:
    monkeypatch.setattr("agent.search.registered.find_spec", lambda package: None)
    with WireServer(learner) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", "300"]
        assert "tpe" in "".join(refused(2, *command, "--sampler", "what"))
        assert "wilcoxon" in "".join(refused(2, *command, "--pruner", "what"))
        *_, line = refused(2, *command, "--sampler", "gp")
        assert "--sampler gp needs torch, which is not installed; pip install torch" in line
        *_, line = refused(2, *command, "--strategy", "dspy-mipro", "--sampler", "tpe")
        assert "--sampler tpe: dspy-mipro uses none" in line
        with pytest.raises(pa.InputError, match=r"(?s)sampler.*pruner"):
            pa.optimize("rows.csv", target="label", prompt="p.txt", model=compatible(server), sampler="x", pruner="y")
        assert not server.requests
