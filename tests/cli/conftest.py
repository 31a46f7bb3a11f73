"""Every test of this folder runs in its own empty current folder, without keys and settings of the user."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, files, good_json, learner
from tests.wire import WireServer

Made = tuple[dict[str, Any], dict[str, Any]]


def clean(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("OPTIMIZE_", "OPENAI_", "ANTHROPIC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and two finished runs of it in runs/ledger.db, made once. Its model is gone."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean(monkeypatch, folder)
        command = files(200)
        with WireServer(learner) as server:
            command += ["-m", compatible(server), "--price", "1,2", "-q"]
            runs = [
                good_json(*command, "--max-calls", "800", "--max-cost", "9"),
                good_json(*command, "--max-calls", "200", "--seed", "1", "--proposer", "none"),
            ]
    (folder / "made.json").write_text(json.dumps(runs), "utf-8")
    return folder


@pytest.fixture
def two_runs(made: Path, here: Path) -> Made:
    """A copy of `made` in the current folder; the results of its runs, in their order."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    first, second = json.loads(Path("made.json").read_text("utf-8"))
    return first, second
