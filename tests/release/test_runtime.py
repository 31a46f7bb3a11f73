"""What a program sees that ships a released prompt: whatever a path or a file is, a prompt or one line of error."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agent
from agent.errors import ReleaseError
from agent.release.export import export_markdown, export_messages, write_release
from agent.release.prompt_file import MAX_FILE
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.types import Field, Message
from tests.cases import each_case

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
ROOT = Path(agent.__file__).parent.parent
MARKDOWN, MESSAGES = export_markdown(RELEASE), export_messages(RELEASE)
FILES = {PROMPT_FILE: MARKDOWN, MESSAGES_FILE: MESSAGES}
HUGE = "0x" + "f" * 8000


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    write_release(RELEASE, tmp_path)
    return tmp_path / request.param


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    return write_release(dataclasses.replace(RELEASE, name="x"), tmp_path_factory.mktemp("bundled"))


def refused(path, fallback=None, **options):
    """The error, one line; with a fallback, that is used and tells the error."""
    with pytest.raises(ReleaseError) as caught:
        load_prompt(path, **options)
    said = str(caught.value)
    assert "\n" not in said or "\n" in f"{path}{options.get('root')}"
    assert said.encode(), "a log can hold it"
    if fallback:
        prompt = load_prompt(path, fallback=fallback, **options)
        assert (prompt.version, prompt.fallback_reason) == (RELEASE.version, said)
    return caught.value


def test_a_loaded_prompt_renders_and_reads_as_when_scored_and_no_caller_changes_it(file):
    prompt, rendered = load_prompt(file), load_prompt(str(file)).render(message="{{message}}")
    assert rendered == [
        {"role": "system", "content": "Route it.\n"},
        {"role": "user", "content": "Message: {{message}}\nTeam:"},
    ]
    assert (prompt.name, prompt.version, prompt.model) == ("support_triage", RELEASE.version, "openai/gpt-x")
    assert prompt.provenance == {"run_id": "r_1", "lift": {"mean": 0.2}}
    assert prompt.parse("It may be account.\nAnswer: billing").fields == {"team": "billing"}
    assert prompt.parse("no idea").error
    prompt.parameters["max_tokens"] = 1
    rendered[0]["content"] = "changed"
    assert prompt.parameters == {"max_tokens": 64, "temperature": 0.5, "stop": []}
    assert prompt.render(message="x")[0]["content"] == "Route it.\n"
    assert load_prompt(file.parent).release == prompt.release == RELEASE


@each_case(
    "fields, words",
    [
        ({}, ["message is missing"]),
        ({"message": "x", "extra": "y"}, ["'extra' is unknown"]),
        ({"message": 3}, ["message is int, not str"]),
        ({"massage": b""}, ["message is missing", "'massage' is unknown"]),
    ],
)
def test_render_names_every_input_that_is_missing_unknown_or_not_text(bundled, fields, words):
    with pytest.raises(ReleaseError) as caught:
        load_prompt(bundled).render(**fields)
    assert all(word in str(caught.value) for word in words)


@each_case("name", ["self", "who", "path"])
def test_an_input_may_have_the_name_of_an_argument(tmp_path, name):
    messages = (Message("user", f"{{{{{name}}}}}"),)
    write_release(dataclasses.replace(RELEASE, messages=messages, inputs=(name,)), tmp_path)
    assert load_prompt(tmp_path).render(**{name: "x"}) == [{"role": "user", "content": "x"}]


def test_the_version_is_of_the_content_and_not_of_name_provenance_or_spelling():
    parameters = {"stop": (), "temperature": 0.5, "max_tokens": 64, "seed": None}
    same = dataclasses.replace(RELEASE, name="x", provenance={}, parameters=parameters)
    changes = [
        {"messages": RELEASE.messages[1:]},
        {"messages": (Message("user", "Route it.\n"), RELEASE.messages[1])},
        {"inputs": ("message", "more")},
        {"outputs": ()},
        {"parameters": {**RELEASE.parameters, "temperature": 0.6}},
        {"format": "turns"},
        {"reasoning": False},
        {"model": "openai/gpt-y"},
    ]
    versions = {dataclasses.replace(RELEASE, **change).version for change in changes}
    assert (same.version, len(versions | {RELEASE.version})) == (RELEASE.version, len(changes) + 1)
    assert RELEASE.version.startswith("p_")
    for value in (math.nan, math.inf, b"", {3}, object(), 10**400, {1: "a"}):  # JSON has none of them, or changes them
        with pytest.raises(ReleaseError, match=r"provenance\.a = "):
            dataclasses.replace(RELEASE, provenance={"a": value})


# -- files that must not be trusted ------------------------------------------------------------------------------------


@each_case(
    "old, new",
    [
        (b"Route it", b"Route  it"),
        (b"0.5", b"0.7"),
        (b'"account"', b'"accounts"'),
        (b"Team:", b"Team: "),
        (RELEASE.version.encode(), b"p_0"),
    ],
)
def test_an_edited_file_is_refused_and_can_be_loaded_without_verification(file, old, new):
    data = FILES[file.name].encode()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    assert str(refused(file)).startswith(f"{file}:{4 if file.suffix == '.md' else 3}: was edited after release")
    prompt = load_prompt(file, verify=False)
    assert (prompt.version == RELEASE.version) == (new == b"p_0")


def test_every_cut_is_refused_and_a_checkout_that_rewrote_all_line_ends_loads(file):
    data = file.read_bytes()
    for end in range(0, len(data) - 1, 3):  # without its very last line end the file still says the same
        file.write_bytes(data[:end])
        assert str(refused(file)).startswith(str(file))
    file.write_bytes(data.replace(b"\n", b"\r\n"))
    assert load_prompt(file).release == RELEASE


@each_case(
    "old, new, where, what",
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
        (b'"temperature": 0.5', b'"temperature": NaN', 21, "parameters.temperature"),
        (b"Route", b"Ro\xffute", 37, "is not UTF-8"),
        (b'"model"', b'"model": "x",\n  "model"', None, "the key 'model' stands twice"),
        (b'"max_tokens": 64', b'"max_tokens": ' + b"9" * 4000, 21, "max_tokens"),
        (b'"max_tokens": 64', b'"max_tokens": ' + b"[" * 500 + b"]" * 500, None, "nested too deeply"),
    ],
)
def test_broken_markdown_is_one_line_with_its_place(tmp_path, old, new, where, what):
    file = tmp_path / PROMPT_FILE
    assert old in MARKDOWN.encode()
    file.write_bytes(MARKDOWN.encode().replace(old, new, 1))
    for verify in (True, False):
        message = str(refused(file, verify=verify))
        assert what in message
        assert message.startswith(f"{file}:{where}: " if where else f"{file}: ")


@each_case(
    "text, where, what",
    [
        ("", ":1", "invalid JSON (Expecting value); the first line of a prompt.md is +++"),
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
    message = str(refused(file))
    assert what in message
    assert message.startswith(f"{file}{where}: ")


@each_case(
    "key, value, what",
    [
        ("messages", [], "holds no messages"),
        ("messages", [{"role": "tool", "content": ""}], "messages[0].role must be one of "),
        ("messages", [{"role": [], "content": ""}], "messages[0].role must be one of "),
        ("messages", [{"role": "user", "content": None}], "messages[0].content must be a text"),
        ("messages", [{"role": "user", "content": "", "name": "x"}], "messages[0] has the unknown key 'name'"),
        ("outputs", [{"type": "text"}], "outputs[0] lacks name"),
        ("outputs", [{"name": "x", "type": "text", "choices": [1]}], "outputs[0].choices[0] must be a text"),
        ("outputs", [{"name": "a", "type": "json", "schema": "{no json"}], "outputs[0].schema must be a JSON text"),
        ("outputs", [{"name": "a", "type": "json", "schema": "[" * 2000}], "outputs[0].schema must be a JSON text"),
        ("inputs", [f"i{number}" for number in range(1001)], "inputs must be a list of at most 1,000"),
        ("version", 3, "version must be a text"),
        ("outputs", [{"name": "a", "type": "json", "schema": ""}], "outputs[0].schema must be a JSON text"),
        ("provenance", {"x": math.nan}, "provenance.x = nan cannot be stored in a release"),
        ("provenance", {"x": [{"y": [0, None]}]}, "provenance.x[0].y[1] = None cannot be stored in a release"),
        ("parameters", [], "parameters must be a table"),
        ("parameters", {"max_tokens": "x"}, "max_tokens must be a whole number of at least 1, not 'x'"),
        ("parameters", {"max_tokens": True}, "max_tokens must be a whole number"),
        ("parameters", {"temperature": "\x1b[2J"}, "temperature must be a number"),
        ("parameters", {"temperature": -1}, "temperature must be a number of at least 0"),
        ("parameters", {"stop": 5}, "stop must be a text or a list of texts"),
        ("parameters", {"seed": [1]}, "seed must be a whole number"),
        ("parameters", {"logprobs": "many"}, "logprobs must be a whole number"),
        ("parameters", {"labels": "abc"}, "labels must be a list of texts"),
    ],
)
def test_data_that_cannot_be_used_is_refused_when_it_is_loaded(tmp_path, key, value, what):
    file = tmp_path / MESSAGES_FILE
    file.write_text(json.dumps({**json.loads(MESSAGES), key: value}, indent=2))
    said = str(refused(file, verify=False))
    assert what in said
    assert said.isprintable()


def test_an_exception_holds_no_control_character_of_the_file(tmp_path):
    hostile = dataclasses.replace(RELEASE, inputs=("\x1b[2J\nmessage",), parameters={"\x1b[31m": 1})
    (tmp_path / MESSAGES_FILE).write_text(export_messages(hostile), "utf-8")
    prompt = load_prompt(tmp_path / MESSAGES_FILE, verify=False)
    for ask in (lambda: prompt.render(x="y"), lambda: prompt.complete(**{"\x1b[2J\nmessage": "y"})):
        with pytest.raises(ReleaseError) as caught:
            ask()
        assert str(caught.value).isprintable()


def test_a_file_that_is_too_large_is_refused(tmp_path, bundled):
    file = tmp_path / PROMPT_FILE
    file.write_text(MARKDOWN)
    with file.open("ab") as more:
        more.truncate(MAX_FILE + 1)
    assert "larger than 16,000,000 bytes" in str(refused(file, bundled))


# -- paths that cannot be read -----------------------------------------------------------------------------------------


@each_case(
    "place",
    [
        *("loop", f"loop/{PROMPT_FILE}", f"file/{PROMPT_FILE}", "pipe", "n" * 300, "/".join(["n" * 200] * 40)),
        *("\0", "\ud800", "none", f"none/{PROMPT_FILE}", "x", "/dev/zero"),
    ],
)
def test_a_path_or_root_that_cannot_be_read_is_an_error_and_the_fallback_is_used(tmp_path, bundled, place):
    (tmp_path / "x").mkdir(exist_ok=True)
    (tmp_path / "file").write_text("")
    if not (tmp_path / "pipe").exists():
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = place if place.startswith("/") else f"{tmp_path}/{place}"
    refused(path, bundled)
    for word in ("production", "p_0123456789abcdef"):
        refused(f"x@{word}", bundled, root=path)


def test_the_cause_is_kept_and_a_bug_in_the_program_is_not_swallowed(tmp_path, bundled):
    (tmp_path / "x").mkdir()
    (tmp_path / "file").write_text("")
    assert isinstance(refused(tmp_path / "file" / "a", bundled).__cause__, NotADirectoryError)
    assert "no such file; give the path" in str(refused(tmp_path / "no.md"))
    assert "the folder holds no prompt.md" in str(refused(tmp_path))
    history = tmp_path / "x" / "aliases.jsonl"
    for make in (os.mkfifo, lambda path: path.symlink_to(tmp_path)):
        make(history)
        refused("x@production", bundled, root=tmp_path)
        history.unlink()
    for wrong in (None, 3, b"bytes", ["a"]):
        with pytest.raises(TypeError):
            load_prompt(wrong, fallback=bundled)


_POINTS = sorted({match.start() for form in FILES.values() for match in re.finditer(r"\b", form)})
_WORDS = ("+++", '"""', "'''", "nan", "-inf", "1e999", "1979-05-27", "true", "null", "a.b", "[[a]]", "\n## user\n")
_ODD = ("\u2028", "\ud800", "\ufeff", HUGE, "9" * 5000, "a" + ".a" * 60)
_PIECES = st.sampled_from([*"+#\"'[]{}=.,\n\r\t \0\\-:", *_WORDS, *_ODD]) | st.text(max_size=8)


@st.composite
def broken(draw):
    """A release in one of the two forms with up to four pieces put in, over what was there."""
    text = draw(st.sampled_from([MARKDOWN, MESSAGES]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.sampled_from(_POINTS)) % (len(text) + 1)
        text = text[:start] + draw(_PIECES) + text[start + draw(st.integers(0, 20)) :]
    return text.encode("utf-8", draw(st.sampled_from(["surrogatepass", "replace"])))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=broken() | st.binary(max_size=200), verify=st.booleans())
def test_any_file_is_a_release_or_a_release_error(data, verify, tmp_path, bundled):
    (tmp_path / "file").write_bytes(data)
    try:
        json.dumps(load_prompt(tmp_path / "file", verify=verify).provenance)
    except ReleaseError:
        refused(tmp_path / "file", bundled, verify=verify)


_STEPS = st.text(max_size=8) | st.sampled_from(["..", "/", "a" * 300, "\0", "\ud800", "x@a"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(_STEPS, max_size=4).map("/".join))
def test_any_path_is_a_release_error(path, tmp_path, bundled):
    refused(f"{tmp_path}/{path}", bundled)
    refused("x@production", bundled, root=f"{tmp_path}/{path}")


def test_loading_a_prompt_needs_no_third_party_package(bundled):
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from agent.release.runtime import load_prompt\n"
        "assert load_prompt(sys.argv[2]).render(message='x')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, ROOT, bundled]  # there is nothing but the standard library
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"agent"}
    assert [name for name in names if name.startswith("agent.")] == [
        *("agent.conversation", "agent.errors", "agent.prompt", "agent.prompt.bound", "agent.prompt.parts"),
        *("agent.prompt.parts.part", "agent.prompt.template"),
        *("agent.release", "agent.release.aliases", "agent.release.prompt_file", "agent.release.runtime"),
        *("agent.safe_data", "agent.safe_file", "agent.safe_text", "agent.shipped"),
    ]
