"""A prompt file with a pool that was edited, cut off or made up is refused, with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.release.export import write_release
from agent.release.prompt_file import MESSAGES_FILE
from agent.release.runtime import load_prompt
from tests.cases import each_case
from tests.release.formats.kinds import KINDS

PICKING = KINDS["picks"].release


def refused(file: Path, edit: Callable[[dict[str, Any]], object], words: str) -> str:
    """What is said of a messages.json that `edit` changed; it holds the pattern `words`."""
    whole = file.read_text("utf-8")
    data = json.loads(whole)
    edit(data)
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")
    with pytest.raises(ReleaseError, match=words) as caught:
        load_prompt(file, verify=False)
    file.write_text(whole, "utf-8")
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@each_case(
    "key, value, words",
    [
        ("k", 0, "from 1 to 16"),
        ("k", 17, "from 1 to 16"),
        ("k", True, "from 1 to 16"),
        ("retriever", "magic", "picks.retriever must be one of"),
        ("diverse", "no", "true or false"),
        ("head", "t1", "picks.head must be a list"),
        ("pool", "pool_0", "the rows of the pool are"),
        ("more", 1, "picks has the unknown key 'more'"),
        ("rows", [], "no rows"),
        ("rows", [{"id": "a"}], r"picks.rows\[0\] lacks text"),
    ],
)
def test_a_file_that_was_edited_is_refused(key: str, value: Any, words: str, tmp_path: Path) -> None:
    file = write_release(PICKING, tmp_path).with_name(MESSAGES_FILE)
    assert f"{MESSAGES_FILE}:" in refused(file, lambda data: data["picks"].update({key: value}), words)


def test_a_place_for_the_demos_or_a_form_of_them_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = write_release(PICKING, tmp_path).with_name(MESSAGES_FILE)
    refused(file, lambda data: data["messages"][1].update(content="x"), "hold no {{picked examples}}")
    refused(file, lambda data: data["messages"][1].update(content="x {{picked examples}}"), "another form")
    refused(
        file, lambda data: data["picks"]["rows"][3].update(shown=["one"]), r"rows\[3\].shown must be one text, or turns"
    )


def test_an_edited_row_changes_the_version_and_a_broken_line_is_named(tmp_path: Path) -> None:
    file = write_release(PICKING, tmp_path)
    text = file.read_text("utf-8")
    row = text.index('"shown": ["') + len('"shown": ["')
    for changed, words in (
        (text[:row] + "x" + text[row:], "was edited after release"),
        (text.rstrip("\n}") + "\n", rf"prompt\.md:{text.rstrip(chr(10)).count(chr(10)) + 1}: invalid JSON"),
        (text[: text.rindex("\n## pool\n")] + "\n", "no section '## pool'"),
    ):
        assert changed != text
        file.write_text(changed, "utf-8")
        with pytest.raises(ReleaseError, match=words):
            load_prompt(file)
