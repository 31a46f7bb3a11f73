"""The recorded world of the snapshots as the current folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.snapshots.world import names_in, surroundings


@pytest.fixture
def names(recorded: Path, here: Path) -> Iterator[Mapping[str, str]]:
    """A copy of it; the ids of its runs by name. Its models are `toy/NAME`."""
    shutil.copytree(recorded, here, dirs_exist_ok=True)
    with surroundings(here):
        yield names_in(here)
