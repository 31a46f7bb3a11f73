"""Whatever the file system or a parser makes of a path or file: only a ReleaseError leaves, the fallback is used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import ReleaseError
from agent.release.export import export_markdown, export_messages, write_release
from agent.release.prompt_file import MAX_FILE, MESSAGES_FILE, PROMPT_FILE, PromptRelease
from agent.release.runtime import load_prompt
from agent.types import Field, Message

RELEASE = PromptRelease(
    name="x",
    messages=(Message("system", "Route it.\n"), Message("user", "{{message}}")),
    inputs=("message",),
    outputs=(Field("team", "choice", choices=("billing", "account")),),
    format="turns",
    reasoning=False,
    model="openai/gpt-x",
    parameters={"max_tokens": 64},
    provenance={"run_id": "r_1"},
)
MARKDOWN, MESSAGES = export_markdown(RELEASE), export_messages(RELEASE)
HUGE = "0x" + "f" * 8000


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(RELEASE, tmp_path_factory.mktemp("bundled"))


def refused(path: Any, bundled: Path, **options: Any) -> ReleaseError:
    """The error without a fallback; with one, it is used."""
    with pytest.raises(ReleaseError) as caught:
        load_prompt(path, **options)
    prompt = load_prompt(path, fallback=bundled, **options)
    assert prompt.version == RELEASE.version
    assert prompt.fallback_reason == str(caught.value)
    assert str(caught.value).encode(), "a log can hold it"
    return caught.value


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def a_file_in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@pytest.mark.parametrize(
    "make",
    [
        a_loop,
        lambda folder: a_loop(folder) / PROMPT_FILE,
        lambda folder: a_file_in_the_way(folder) / PROMPT_FILE,
        lambda folder: folder / ("n" * 300),
        lambda folder: folder / "/".join(["n" * 200] * 40),
        lambda folder: folder / "\0",
        lambda folder: f"{folder}/\ud800",
        a_pipe,
        lambda folder: Path("/dev/zero"),
    ],
    ids=["loop", "in-a-loop", "in-a-file", "name-too-long", "path-too-long", "nul", "surrogate", "pipe", "device"],
)
def test_a_path_that_cannot_be_read(make: Any, tmp_path: Path, bundled: Path) -> None:
    refused(make(tmp_path), bundled)


@pytest.mark.parametrize("word", ["production", "p_0123456789abcdef"])
@pytest.mark.parametrize(
    "make",
    [a_loop, a_file_in_the_way, lambda folder: folder / ("n" * 300), lambda folder: folder / "\0"],
    ids=["loop", "in-a-file", "name-too-long", "nul"],
)
def test_a_name_whose_root_cannot_be_read(word: str, make: Any, tmp_path: Path, bundled: Path) -> None:
    refused(f"x@{word}", bundled, root=make(tmp_path))


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_a_history_in_the_place_of_which_something_else_stands(what: str, tmp_path: Path, bundled: Path) -> None:
    (tmp_path / "x").mkdir()
    file = tmp_path / "x" / "aliases.jsonl"
    if what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(tmp_path / "x")
    refused("x@production", bundled, root=tmp_path)


CLOSED = """
import logging, os, sys
from agent.errors import ReleaseError
from agent.release.runtime import load_prompt
load_prompt(sys.argv[2])  # all that is imported on the way, which another user may not be able to read
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for path in (sys.argv[1], sys.argv[1] + "/prompt.md", "x@production", "x@p_0123456789abcdef"):
    try:
        load_prompt(path, root=sys.argv[1])
    except ReleaseError as error:
        assert isinstance(error.__cause__, PermissionError), repr(error.__cause__)
    else:
        raise SystemExit(f"{path} was read")
    assert load_prompt(path, root=sys.argv[1], fallback=sys.argv[2]).fallback_reason
print("refused")
"""


def test_a_folder_that_this_user_may_not_look_into(tmp_path: Path) -> None:
    write_release(RELEASE, tmp_path / "closed" / "inner")
    write_release(RELEASE, tmp_path / "open")
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    (tmp_path / "closed").chmod(0o700 if os.getuid() == 0 else 0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", CLOSED, tmp_path / "closed" / "inner", tmp_path / "open"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"max_tokens": 64', f'"max_tokens": {HUGE}'),
        ('"run_id": "r_1"', f'"run_id": {HUGE}'),
        ('"type": "choice"', f'"type": "choice", "max_words": {HUGE}'),
        ('"model": "openai/gpt-x"', '"model": 1979'),
        ('"max_tokens": 64', f'"max_tokens": {"9" * 8000}'),
        ('"max_tokens": 64', f'"max_tokens": {"9" * 4000}'),
        ('"max_tokens": 64', f'"max_tokens": {"[" * 100_000}{"]" * 100_000}'),
        ('"max_tokens": 64', f'"max_tokens": {"[" * 500}{"]" * 500}'),
        ('"max_tokens": 64', '"max_tokens": 64, "max_tokens": 64'),
        ('"model"', '"model": "openai/gpt-x",\n  "model"'),
        ('"run_id"', '"run_id": "r_2", "run_id"'),
    ],
)
def test_data_that_no_release_has(old: str, new: str, verify: bool, tmp_path: Path, bundled: Path) -> None:
    for name, text in ((PROMPT_FILE, MARKDOWN), (MESSAGES_FILE, MESSAGES)):
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1))
        error = refused(tmp_path / name, bundled, verify=verify)
        assert str(error).startswith(str(tmp_path / name))
        assert len(str(error)) < 1000


def test_the_cause_is_kept_and_a_mistake_in_the_program_is_not_swallowed(tmp_path: Path, bundled: Path) -> None:
    assert isinstance(refused(a_file_in_the_way(tmp_path) / "a", bundled).__cause__, NotADirectoryError)
    for wrong in (None, 3, b"bytes", ["a"]):
        with pytest.raises(TypeError):
            load_prompt(wrong, fallback=bundled)  # type: ignore[arg-type]


def test_the_largest_release_loads_and_a_larger_file_is_refused(tmp_path: Path, bundled: Path) -> None:
    demos = ("<< {{message}}\n" * 64, "billing account \u00e9 " * 64)
    many = replace(
        RELEASE,
        messages=tuple(Message(("user", "assistant")[at % 2], demos[at % 2]) for at in range(12_000)),
        outputs=(Field("team", "choice", choices=tuple(f"choice {at} of them" for at in range(10_000))),),
    )
    for form, name in ((export_markdown, PROMPT_FILE), (export_messages, MESSAGES_FILE)):
        file = tmp_path / name
        file.write_text(form(many))
        assert MAX_FILE * 0.8 < file.stat().st_size < MAX_FILE
        assert load_prompt(file).version == many.version
        with file.open("ab") as more:
            more.truncate(MAX_FILE + 1)
        assert "larger than 16,000,000 bytes" in str(refused(file, bundled))


_POINTS = sorted({match.start() for form in (MARKDOWN, MESSAGES) for match in re.finditer(r"\b", form)})
_WORDS = ("+++", '"""', "'''", "nan", "-inf", "1e999", "1979-05-27", "true", "null", "a.b", "[[a]]", "\n## user\n")
_ODD = ("\u2028", "\ud800", "\ufeff", HUGE, "9" * 5000, "a" + ".a" * 60)
_PIECES = st.sampled_from([*"+#\"'[]{}=.,\n\r\t \0\\-:", *_WORDS, *_ODD]) | st.text(max_size=8)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A release of one of the two forms with up to four pieces put in, over what stood there."""
    text = draw(st.sampled_from([MARKDOWN, MESSAGES]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.sampled_from(_POINTS)) % (len(text) + 1)
        text = text[:start] + draw(_PIECES) + text[start + draw(st.integers(0, 20)) :]
    return text.encode("utf-8", draw(st.sampled_from(["surrogatepass", "replace"])))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=broken() | st.binary(max_size=200), verify=st.booleans())
def test_any_file_is_a_release_or_a_release_error(data: bytes, verify: bool, tmp_path: Path, bundled: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    try:
        json.dumps(load_prompt(tmp_path / "file", verify=verify).provenance)
    except ReleaseError:
        refused(tmp_path / "file", bundled, verify=verify)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(st.text(max_size=8) | st.sampled_from(["..", "/", "a" * 300, "\0", "\ud800", "x@a"]), max_size=4).map(
        "/".join
    )
)
def test_any_path_is_a_release_error(path: str, tmp_path: Path, bundled: Path) -> None:
    refused(f"{tmp_path}/{path}", bundled)
    refused("x@production", bundled, root=f"{tmp_path}/{path}")
