"""A name becomes its model, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import InputError
from agent.models.anthropic import AnthropicModel
from agent.models.langchain import LangChainModel
from agent.models.local import LocalModel
from agent.models.model_registry import create_model
from agent.models.openai import OpenAIModel
from agent.models.recorded import ScriptedModel


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai/gpt-x", OpenAIModel),
        ("openai-compatible/m@http://127.0.0.1:9/v1", OpenAIModel),
        ("anthropic/claude-x", AnthropicModel),
        ("langchain/openai:gpt-x", LangChainModel),
        ("local/some/where.gguf", LocalModel),
        ("local/smollm2-135m", LocalModel),
    ],
)
def test_a_name_becomes_its_model_and_keeps_its_name(name: str, kind: type) -> None:
    model = create_model(name)
    assert isinstance(model, kind)
    assert model.name == name


def test_a_scripted_name_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"reply": "a"}\n')
    assert isinstance(create_model(f"scripted/{tmp_path}/s.jsonl"), ScriptedModel)


@pytest.mark.parametrize(
    "name",
    [
        "", "gpt-x", "openai/", "nobody/x", "openai-compatible/m", "openai-compatible/@http://h/v1", "openai-compatible/m@ftp://h",
        "langchain/openai", "langchain/openai:", "local/no-such-model",
    ],
)  # fmt: skip
def test_any_other_name_is_refused_in_one_line_with_what_would_do(name: str) -> None:
    with pytest.raises(InputError) as caught:
        create_model(name)
    assert repr(name.removeprefix("local/")) in str(caught.value)
    assert "\n" not in str(caught.value)
