"""promptfoo is found where `.ci/run` installs it, too."""

import os
from pathlib import Path

import pytest

INSTALLED = Path(__file__).resolve().parents[2] / "build" / "promptfoo" / "node_modules" / ".bin"


@pytest.fixture(autouse=True)
def promptfoo_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ.get('PATH', '')}{os.pathsep}{INSTALLED}")
