"""A prompt file with a pool that was edited, cut off or made up is refused, with its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.prompt_file import MESSAGES_FILE
from agent.release.runtime import load_prompt
from agent.retrieval.pick import Picks
from tests.retrieval.shipped import refused
from tests.retrieval.test_same_picks import PROGRAM, prompts, released


def edits() -> Iterator[tuple[str, Any, str]]:
    yield "k", 0, "from 1 to 16"
    yield "k", True, "from 1 to 16"
    yield "retriever", "magic", "picks.retriever must be one of"
    yield "diverse", "no", "true or false"
    yield "head", "t1", "picks.head must be a list"
    yield "pool", "pool_0", "the rows of the pool are"
    yield "more", 1, "picks has the unknown key 'more'"
    yield "rows", [], "no rows"
    yield "rows", [{"id": "a"}], r"picks.rows\[0\] lacks text"


@pytest.mark.parametrize(("key", "value", "words"), list(edits()))
def test_a_file_that_was_edited_is_refused(key: str, value: Any, words: str, tmp_path: Path) -> None:
    file = write_release(released(next(prompts("turns"))), tmp_path).with_name(MESSAGES_FILE)
    said = refused(file, lambda data: data["picks"].update({key: value}), words)
    assert f"{MESSAGES_FILE}:" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("{{picked examples}}", "x", "hold no {{picked examples}}"), ("{{picked", "x {{picked", "another form")],
)
def test_a_place_for_the_demos_that_does_not_fit_is_refused_when_the_file_is_read(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    prompt = PromptCandidate("few-shot", "turns", "Route.", picks=Picks("bm25", 4, pool=PROGRAM.pool.id))
    file = write_release(released(prompt), tmp_path).with_name(MESSAGES_FILE)

    def edit(data: dict[str, Any]) -> None:
        assert data["messages"][1]["content"] == "{{picked examples}}"
        data["messages"][1]["content"] = data["messages"][1]["content"].replace(old, new)

    refused(file, edit, words)


def test_an_edited_row_changes_the_version_and_a_broken_line_is_named(tmp_path: Path) -> None:
    file = write_release(released(next(prompts("turns"))), tmp_path)
    text = file.read_text("utf-8")
    shown = text.replace('"shown": ["Message:', '"shown": ["Massage:', 1)
    assert shown != text
    file.write_text(shown, "utf-8")
    with pytest.raises(ReleaseError, match="was edited after release"):
        load_prompt(file)
    file.write_text(text.rstrip("\n}") + "\n", "utf-8")
    last = text.rstrip("\n").count("\n") + 1
    with pytest.raises(ReleaseError, match=rf"prompt\.md:{last}: invalid JSON"):
        load_prompt(file)
    file.write_text(text[: text.rindex("\n## pool\n")] + "\n", "utf-8")
    with pytest.raises(ReleaseError, match="no section '## pool'"):
        load_prompt(file)
