"""Each format by the real library: 200 hostile rows come out byte for byte, or nothing is written."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import ReleaseError
from agent.prompt.template import fill_messages, join
from agent.release.formats.base import Material
from agent.release.formats.catalog import FORMATS
from agent.release.formats.llm import LLM
from agent.types import Message
from tests.release.formats.sample import INPUTS, WILD, plain_turns, proved, refused, release, two, wanted, write


@pytest.mark.parametrize("name", ["md", "messages", "anthropic", "langchain", "python"])
def test_hostile_values_and_hostile_fixed_text_come_out_byte_for_byte(name: str) -> None:
    form = wanted(name)
    for sent in (release(), plain_turns(), release(*two(WILD))):
        made = proved(form, sent)
        assert set(made.unfit) <= {"half a character (a lone surrogate)"}


def test_llm_carries_one_system_text_and_one_prompt() -> None:
    form = wanted("llm")
    assert proved(form, release(*two(WILD))).unfit == {}
    alone = release(Message("user", "Route: {{message}} $x"), inputs=("message",))
    made = proved(form, alone)
    assert "${input} $$x" in made.texts["llm.yaml"]


def test_llm_refuses_turns_and_says_what_to_do() -> None:
    with pytest.raises(ReleaseError, match=r"not the 4 messages \(system, user, assistant, user\).*another format"):
        LLM.files(Material(release()))


def test_the_llm_file_reads_as_a_person_would_write_it() -> None:
    sent = release(
        Message("system", "Route it.\nTeams: a, b"), Message("user", "{{message}} costs $5"), inputs=("message",)
    )
    assert LLM.files(Material(sent))["llm.yaml"] == (
        f"# support_triage, {sent.version}\n"
        'model: "gpt-x"\noptions:\n  temperature: 0.0\n  max_tokens: 64\n'
        'system: |-\n  Route it.\n  Teams: a, b\nprompt: "${input} costs $$5"\n'
    )


def test_anthropic_has_the_system_text_apart() -> None:
    body = json.loads(FORMATS["anthropic"].files(Material(plain_turns()))["anthropic.json"])
    assert body["system"].startswith("Route the message.")
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["max_tokens"] == 64
    late = release(Message("user", "{{message}}"), Message("system", "x"))
    assert "roles here are user, system" in refused(FORMATS["anthropic"], late)


def test_langchain_reads_what_it_would_have_written_itself() -> None:
    wanted("langchain")
    from langchain_core.load import dumps, loads

    text = FORMATS["langchain"].files(Material(release()))["langchain.json"]
    template = loads(text, allowed_objects="core")
    assert sorted(template.input_variables) == sorted(INPUTS)
    again = loads(dumps(template), allowed_objects="core")
    assert again == template


def test_the_python_module_needs_only_python_and_is_typed(tmp_path: Path) -> None:
    sent = release(*two(WILD))
    write(proved(FORMATS["python"], sent), tmp_path)
    tree = ast.parse((tmp_path / "prompt.py").read_text("utf-8"))
    assert {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} == {"__future__", "typing"}
    script = "import json, prompt; print(json.dumps(prompt.render(message='{{context}}', context='\\\\1')))"
    printed = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    values = {"message": "{{context}}", "context": "\\1"}
    assert json.loads(printed) == [message.as_dict() for message in fill_messages(sent.messages, values)]
    assert "cannot be an argument" in refused(
        FORMATS["python"], release(Message("user", "{{class}}"), inputs=("class",))
    )


def test_a_mark_next_to_a_brace_or_a_backslash_is_still_a_mark() -> None:
    parts = ["{", ("message",), "}\\", ("context",), "{{", ("message",), "}}$", ("context",), "{%"]
    sent = release(Message("user", join(parts, INPUTS)))
    for name in ("md", "messages", "langchain", "python", "llm", "anthropic"):
        form = FORMATS[name]
        if not form.library or wanted_or_none(name):
            proved(form, sent)


def wanted_or_none(name: str) -> bool:
    try:
        wanted(name)
    except pytest.skip.Exception:
        return False
    return True
