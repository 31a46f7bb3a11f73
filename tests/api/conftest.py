"""Every test of this folder runs in its own empty current folder, without keys, settings and functions of the user."""

from pathlib import Path

import pytest

from agent.scoring import function_metric
from tests.cli.conftest import clean


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    monkeypatch.setattr(function_metric, "_REGISTERED", {})
    return tmp_path
