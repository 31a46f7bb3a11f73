"""Swapped meanings of two labels, or of two tools, are mended by a small proposer (10 seeds: `make planted`)."""

from __future__ import annotations

from pathlib import Path

from tests.programs.moves.proposals import planted, planted_tools
from tests.search.worlds import Searched


def operators_of(found: Searched) -> set[str]:
    """Operators whose replies could be used."""
    assert found.context.asked <= found.context.plan.proposals
    return {record.operator for record in found.context.proposal_log.records if not record.refused}


def test_two_swapped_labels_are_mended(tmp_path: Path) -> None:
    assert planted.right_of_swapped(planted.INSTRUCTION, planted.planted(0)) < 0.2
    found = planted.run(tmp_path / "search", 0)
    assert planted.is_mended(found)
    assert "definitions" in operators_of(found)


def test_two_swapped_descriptions_are_mended(tmp_path: Path) -> None:
    task = planted_tools.planted(0)
    assert planted_tools.right_of_swapped(planted_tools.TOOLS, task) < 0.2
    found = planted_tools.run(tmp_path / "search", 0)
    tools = planted_tools.tools_of_winner(found)
    assert planted_tools.right_of_swapped(tools, task) >= 0.9
    assert {(t.name, t.parameters) for t in tools} == {(t.name, t.parameters) for t in planted_tools.TOOLS}
    assert "tool_use" in operators_of(found)
