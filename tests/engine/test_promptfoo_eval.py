"""`promptfoo eval` on an exported folder scores what we score: the same model behind a server, the same rows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.models.model_registry import create_model
from agent.models.weights import weights_path
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import template
from agent.prompt.reply_parser import parse_reply
from agent.release.completion import request_of
from agent.release.formats.promptfoo import BASE_URL, QUIET
from agent.release.runtime import PromptRelease
from agent.task.load import load_task
from agent.types import Demo, Example
from tests.bench.arena.client import ModelServer, base_url
from tests.release.formats.sample import proved, wanted, write

MODEL = "smollm2-135m"
ROOT = Path(__file__).resolve().parents[2]
ROWS, DEMOS = 12, 16

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not weights_path(MODEL).is_file(), reason="no weights here: run `make setup`"),
]


def answers(release: PromptRelease, rows: tuple[Example, ...]) -> list[str]:
    """What the embedded model replies to each row, asked by us."""

    async def ask() -> list[str]:
        model = create_model(f"local/{MODEL}")
        try:
            requests = [request_of(release, release.row(row.inputs)) for row in rows]
            return [reply.text for reply in await asyncio.gather(*map(model.complete, requests))]
        finally:
            await model.close()

    return asyncio.run(ask())


def evaluated(folder: Path, url: str) -> list[dict[str, Any]]:
    """The results of `promptfoo eval`, by row: the folder as it was exported, and one variable for the server."""
    command = shutil.which("promptfoo")
    assert command is not None
    environ = {
        **os.environ,
        **QUIET,
        BASE_URL: url,
        "PROMPTFOO_CONFIG_DIR": str(folder / "home"),
        "PROMPTFOO_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    del environ["PROMPTFOO_DISABLE_TEMPLATE_ENV_VARS"]  # the address of the server is one
    plain = ["--no-cache", "--no-write", "--no-table", "--no-progress-bar", "-o", str(folder / "out.json")]
    done = subprocess.run(
        [command, "eval", *plain], cwd=folder / "promptfoo", env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 100), done.stderr
    results: list[dict[str, Any]] = json.loads((folder / "out.json").read_bytes())["results"]["results"]
    return sorted(results, key=lambda result: result["testIdx"])


@pytest.mark.extra("promptfoo")
def test_promptfoo_gives_our_score_row_by_row(tmp_path: Path) -> None:
    form, task = wanted("promptfoo"), load_task(ROOT / "tasks" / "support_triage")
    task = replace(task, dev=task.dev[:ROWS])
    demos = tuple(Demo(row.id, row.inputs, {"team": row.labels["team"]}) for row in task.train[:DEMOS])
    release = PromptRelease(
        name=task.name,
        messages=template(PromptCandidate("few-shot", "turns", task.instruction, demos=demos), task.signature),
        inputs=("message",),
        outputs=task.signature.outputs,
        format="turns",
        reasoning=False,
        model=f"local/{MODEL}",
        parameters={"max_tokens": 11, "temperature": 0.0},
        provenance={},
    )
    write(proved(form, release, task=task), tmp_path)
    replies = answers(release, task.dev)
    right = [
        parse_reply(reply, release.outputs, reasoning=False).fields == dict(row.labels)
        for reply, row in zip(replies, task.dev, strict=True)
    ]
    with ModelServer(weights_path(MODEL)) as server:
        found = evaluated(tmp_path, base_url(server.url, "promptfoo"))
    assert [result["response"]["output"] for result in found] == replies
    assert [result["success"] for result in found] == right
    assert 0 < sum(right) < ROWS  # or equal scores would say little
