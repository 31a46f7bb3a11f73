"""What a program sees that ships a released prompt."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import agent
from agent.errors import ReleaseError
from agent.release.export import export_markdown, export_messages, write_release
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.types import Field, Message

RELEASE = PromptRelease(
    name="support_triage",
    messages=(Message("system", "Route it.\n"), Message("user", "Message: {{message}}\nTeam:")),
    inputs=("message",),
    outputs=(Field("team", "choice", choices=("billing", "account")),),
    format="labelled-turns",
    reasoning=True,
    model="openai/gpt-x",
    parameters={"max_tokens": 64, "temperature": 0.5, "stop": []},
    provenance={"run_id": "r_1", "lift": {"mean": 0.2}},
)
FILES = {PROMPT_FILE: export_markdown, MESSAGES_FILE: export_messages}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    write_release(RELEASE, tmp_path)
    return tmp_path / request.param


def edit(file, old, new):
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


def refused(path, **options):
    with pytest.raises(ReleaseError) as caught:
        load_prompt(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loaded_prompt_renders_what_was_scored_and_carries_its_settings(file):
    prompt = load_prompt(file)
    assert prompt.render(message="{{message}}") == [
        {"role": "system", "content": "Route it.\n"},
        {"role": "user", "content": "Message: {{message}}\nTeam:"},
    ]
    assert (prompt.name, prompt.version, prompt.model) == ("support_triage", RELEASE.version, "openai/gpt-x")
    assert prompt.parameters == {"max_tokens": 64, "temperature": 0.5, "stop": []}
    assert prompt.provenance == {"run_id": "r_1", "lift": {"mean": 0.2}}


def test_a_reply_is_parsed_as_it_was_when_scored(file):
    prompt = load_prompt(file)
    assert prompt.parse("It may be account.\nAnswer: billing").fields == {"team": "billing"}
    assert prompt.parse("no idea").error


def test_a_folder_is_loaded_by_its_prompt_file_and_a_path_may_be_text(tmp_path):
    write_release(RELEASE, tmp_path)
    assert load_prompt(str(tmp_path)).release == load_prompt(tmp_path).release == RELEASE


def test_an_input_may_be_called_self(tmp_path):
    write_release(dataclasses.replace(RELEASE, messages=(Message("user", "{{self}}"),), inputs=("self",)), tmp_path)
    assert load_prompt(tmp_path).render(self="x") == [{"role": "user", "content": "x"}]


def test_render_names_every_input_that_is_missing_unknown_or_not_text(file):
    prompt = load_prompt(file)
    for fields, words in [
        ({}, ["message is missing"]),
        ({"message": "x", "extra": "y"}, ["'extra' is unknown"]),
        ({"message": 3}, ["message is int, not str"]),
        ({"message": None}, ["message is NoneType, not str"]),
        ({"massage": b""}, ["message is missing", "'massage' is unknown"]),
    ]:
        with pytest.raises(ReleaseError) as caught:
            prompt.render(**fields)
        assert all(word in str(caught.value) for word in words)


def test_what_a_caller_changes_does_not_change_the_prompt(file):
    prompt = load_prompt(file)
    prompt.parameters["max_tokens"] = 1
    prompt.render(message="x")[0]["content"] = "changed"
    assert prompt.parameters["max_tokens"] == 64
    assert prompt.render(message="x")[0]["content"] == "Route it.\n"


# -- the version is the content


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("user", "{{message}}"),)},
        {"messages": (Message("user", "Route it.\n"), RELEASE.messages[1])},
        {"inputs": ("message", "more")},
        {"outputs": ()},
        {"parameters": {"max_tokens": 64, "temperature": 0.6, "stop": []}},
        {"format": "turns"},
        {"reasoning": False},
        {"model": "openai/gpt-y"},
    ],
)
def test_another_content_is_another_version(change):
    assert dataclasses.replace(RELEASE, **change).version != RELEASE.version


def test_the_version_does_not_depend_on_name_or_provenance_or_on_how_data_is_spelled():
    same = dataclasses.replace(
        RELEASE, name="x", provenance={}, parameters={"stop": (), "temperature": 0.5, "max_tokens": 64, "seed": None}
    )
    assert same.version == RELEASE.version
    assert RELEASE.version.startswith("p_")


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", {1: 2}, [None], object()])
def test_what_no_file_can_hold_is_refused_where_it_stands(value):
    with pytest.raises(ReleaseError, match=r"provenance\.a"):
        dataclasses.replace(RELEASE, provenance={"a": value})


# -- files that must not be trusted


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Route it", b"Route  it"),
        (b"0.5", b"0.7"),
        (b'"account"', b'"accounts"'),
        (b"Team:", b"Team: "),
        (RELEASE.version.encode(), b"p_0"),
    ],
)
def test_an_edited_file_is_refused_but_can_be_loaded_without_verification(file, old, new):
    edit(file, old, new)
    message = refused(file)
    assert "was edited after release" in message
    assert message.startswith(f"{file}:{4 if file.suffix == '.md' else 3}: ")
    prompt = load_prompt(file, verify=False)
    assert len(prompt.render(message="x")) == 2
    assert (prompt.version == RELEASE.version) == (new == b"p_0")


def test_a_checkout_that_rewrote_all_line_ends_loads_as_released(file):
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_prompt(file).release == RELEASE


def test_every_cut_of_a_file_is_refused_on_one_line(file):
    data = file.read_bytes()
    for end in range(len(data) - 1):  # without its very last line end the file still says the same
        file.write_bytes(data[:end])
        assert refused(file).startswith(str(file))


def test_a_missing_file_is_named(tmp_path):
    assert refused(tmp_path / "no.md").startswith(f"{tmp_path / 'no.md'}: no such file; give the path")
    assert "no such file" in refused(tmp_path / "no" / "folder" / PROMPT_FILE)


def test_a_folder_without_a_prompt_says_so(tmp_path):
    assert "the folder holds no prompt.md" in refused(tmp_path)


def test_a_path_that_cannot_be_read_is_a_release_error(tmp_path):
    (tmp_path / PROMPT_FILE).mkdir()
    assert "cannot be read" in refused(tmp_path)
    assert "cannot be read" in refused("a\0b")


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        (b'"model": "', b'"model": ', 20, "invalid JSON"),
        (b"\n}\n+++\n", b"\n]\n+++\n", 32, "invalid JSON"),
        (b"\n+++\n", b"\n", 1, "is not between two +++ lines"),
        (b"\n+++\n", b"\n+++\n\nhello\n", 35, "'hello' precedes the first heading"),
        (b"## system", b"##system", 35, "precedes the first heading"),
        (b'  "name": "support', b'  "messages": [],\n  "name": "support', 3, "under their headings"),
        (b'"name": "support', b'"nam": "support', None, "lacks name"),
        (b'"reasoning": true', b'"reasoning": "yes"', 19, "reasoning must be true or false"),
        (b'"reasoning": true,', b'"reasoning": true,\n  "thinking": 1,', 20, "unknown key 'thinking'"),
        (b'"labelled-turns"', b'"labeled"', 18, "format must be one of "),
        (b'[\n    "message"\n  ]', b"[1]", 5, "inputs[0] must be a text, not 1"),
        (b'"type": "choice"', b'"type": "choices"', 8, "outputs[0].type must be one of "),
        (b'"temperature": 0.5', b'"temperature": NaN', 21, "parameters.temperature"),
        (b'"temperature": 0.5', b'"temperature": "2026-11-24"', 21, "parameters.temperature"),
        (b"Route", b"Ro\xffute", 37, "is not UTF-8"),
    ],
)
def test_broken_markdown_is_one_line_with_its_place(tmp_path, old, new, where, what):
    write_release(RELEASE, tmp_path)
    file = tmp_path / PROMPT_FILE
    edit(file, old, new)
    for verify in (True, False):
        message = refused(file, verify=verify)
        assert what in message
        assert message.startswith(f"{file}:{where}: " if where else f"{file}: ")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", ":1", "invalid JSON (Expecting value); the first line of a prompt.md is +++"),
        ("You are helpful.\n", ":1", "invalid JSON"),
        ('{\n"name": "x"\n]', ":3", "invalid JSON"),
        ("[]", ":1", "holds a JSON list"),
        ("{}", "", "lacks name, version, messages"),
        ("[" * 100_000, "", "nested too deeply"),
        ("\ufeff{}", ":1", "BOM"),
    ],
)
def test_text_that_is_no_release_is_one_line_with_its_place(tmp_path, text, where, what):
    file = tmp_path / "any.txt"
    file.write_bytes(text.encode())
    message = refused(file)
    assert what in message
    assert message.startswith(f"{file}{where}: ")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("messages", [], "holds no messages"),
        ("messages", [{"role": "tool", "content": ""}], "messages[0].role must be one of "),
        ("messages", [{"role": [], "content": ""}], "messages[0].role must be one of "),
        ("messages", [{"role": "user", "content": None}], "messages[0].content must be a text"),
        ("messages", [{"role": "user", "content": "", "name": "x"}], "messages[0] has the unknown key 'name'"),
        ("outputs", [{"type": "text"}], "outputs[0] lacks name"),
        ("outputs", [{"name": "x", "type": "text", "choices": [1]}], "outputs[0].choices[0] must be a text"),
        ("version", 3, "version must be a text"),
        ("reasoning", 1, "reasoning must be true or false"),
        ("parameters", [], "parameters must be a table"),
        ("provenance", {"x": math.nan}, "provenance.x"),
    ],
)
def test_wrong_data_in_the_json_is_one_line(tmp_path, key, value, what):
    data = json.loads(export_messages(RELEASE))
    file = tmp_path / MESSAGES_FILE
    file.write_text(json.dumps({**data, key: value}, indent=2))
    assert what in refused(file, verify=False)


# -- light


def test_loading_a_prompt_needs_no_third_party_package(tmp_path):
    write_release(RELEASE, tmp_path)
    root = Path(agent.__file__).parent.parent
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from agent.release.runtime import load_prompt\n"
        "assert load_prompt(sys.argv[2]).render(message='x')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    for flags in (["-I"], ["-I", "-S"]):  # -S: there is nothing but the standard library
        done = subprocess.run(
            [sys.executable, *flags, "-c", code, root, tmp_path], capture_output=True, text=True, check=True
        )
        names = done.stdout.split()
        assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"agent"}
        assert [name for name in names if name.startswith("agent.")] == [
            *("agent.conversation", "agent.errors", "agent.prompt", "agent.prompt.bound", "agent.prompt.parts"),
            *("agent.prompt.parts.part", "agent.prompt.template"),
            *("agent.release", "agent.release.aliases", "agent.release.prompt_file", "agent.release.runtime"),
            *("agent.safe_data", "agent.safe_file", "agent.safe_text", "agent.shipped"),
        ]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("parameters", {"max_tokens": "x"}, "max_tokens must be a whole number of at least 1, not 'x'"),
        ("parameters", {"max_tokens": True}, "max_tokens must be a whole number"),
        ("parameters", {"temperature": "\x1b[2J"}, "temperature must be a number"),
        ("parameters", {"temperature": -1}, "temperature must be a number of at least 0"),
        ("parameters", {"stop": 5}, "stop must be a text or a list of texts"),
        ("parameters", {"seed": [1]}, "seed must be a whole number"),
        ("parameters", {"logprobs": "many"}, "logprobs must be a whole number"),
        ("parameters", {"labels": "abc"}, "labels must be a list of texts"),
        ("outputs", [{"name": "a", "type": "json", "schema": "{no json"}], "outputs[0].schema must be a JSON text"),
        ("outputs", [{"name": "a", "type": "json", "schema": "[" * 2000}], "outputs[0].schema must be a JSON text"),
        ("inputs", [f"i{number}" for number in range(100_000)], "100,000 inputs; at most 1,000 can be read"),
    ],
)
def test_what_parse_and_complete_cannot_use_is_refused_when_it_is_loaded(tmp_path, key, value, what):
    write_release(RELEASE, tmp_path)
    data = json.loads((tmp_path / MESSAGES_FILE).read_text("utf-8")) | {key: value}
    (tmp_path / MESSAGES_FILE).write_text(json.dumps(data), "utf-8")
    line = refused(tmp_path / MESSAGES_FILE, verify=False)
    assert what in line
    assert line.isprintable()


def test_an_exception_holds_no_control_character_of_the_file(tmp_path):
    hostile = dataclasses.replace(RELEASE, inputs=("\x1b[2J\nmessage",), parameters={"\x1b[31m": 1})
    messages = tmp_path / MESSAGES_FILE
    messages.write_text(export_messages(hostile), "utf-8")
    prompt = load_prompt(messages, verify=False)
    for ask in (lambda: prompt.render(x="y"), lambda: prompt.complete(**{"\x1b[2J\nmessage": "y"})):
        with pytest.raises(ReleaseError) as caught:
            ask()
        assert str(caught.value).isprintable()
