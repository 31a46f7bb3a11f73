"""A set of calls is complete after a short quiet time."""

from __future__ import annotations

import pytest

from agent.gateway import batches


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "QUIET_SECONDS", 0.05)
