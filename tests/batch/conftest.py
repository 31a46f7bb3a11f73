"""What the tests of batches share: short waits."""

from __future__ import annotations

import pytest

from agent.gateway import batch_course, batches, limiter


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(batch_course, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(limiter, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(batch_course, "LONGEST_WAIT", 0.05)
