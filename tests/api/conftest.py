"""Every test of this folder runs in its own empty current folder, without keys and settings of the user."""

from pathlib import Path

import pytest

from tests.cli.conftest import clean


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    return tmp_path
