"""A seed prompt that swaps the meanings of two labels is mended by a small proposer (10 seeds: `make planted`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.moves.proposals.planted import INSTRUCTION, is_mended, planted, right_of_swapped, run


@pytest.mark.parametrize("seed", [0])
def test_two_swapped_labels_are_mended(tmp_path: Path, seed: int) -> None:
    assert right_of_swapped(INSTRUCTION, planted(seed)) < 0.2
    found = run(tmp_path / "search", seed)
    assert is_mended(found)
    records = found.context.proposal_log.records
    assert "definitions" in {record.operator for record in records if not record.refused}
    assert found.context.asked <= found.context.plan.proposals
