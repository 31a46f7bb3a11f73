"""A search of a tiny random model and the comparison after it, made once; its model is there, and says noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import good_json
from tests.conftest import clean
from tests.customize.world import MODEL, write_world

Made = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of both in made.json."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean(monkeypatch, folder)
        words = write_world()
        search = good_json("run", *words, "--max-calls", "300", "-q")
        compared = good_json("customize", *words, "--curve", "16,24,all", "--expected-calls", "1000", "-q")
    (folder / "made.json").write_text(json.dumps([search, compared, MODEL]), "utf-8")
    return folder


@pytest.fixture
def compared(comparison: Path, here: Path) -> Made:
    """A copy of it in the current folder: the result of the search, and that of the comparison."""
    shutil.copytree(comparison, here, dirs_exist_ok=True)
    search, compared, _ = json.loads(Path("made.json").read_text("utf-8"))
    return search, compared
