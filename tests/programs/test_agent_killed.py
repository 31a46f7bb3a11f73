"""A run of an agent that is killed at any moment: no settled call is lost or bought twice, no process is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import agents
from tests.chaos.command import preload
from tests.chaos.harness import Campaign


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("share", [pytest.param(0.125, id="5"), pytest.param(1.0, id="40", marks=pytest.mark.long)])
def test_a_killed_run_of_an_agent_resumes_as_if_nothing_had_happened(share: float, here: Path) -> None:
    preload()
    campaign = Campaign(here, share)
    row = agents.kills(campaign)
    assert (row.broken, campaign.sweep()) == ((), [])
    assert row.runs == campaign.times(agents.KILLS)
