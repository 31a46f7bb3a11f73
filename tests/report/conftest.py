"""The recorded world of the snapshots, with its runs, releases and scripted models, for pages that show or ask them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.snapshots.world import names_in, surroundings


@pytest.fixture
def runs(recorded: Path, here: Path) -> Iterator[Mapping[str, str]]:
    """A copy of the recorded world is the current folder; the ids of its runs by name."""
    shutil.copytree(recorded, here, dirs_exist_ok=True)
    with surroundings(here):
        yield names_in(here)
