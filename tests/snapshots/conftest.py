"""The snapshots of this folder, and the recorded world."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snapshots.keep import UPDATE, Snapshots
from tests.snapshots.world import unpack


@pytest.fixture
def snapshots(request: pytest.FixtureRequest) -> Snapshots:
    return Snapshots(bool(request.config.getoption(UPDATE)))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded world, unpacked. Tests copy it."""
    folder = tmp_path_factory.mktemp("recorded") / "world"
    unpack(folder)
    return folder
