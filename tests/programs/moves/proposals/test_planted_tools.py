"""Two tools whose descriptions name each other's words are mended by a small proposer, and not without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.moves.proposals.planted_tools import TOOLS, planted, right_of_swapped, run, tools_of_winner


@pytest.mark.parametrize("seed", [0])
def test_two_swapped_descriptions_are_mended(tmp_path: Path, seed: int) -> None:
    task = planted(seed)
    assert right_of_swapped(TOOLS, task) < 0.2
    found = run(tmp_path / "search", seed)
    tools = tools_of_winner(found)
    assert right_of_swapped(tools, task) >= 0.9
    assert [(t.name, t.parameters) for t in sorted(tools, key=lambda t: t.name)] == [
        (t.name, t.parameters) for t in sorted(TOOLS, key=lambda t: t.name)
    ]
    assert "tool_use" in {record.operator for record in found.context.proposal_log.records if not record.refused}
    assert found.context.asked <= found.context.plan.proposals
