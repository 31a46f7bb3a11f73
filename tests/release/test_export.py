"""What export writes, runtime loads byte for byte."""

import json
import os
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ReleaseError
from agent.prompt.template import escape, fill_messages, join, placeholder
from agent.release import export
from agent.release.export import HOSTILE, export_markdown, export_messages, hostile_rows, write_release
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.types import Field, Message

INPUTS = ("message", "context")
TEAM = Field("team", "choice", "Who answers.", ("billing", "account changes"))
DATA = Field("data", "json", schema='{"type": "object", "pattern": "\\\\d\'"}')
BITS = [
    *(
        "## system",
        "## user",
        "## assistant",
        "\\## user",
        "\\\\## system",
        "## user ",
        "## User",
        "# user",
        "## userx",
    ),
    *("\n", "\n\n", "\r", "\r\n", "\0", "\u2028", "\u2029", "\x85", "\x0c", "\ufeff", "\\", "+++", "---", " ", "\t"),
    *("{{message}}", "\\{{message}}", "{{context}}", "{{other}}", "{", "}}"),
]
UTF8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTENTS = st.one_of(UTF8, st.lists(st.one_of(st.sampled_from(BITS), UTF8), max_size=12).map("".join))
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), CONTENTS), min_size=1, max_size=5
)
SCALARS = st.one_of(
    UTF8, st.integers(), st.integers(-(10**30), 10**30), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
JSONS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(UTF8, inner, max_size=4)),
    max_leaves=12,
)
TABLES = st.dictionaries(UTF8, JSONS, max_size=5)


def release(*contents, **changes):
    messages = tuple(Message("user", content) for content in contents) or (
        Message("system", "Route the message.\nTeams: billing, account changes"),
        Message("user", "Refund me"),
        Message("assistant", "billing"),
        Message("user", "{{context}}\n\n{{message}}"),
    )
    values = {
        "name": "support_triage",
        "messages": messages,
        "inputs": INPUTS,
        "outputs": (TEAM, DATA),
        "format": "turns",
        "reasoning": False,
        "model": "openai/gpt-x",
        "parameters": {"max_tokens": 64, "temperature": 0.0, "stop": ("\n",)},
        "provenance": {
            "run_id": "r_1",
            "trial": 12,
            "candidate_id": "c_1",
            "task_hashes": {"train": "a" * 64, "task.toml": "b" * 64},
            "baseline_test": 0.61,
            "winner_test": 0.78,
            "lift": {"mean": 0.17, "ci95": (0.09, 0.25), "p_value": 1e-05},
            "decision": "improved",
            "tool_version": "0.1.0",
            "created_utc": "2026-11-24T16:00:00Z",
            "ledger_head": "c" * 64,
            "judge_kappa": None,
        },
    }
    return PromptRelease(**{**values, **changes})


def loaded(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return load_prompt(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("release")


@settings(max_examples=500)
@given(MESSAGES)
def test_any_content_survives_both_files_exactly(folder, messages):
    sent = release(messages=tuple(messages))
    assert loaded(folder, "p.md", export_markdown(sent)).release == sent
    assert loaded(folder, "p.json", export_messages(sent)).release == sent


@given(TABLES, TABLES, UTF8, UTF8, st.booleans(), st.lists(UTF8, max_size=3))
def test_any_front_matter_survives_both_files_exactly(folder, parameters, provenance, name, model, reasoning, choices):
    sent = release(
        parameters=parameters,
        provenance=provenance,
        name=name,
        model=model,
        reasoning=reasoning,
        outputs=(Field("team", "choice", name, tuple(choices)), Field("other", "json", schema=json.dumps(model))),
    )
    assert loaded(folder, "p.md", export_markdown(sent)).release == sent
    assert loaded(folder, "p.json", export_messages(sent)).release == sent


def hostile_values():
    rng = random.Random(7)
    bits = [
        *HOSTILE,
        *BITS,
        "{% raw %}",
        "{{=<% %>=}}",
        "<user>",
        "&lt;",
        "${message}",
        "%(message)s",
        "\n\nHuman: ",
        "'''",
    ]
    values = list(dict.fromkeys([*bits, *("".join(rng.sample(bits, rng.randint(2, 6))) for _ in range(250))]))
    assert len(values) >= 200
    return values


def test_hundreds_of_hostile_values_render_byte_equal_from_both_files(tmp_path):
    fixed = "\\" + "".join(hostile_values()).encode("utf-8", "replace").decode()
    sent = release(
        messages=(
            Message("system", escape(fixed, INPUTS)),
            Message("user", join([fixed, ("message",), "\\", ("context",), "{{context}}"], INPUTS)),
        )
    )
    write_release(sent, tmp_path)
    prompts = [load_prompt(tmp_path / name) for name in (PROMPT_FILE, MESSAGES_FILE)]
    values = hostile_values()
    for one, two in zip(values, reversed(values), strict=True):
        row = {"message": one, "context": two}
        want = [
            f"{message.role}\0{message.content}".encode("utf-8", "surrogatepass")
            for message in fill_messages(sent.messages, row)
        ]
        for prompt in prompts:
            got = [f"{m['role']}\0{m['content']}".encode("utf-8", "surrogatepass") for m in prompt.render(**row)]
            assert got == want
        assert want[0] == b"system\0" + fixed.encode()
        assert want[1] == b"user\0" + f"{fixed}{one}\\{two}{{{{context}}}}".encode("utf-8", "surrogatepass")


@given(st.text(st.one_of(st.characters(categories=["Cs"]), st.characters()), max_size=8))
def test_lone_surrogates_survive_json_or_are_refused_by_name(folder, text):
    sent = release(text)
    if re.search("[\ud800-\udbff][\udc00-\udfff]", text):  # JSON would read the two as one character
        with pytest.raises(ReleaseError, match="two characters"):
            export_messages(sent)
    else:
        assert loaded(folder, "p.json", export_messages(sent)).release == sent


@pytest.mark.parametrize(
    "change", [{"messages": (Message("user", "a\ud800b"),)}, {"name": "\udfff"}, {"provenance": {"\udfff": 1}}]
)
def test_a_lone_surrogate_is_refused_by_markdown_before_anything_is_written(tmp_path, change):
    with pytest.raises(ReleaseError, match="lone surrogate") as caught:
        write_release(release(**change), tmp_path / "out")
    str(caught.value).encode("utf-8")
    assert not (tmp_path / "out").exists()


def test_the_markdown_reads_as_a_person_would_write_it():
    assert export_markdown(release(format="labelled-turns", outputs=(TEAM,))) == (
        """\
+++
{
  "name": "support_triage",
  "version": "VERSION",
  "inputs": [
    "message",
    "context"
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
  "format": "labelled-turns",
  "reasoning": false,
  "model": "openai/gpt-x",
  "parameters": {
    "max_tokens": 64,
    "temperature": 0.0,
    "stop": [
      "\\n"
    ]
  },
  "provenance": {
    "run_id": "r_1",
    "trial": 12,
    "candidate_id": "c_1",
    "task_hashes": {
      "train": "HASHA",
      "task.toml": "HASHB"
    },
    "baseline_test": 0.61,
    "winner_test": 0.78,
    "lift": {
      "mean": 0.17,
      "ci95": [
        0.09,
        0.25
      ],
      "p_value": 1e-05
    },
    "decision": "improved",
    "tool_version": "0.1.0",
    "created_utc": "2026-11-24T16:00:00Z",
    "ledger_head": "HASHC"
  }
}
+++

## system

Route the message.
Teams: billing, account changes

## user

Refund me

## assistant

billing

## user

{{context}}

{{message}}
""".replace("VERSION", release(format="labelled-turns", outputs=(TEAM,)).version)
        .replace("HASHA", "a" * 64)
        .replace("HASHB", "b" * 64)
        .replace("HASHC", "c" * 64)
    )


def test_the_json_has_the_declared_keys_in_order():
    assert list(json.loads(export_messages(release()))) == [
        *(
            "name",
            "version",
            "messages",
            "inputs",
            "outputs",
            "format",
            "reasoning",
            "model",
            "parameters",
            "provenance",
        )
    ]


def test_both_files_are_written_and_nothing_else_stays(tmp_path):
    sent = release()
    path = write_release(sent, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / PROMPT_FILE
    assert sorted(os.listdir(path.parent)) == [MESSAGES_FILE, PROMPT_FILE]
    assert path.read_bytes() == export_markdown(sent).encode()
    assert (path.parent / MESSAGES_FILE).read_bytes() == export_messages(sent).encode()


def test_a_new_release_replaces_the_old_one(tmp_path):
    write_release(release("one {{message}}"), tmp_path)
    write_release(release("two {{message}}"), tmp_path)
    assert load_prompt(tmp_path).render(message="x", context="") == [{"role": "user", "content": "two x"}]
    assert sorted(os.listdir(tmp_path)) == [MESSAGES_FILE, PROMPT_FILE]


@pytest.mark.parametrize("name", ["export_markdown", "export_messages"])
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("Refund", "refund", "edited"),
        ("openai/gpt-x", "openai/gpt-y", "edited"),
        ("0.78", "0.79", "provenance drifted"),
    ],
)
def test_a_drifting_writer_is_caught_and_the_old_release_stays(tmp_path, monkeypatch, name, old, new, what):
    before = release("the old one")
    write_release(before, tmp_path)
    real = getattr(export, name)
    monkeypatch.setattr(export, name, lambda sent: real(sent).replace(old, new))
    with pytest.raises(ReleaseError, match=what):
        write_release(release(), tmp_path)
    assert load_prompt(tmp_path).release == load_prompt(tmp_path / MESSAGES_FILE).release == before
    assert sorted(os.listdir(tmp_path)) == [MESSAGES_FILE, PROMPT_FILE]


def test_rendering_is_compared_with_what_was_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "agent.release.runtime.Prompt.render",
        lambda self, **_: [message.as_dict() for message in self.release.messages],
    )
    with pytest.raises(ReleaseError, match=r"prompt\.md: message 3 drifts"):
        write_release(release(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_one_line_of_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot write the release") as caught:
        write_release(release(), tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_release_without_messages_is_not_written(tmp_path):
    with pytest.raises(ReleaseError, match="holds no messages"):
        write_release(release(messages=()), tmp_path)
    assert os.listdir(tmp_path) == []


def test_each_input_meets_every_hostile_value_and_every_mark():
    rows = list(hostile_rows(INPUTS))
    for name in INPUTS:
        assert {row[name] for row in rows} >= {*HOSTILE, placeholder("message"), "\\" + placeholder("context")}


def test_a_prompt_without_inputs_is_released_too(tmp_path):
    write_release(release("Say {{hello}}.", inputs=()), tmp_path)
    assert load_prompt(tmp_path).render() == [{"role": "user", "content": "Say {{hello}}."}]
