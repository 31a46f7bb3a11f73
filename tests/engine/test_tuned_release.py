"""A released prompt with an adapter, as production uses it: it answers with it, wherever the folder lies."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.models.model_registry import create_model
from agent.models.weights import weights_path
from agent.prompt.parts.adapter import released_model
from agent.release.export import write_release
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.types import Field, Message, Request
from tests.engine.test_embedded import write_task
from tests.models.lora import lora

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not weights_path("smollm2-135m").is_file(), reason="no weights here: run `make setup`"),
]

QUESTION = "Will it rain in Rome?"


def answer(name: str, messages: tuple[Message, ...]) -> str:
    async def run() -> str:
        model = create_model(name)
        try:
            return (await model.complete(Request(messages, 8))).text
        finally:
            await model.close()

    return asyncio.run(run())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A released prompt; the adapter that it was made of is gone."""
    made = lora(tmp_path / "made.gguf", 0, strength=1.0)
    model, adapter = released_model(f"local/smollm2-135m+{made}")
    release = PromptRelease(
        name="topics",
        messages=(Message("user", "Say what this is about: {{question}}"),),
        inputs=("question",),
        outputs=(Field("topic", "choice", choices=("weather_report", "train_ticket")),),
        format="turns",
        reasoning=False,
        model=model,
        parameters={"max_tokens": 8, "temperature": 0.0},
        provenance={},
        adapter=adapter,
    )
    write_release(release, tmp_path / "released")
    made.unlink()
    return tmp_path / "released"


def test_a_loaded_prompt_answers_with_its_adapter(folder: Path) -> None:
    prompt = load_prompt(folder)
    messages = prompt.release.fill({"question": QUESTION})
    said = prompt.complete(question=QUESTION).raw
    assert said == answer(prompt.model, messages)
    assert said != answer("local/smollm2-135m", messages)


def test_check_asks_the_adapter_that_lies_beside_the_prompt(folder: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "topics")

    def run(*words: object) -> dict[str, object]:
        done = CliRunner().invoke(main, [*map(str, words), "--db", str(tmp_path / "l.db"), "--json", "--quiet"])
        assert done.exit_code == 0, done.output
        found: dict[str, object] = json.loads(done.stdout)
        return found

    run("bless", folder, "--task", task, "--limit", 3, "--reason", "as it is", "--repeats", 1)
    assert json.loads((folder / "suite.json").read_text())["model"] == "local/smollm2-135m+adapter.gguf"
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    checked = run("check", moved)
    assert checked["gate"] == "passed"
    assert checked["model"] == f"local/smollm2-135m+{moved}/adapter.gguf"
