"""A search of a tiny random model and the comparison after it, made once; its model is there, and says noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import good_json
from tests.conftest import copied, made_once
from tests.customize.world import write_world

Made = tuple[dict[str, Any], dict[str, Any]]


def _search_and_comparison() -> list[dict[str, Any]]:
    words = write_world(96)
    search = good_json("run", *words, "--max-calls", "180", "-q")
    more = ["--curve", "16,all", "--settings", "2", "--expected-calls", "1000"]
    return [search, good_json("customize", *words, *more, "-q")]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of both in made.json."""
    return made_once(tmp_path_factory, "compared", _search_and_comparison)


@pytest.fixture
def compared(comparison: Path, here: Path) -> Made:
    """A copy of it in the current folder: the result of the search, and that of the comparison."""
    search, compared = copied(comparison, here)
    return search, compared
