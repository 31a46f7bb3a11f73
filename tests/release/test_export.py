"""What a release writes is read back byte for byte, and nothing is written that would be read or rendered otherwise."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ReleaseError
from agent.prompt.template import placeholder
from agent.release import export
from agent.release.export import HOSTILE, export_markdown, export_messages, hostile_rows, write_release
from agent.release.prompt_file import release_in
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.types import Field, Message
from tests.cases import each_case

INPUTS = ("message", "context")
TEAM = Field("team", "choice", "Who answers.", ("billing", "account changes"))
BITS = [
    *("## system", "## user", "\\## user", "\\\\## system", "## user ", "## User", "# user", "## userx", "## pool"),
    *("\n", "\n\n", "\r", "\r\n", "\0", "\u2028", "\u2029", "\x85", "\x0c", "\ufeff", "\\", "+++", "---", " ", "\t"),
    *("{{message}}", "\\{{message}}", "{{context}}", "{{other}}", "{", "}}"),
]
UTF8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTENTS = st.one_of(UTF8, st.lists(st.one_of(st.sampled_from(BITS), UTF8), max_size=12).map("".join))
ROLES = st.sampled_from(["system", "user", "assistant"])
MESSAGES = st.lists(st.builds(Message, ROLES, CONTENTS), min_size=1, max_size=5).map(tuple)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(UTF8, st.integers(-(10**30), 10**30), st.booleans(), FLOATS)
JSONS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(UTF8, inner, max_size=4)),
    max_leaves=12,
)
TABLES = st.dictionaries(UTF8, JSONS, max_size=5)


def release(*contents, **changes):
    values = {
        "name": "support_triage",
        "messages": tuple(Message("user", content) for content in contents) or (Message("user", "{{message}}"),),
        "inputs": INPUTS,
        "outputs": (TEAM, Field("data", "json", schema='{"type": "object", "pattern": "\\\\d\'"}')),
        "format": "turns",
        "reasoning": False,
        "model": "openai/gpt-x",
        "parameters": {"max_tokens": 64, "temperature": 0.0, "stop": ("\n",)},
        "provenance": {"run_id": "r_1", "lift": {"ci95": (0.09, 0.25), "p_value": 1e-05}, "judge_kappa": None},
    }
    return PromptRelease(**{**values, **changes})


def read(text):
    return release_in(text.encode("utf-8").decode("utf-8"), Path("file"))


@settings(max_examples=300)
@given(MESSAGES, TABLES, TABLES, UTF8, UTF8, st.booleans(), st.lists(UTF8, max_size=3).map(tuple))
def test_any_release_survives_both_files_exactly(messages, parameters, provenance, name, model, reasoning, choices):
    outputs = (Field("team", "choice", name, choices), Field("other", "json", schema=json.dumps(model)))
    kept = {key: value for key, value in parameters.items() if key not in ("max_tokens", "temperature", "stop")}
    sent = release(
        messages=messages, parameters=kept, provenance=provenance, name=name, model=model, reasoning=reasoning,
        outputs=outputs,
    )  # fmt: skip
    assert read(export_markdown(sent)) == read(export_messages(sent)) == sent


@given(st.text(st.one_of(st.characters(categories=["Cs"]), st.characters()), max_size=8))
def test_lone_surrogates_survive_json_or_are_refused_by_name(text):
    sent = release(text)
    if re.search("[\ud800-\udbff][\udc00-\udfff]", text):  # JSON would read the two as one character
        with pytest.raises(ReleaseError, match="two characters"):
            export_messages(sent)
    else:
        assert read(export_messages(sent)) == sent


@each_case("change", [{"messages": (Message("user", "a\ud800b"),)}, {"name": "\udfff"}, {"provenance": {"\udfff": 1}}])
def test_a_lone_surrogate_is_refused_by_markdown_before_anything_is_written(tmp_path, change):
    with pytest.raises(ReleaseError, match="lone surrogate") as caught:
        write_release(release(**change), tmp_path / "out")
    str(caught.value).encode("utf-8")
    assert not (tmp_path / "out").exists()


MARKDOWN = """\
+++
{
  "name": "support_triage",
  "version": "VERSION",
  "inputs": [
    "message"
  ],
  "outputs": [
    {
      "name": "team",
      "type": "choice",
      "description": "Who answers.",
      "choices": [
        "billing",
        "account changes"
      ]
    }
  ],
  "format": "turns",
  "reasoning": false,
  "model": "openai/gpt-x",
  "parameters": {
    "stop": [
      "\\n"
    ]
  },
  "provenance": {
    "run_id": "r_1"
  }
}
+++

## system

Route it.
\\## user

## user

{{message}}
"""


def test_the_files_read_as_a_person_would_write_them():
    messages = (Message("system", "Route it.\n## user"), Message("user", "{{message}}"))
    one = {"inputs": ("message",), "outputs": (TEAM,), "provenance": {"run_id": "r_1", "trial": None}}
    sent = release(messages=messages, parameters={"stop": ("\n",)}, **one)
    assert export_markdown(sent) == MARKDOWN.replace("VERSION", sent.version)
    keys = "name version messages inputs outputs format reasoning model parameters provenance"
    assert list(json.loads(export_messages(sent))) == keys.split()


def test_a_new_release_replaces_the_old_one_and_nothing_else_stays(tmp_path):
    folder = tmp_path / "a" / "b"
    for text in ("one {{message}}", "Say {{hello}}: two {{message}}"):
        sent = release(text)
        assert write_release(sent, folder) == folder / PROMPT_FILE
        assert sorted(os.listdir(folder)) == [MESSAGES_FILE, PROMPT_FILE]
        assert (folder / PROMPT_FILE).read_bytes() == export_markdown(sent).encode()
        assert (folder / MESSAGES_FILE).read_bytes() == export_messages(sent).encode()
    rendered = load_prompt(folder).render(message="x", context="")
    assert rendered == [{"role": "user", "content": "Say {{hello}}: two x"}]


@each_case("name", ["export_markdown", "export_messages"])
@each_case(
    "old, new, what",
    [
        ("{{message}}", "{{massage}}", "edited"),
        ("openai/gpt-x", "openai/gpt-y", "edited"),
        ("0.09", "0.08", "provenance drifted"),
    ],
)
def test_a_drifting_writer_is_caught_and_the_old_release_stays(tmp_path, name, old, new, what):
    before = release("the old one")
    write_release(before, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        real = getattr(export, name)
        patch.setattr(export, name, lambda sent: real(sent).replace(old, new))
        with pytest.raises(ReleaseError, match=what):
            write_release(release(), tmp_path)
    assert load_prompt(tmp_path).release == load_prompt(tmp_path / MESSAGES_FILE).release == before
    assert sorted(os.listdir(tmp_path)) == [MESSAGES_FILE, PROMPT_FILE]


def test_what_cannot_be_released_writes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot write the release") as caught:
        write_release(release(), tmp_path / "file")
    assert "\n" not in str(caught.value)
    with pytest.raises(ReleaseError, match="holds no messages"):
        write_release(release(messages=()), tmp_path)
    unfilled = lambda self, **_: [message.as_dict() for message in self.release.messages]  # noqa: E731
    monkeypatch.setattr("agent.release.runtime.Prompt.render", unfilled)
    with pytest.raises(ReleaseError, match=r"prompt\.md: message 0 drifts"):
        write_release(release(), tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_each_input_meets_every_hostile_value_and_every_mark():
    rows = list(hostile_rows(INPUTS))
    for name in INPUTS:
        assert {row[name] for row in rows} >= {*HOSTILE, placeholder("message"), "\\" + placeholder("context")}
