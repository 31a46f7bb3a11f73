"""The snapshots of this folder."""

from __future__ import annotations

import pytest

from tests.snapshots.keep import UPDATE, Snapshots


@pytest.fixture
def snapshots(request: pytest.FixtureRequest) -> Snapshots:
    return Snapshots(bool(request.config.getoption(UPDATE)))
