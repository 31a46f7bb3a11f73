"""The recorded world: a folder with tasks, runs and releases, and the scripted models that its runs asked."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.types import Request
from tests.cli.judges import PlantedJudge
from tests.cli.label_world import drafter
from tests.cli.world import knowing, learner, stubborn
from tests.scripted import toy_kind
from tests.toys import FakeModel

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "world"
NAMES = "names.json"
"""In the recorded world: by name the id of each run."""
USER, MACHINE = "ann", "machine"
REPLIES = {
    "learner": learner,
    "knowing": knowing,
    "stubborn": stubborn,
    "drafter": drafter,
    "judge": PlantedJudge(),
    "interrupted": learner,
}
"""By name what a model `toy/NAME` answers: a function of the messages and the request's body."""


def _toy(name: str, rest: str) -> FakeModel:
    def answer(request: Request) -> str:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        said = REPLIES[rest](messages, {"seed": request.seed})
        assert isinstance(said, str)
        return said

    return FakeModel(answer, name, 16)


@contextmanager
def toy_models() -> Iterator[None]:
    """Registers `toy/NAME` as models, for this process and this while."""
    with toy_kind(_toy):
        yield


@contextmanager
def surroundings(folder: Path, width: int = 80) -> Iterator[None]:
    """`folder` as the current one, with a user, a machine and a terminal width that are the same everywhere."""
    with pytest.MonkeyPatch.context() as patch, toy_models():
        for name in list(os.environ):
            if name.startswith(("OPTIMIZE_", "OPENAI_", "ANTHROPIC_", "OTEL_", "LANGCHAIN_", "LANGSMITH_", "XDG_")):
                patch.delenv(name)
        for name in ("LOGNAME", "USER"):
            patch.setenv(name, USER)
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TZ", "UTC")
        time.tzset()
        patch.setenv("HOME", str(folder))
        patch.setattr("socket.gethostname", lambda: MACHINE)
        patch.setattr("sys.argv", ["optimize"])
        patch.chdir(folder)
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


def pack(folder: Path) -> None:
    """Keeps `folder` as the recorded world; its ledgers are compressed."""
    shutil.rmtree(RECORDED, ignore_errors=True)
    shutil.copytree(folder, RECORDED, ignore=shutil.ignore_patterns("*.db-wal", "*.db-shm", "*.lock"))
    for ledger in RECORDED.rglob("*.db"):
        ledger.with_name(f"{ledger.name}.xz").write_bytes(lzma.compress(ledger.read_bytes(), preset=9))
        ledger.unlink()


def unpack(folder: Path) -> None:
    """Puts the recorded world into a new folder."""
    shutil.copytree(RECORDED, folder)
    for packed in folder.rglob("*.db.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()


def names_in(folder: Path) -> dict[str, str]:
    """By name the ids of the recorded runs, and of the winner of `search`."""
    names: dict[str, str] = json.loads((folder / NAMES).read_text("utf-8"))
    return names
