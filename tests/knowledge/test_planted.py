"""Whole runs on a task whose answers stand in documents alone: winner and release look passages up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.runtime import MESSAGES_FILE, load_prompt
from agent.task.load import load_task
from tests.cli.world import compatible
from tests.knowledge.planted import INSTRUCTION, reader, write_task
from tests.wire import WireServer


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, **more: Any) -> tuple[Any, list[Any]]:
    with WireServer(reader) as server:
        result = pa.optimize(folder, model=compatible(server), proposer="none", max_calls=500, **more)
        return result, server.requests


def test_the_winner_looks_passages_up_and_its_release_sends_the_same(here: Path) -> None:
    result, requests = run(write_task(here / "task"))
    assert result.decision == "promote"
    assert result.baseline.test < 0.2
    assert result.winner.test > 0.95
    prompt = result.release.load()
    assert prompt.release.passages is not None
    twin = load_prompt(result.release.path.with_name(MESSAGES_FILE))
    assert twin.version == prompt.version
    (export,) = verify_exports([FORMATS.get("python")], {"python": Material(prompt.release)})
    (here / "prompt.py").write_text(export.texts["prompt.py"], "utf-8")
    module = load_module(here / "prompt.py", "exported")
    sent = [request.body["messages"] for request in requests]
    for row in load_task(here / "task").test:
        messages = prompt.render(**row.inputs)
        assert messages in sent
        assert messages == twin.render(**row.inputs) == module.render(**row.inputs)
        assert prompt.parse(reader(messages, {})).fields["answer"] == row.labels["answer"]


def test_the_users_own_place_for_passages_gets_them_in_the_baseline(here: Path) -> None:
    own = f"{INSTRUCTION}\n\n{{{{ context }}}}\n\nQuestion: {{{{question}}}}"
    result, requests = run(write_task(here / "task", own), trials=1)
    assert result.baseline.test == 1.0
    assert result.decision == "keep_baseline"
    sent = requests[0].body["messages"]
    assert [message["role"] for message in sent] == ["user"]
    assert sent[0]["content"].startswith(f"{INSTRUCTION}\n\nPassages of documents")
    assert result.release.load().release.passages.settings.k == 4
