"""Exports of a prompt that calls tools: each target sends the winner's texts, and examples as calls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import load_prompt
from agent.task.tools import read_tools
from agent.types import Field, Message, Tool, calls_schema

HOSTILE = 'Plays music. """ {{request}} </tools> \\ \u2028 "quoted" é <|im_start|>'
PLAY = Tool("play", HOSTILE, json.dumps({"type": "object", "properties": {"title": {"description": "as said"}}}))
STOP = Tool("stop", "Stops.", json.dumps({"type": "object", "properties": {}}))
RELEASE = PromptRelease(
    name="player",
    messages=(
        Message("system", "Call the tool that does what is asked."),
        Message("user", "Some Bach"),
        Message("assistant", '[{"play": {"title": "Bach é"}}, {"name": "stop"}]'),
        Message("user", "Thanks"),
        Message("assistant", "[]"),
        Message("user", "{{request}}"),
    ),
    inputs=("request",),
    outputs=(Field("calls", "json", schema=calls_schema((PLAY, STOP))),),
    format="turns",
    reasoning=False,
    model="openai/m",
    parameters={"max_tokens": 64},
    provenance={"run_id": "r"},
    tools=(PLAY, STOP),
)
SENT = [
    ("system", None),
    ("user", None),
    ("assistant", [("play", {"title": "Bach é"}), ("stop", {})]),
    ("tool", None),
    ("tool", None),
    ("user", None),
    ("assistant", None),
    ("user", None),
]


def exported(name: str, folder: Path, release: PromptRelease = RELEASE) -> None:
    form = FORMATS.get(name)
    write_exports(verify_exports([form], {name: Material(release)}), folder)


def shape(sent: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Roles, and the calls of each message."""
    found = []
    for message in sent:
        calls = [
            (c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls") or ()
        ]
        found.append((message["role"], calls or None))
    return found


def test_the_tools_of_the_prompt_are_written_for_each_provider(tmp_path: Path) -> None:
    exported("tools", tmp_path)
    for name in ("tools.openai.json", "tools.anthropic.json"):
        tools, wrong = read_tools(json.loads((tmp_path / name).read_text("utf-8")))
        assert (tools, wrong) == ((PLAY, STOP), [])
    with pytest.raises(ReleaseError, match="calls no tools"):
        exported("tools", tmp_path, replace(RELEASE, tools=()))


@pytest.mark.parametrize("name", ["md", "messages"])
def test_our_own_files_hold_the_texts(name: str, tmp_path: Path) -> None:
    exported(name, tmp_path)
    (file,) = tmp_path.iterdir()
    assert load_prompt(file).release.tools == RELEASE.tools


def test_python_sends_examples_as_calls(tmp_path: Path) -> None:
    exported("python", tmp_path)
    module = load_module(tmp_path / "prompt.py", "exported_tools")
    assert [tool["function"]["description"] for tool in module.TOOLS] == [HOSTILE, "Stops."]
    assert shape(module.sent(request="Some Satie")) == SENT
    assert module.sent(request="Some Satie")[-1] == {"role": "user", "content": "Some Satie"}


def test_langchain_sends_examples_as_calls(tmp_path: Path) -> None:
    from langchain_core.messages import convert_to_openai_messages

    exported("langchain", tmp_path)
    module = load_module(tmp_path / "langchain_prompt.py", "exported_tools_langchain")
    assert [tool["function"]["description"] for tool in module.TOOLS] == [HOSTILE, "Stops."]
    messages = module.prompt.invoke({"request": "Some Satie"}).to_messages()
    assert shape(convert_to_openai_messages(messages)) == SENT
    assert (
        "ChatOpenAI(model=..., **prompt.metadata).bind_tools(TOOLS)" in (tmp_path / "langchain_prompt.py").read_text()
    )


def test_mlflow_sends_examples_as_calls_and_keeps_the_tools(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    exported("mlflow", tmp_path)
    module = load_module(tmp_path / "mlflow_model.py", "exported_tools_mlflow")
    assert module.arguments()["metadata"]["tools"] == module.TOOLS
    (sent,) = module.ReleasedPrompt().predict([{"request": "Some Satie"}])
    assert shape(sent) == SENT


def test_a_template_alone_is_refused() -> None:
    with pytest.raises(ReleaseError, match="export as md, messages, python, langchain, mlflow or tools"):
        verify_exports([FORMATS.get("prompty")], {"prompty": Material(RELEASE)})
