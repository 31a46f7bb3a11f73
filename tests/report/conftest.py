"""A world whose model still answers, for pages that ask it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.world import compatible, files, good, good_json, learner
from tests.conftest import clean
from tests.wire import Reply, WireServer


@dataclass(frozen=True, slots=True)
class Playable:
    """A finished run that was released, with the server of its model: `version` is in production after one move back,
    and `other` was there meanwhile, of a run `picking` whose examples are picked. The last of `answers` says what the
    model answers."""

    folder: Path
    server: WireServer
    run_id: str
    picking: str
    version: str
    other: str
    answers: list[Reply]


@pytest.fixture(scope="session")
def playable_made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playable]:
    """Made once; its server answers as long as the session lasts."""
    folder = tmp_path_factory.mktemp("playable")
    answers: list[Reply] = [learner]
    with WireServer(lambda messages, body: answers[-1](messages, body)) as server:
        with pytest.MonkeyPatch.context() as monkeypatch:
            clean(monkeypatch, folder)
            command = [*files(360), "-m", compatible(server), "--price", "1,2", "-q", "--proposer", "none"]
            command += ["--max-calls", "400"]
            runs = [good_json(*command, *more)["run_id"] for more in (("--no-retrieval",), ("--seed", "2"))]
            for run in runs:
                good("promote", run, "--reason", f"better: <b>{run}</b>", "--actor", "Ann")
            good("rollback", "rows", "--reason", "too long", "--actor", "Bob")
        found = [json.loads((folder / "runs" / run / "messages.json").read_text("utf-8"))["version"] for run in runs]
        yield Playable(folder, server, *runs, *found, answers)


@pytest.fixture
def playable(playable_made: Playable, here: Path) -> Iterator[Playable]:
    """A copy of it in the current folder; its model answers as before after each test."""
    shutil.copytree(playable_made.folder, here, dirs_exist_ok=True)
    yield playable_made
    del playable_made.answers[1:]
