"""`parse` of the exported Python module reads every reply as the released prompt does, by itself."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ReleaseError
from agent.prompt.calibration import LabelCalibration, Neighbours
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports, write_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import PromptRelease
from agent.release.runtime import Prompt
from agent.types import Field, Message
from tests.release import test_calibration_part, test_calibration_prior
from tests.release.formats import test_conversation_formats, test_tool_formats
from tests.release.formats.sample import plain_turns
from tests.retrieval.shipped import release_of
from tests.retrieval.test_same_picks_in_exports import PROGRAM, prompts

PLAIN = plain_turns()
SCHEMA = json.dumps({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
CHOICE = Field("team", "choice", 'Who \ud800 """ answers.', ("billing", "C#", "A", "ünïcode", "card_arrival"))
NUMBER = Field("total", "number")
JSON = Field("data", "json", schema=SCHEMA)
TEXT = Field("reply", "text", min_words=1, max_words=6, forbidden=("sorry",), required=("é",))
RELEASES: dict[str, PromptRelease] = {
    "choice": replace(PLAIN, outputs=(CHOICE,)),
    "number": replace(PLAIN, outputs=(NUMBER,)),
    "json": replace(PLAIN, outputs=(JSON,)),
    "text with limits": replace(PLAIN, outputs=(TEXT,)),
    "several": replace(PLAIN, outputs=(CHOICE, NUMBER, JSON, TEXT)),
    "chain of thought": replace(PLAIN, outputs=(CHOICE,), reasoning=True),
    "thoughts and number": replace(PLAIN, outputs=(NUMBER,), reasoning=True),
    "thoughts and several": replace(PLAIN, outputs=(CHOICE, NUMBER), reasoning=True),
    "tools": test_tool_formats.RELEASE,
    "calibration": test_calibration_part.RELEASE,
}
NEAR = LabelCalibration("neighbours", {"billing": 0.1, "account changes": -0.1}, 1.2, neighbours=Neighbours(3, 0.5))
GOOD = [
    "billing", "**Card arrival.**", "C#", "Answer: A", "I think.\nteam: billing", "not billing", "42", "$1,234.5",
    "10-20", "6 * 7 = 42", "1e999", '{"city": "Köln"}', '{"data": {"city": 1}}', '```json\n{"city": "x"}\n```',
    "{'city': 1}", "A café", "sorry, é",
    "team: C#\ntotal: 3\ndata: {\"city\": \"x\"}\nreply: é", '[{"play": {"title": "é"}}]', "[]",
    '{"team": "billing", "total": "7", "data": [], "reply": "é"}', "<think>billing</think>A", "<think>never", "",
    "[[ ## team ## ]]\nbilling\n[[ ## completed ## ]]", "<team>billing</team>", "b c", "[" * 70 + "]" * 70, "{" * 2000,
]  # fmt: skip
ODD = st.text(st.characters(codec=None, exclude_categories=())) | st.text('{}[]"\\,:0123456789-.$/= \n#*_ae<>')
PARTS = st.lists(st.sampled_from([*GOOD, "\n", "team:", "total: ", "Answer:", "</think>", "\r\n"]) | ODD, max_size=5)
SERVE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import prompt
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__", "prompt"}
assert not foreign, foreign
for line in sys.stdin:
    found = prompt.parse(*json.loads(line))
    print(json.dumps([found.fields, found.raw, found.error, found.confidence]), flush=True)
"""


def exported(release: PromptRelease, folder: Path) -> Path:
    (path,) = write_exports(verify_exports([FORMATS.get("python")], {"python": Material(release)}), folder)
    return path


@contextmanager
def alone(folder: Path) -> Iterator[Any]:
    """`parse` of an exported module in a Python that has nothing but its standard library."""
    command = [sys.executable, "-I", "-S", "-c", SERVE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        wires = process.stdin, process.stdout

        def parse(*given: Any) -> list[Any]:
            print(json.dumps(given), file=wires[0], flush=True)
            found: list[Any] = json.loads(wires[1].readline())
            return found

        yield parse


@pytest.mark.parametrize("kind", RELEASES)
def test_every_reply_reads_as_the_released_prompt_reads_it(kind: str, tmp_path: Path) -> None:
    release = RELEASES[kind]
    exported(release, tmp_path)
    prompt = Prompt(release)
    with alone(tmp_path) as parse:

        def same(reply: str) -> list[Any]:
            want = prompt.parse(reply)
            found: list[Any] = parse(reply)
            assert found == [dict(want.fields), want.raw, want.error, want.confidence]
            return found

        read = [same(reply) for reply in GOOD]
        given(PARTS.map("".join))(lambda reply: same(reply) and None)()
    assert {bool(error) for _, _, error, _ in read} == {True, False}


def test_calibration_decide_by_the_log_probabilities(tmp_path: Path) -> None:
    release, top = test_calibration_part.RELEASE, test_calibration_part.TOP
    exported(release, tmp_path)
    as_openai = [{"top_logprobs": [{"token": token, "logprob": log} for token, log in place]} for place in top]
    with alone(tmp_path) as parse:
        for tokens in (top, as_openai, (), "nonsense", [[("\u2603", 0.0)]]):
            want = Prompt(release).parse("b c", tokens)
            assert parse("b c", tokens) == [dict(want.fields), "b c", want.error, pytest.approx(want.confidence)]


def test_where_the_input_decides_too_it_is_needed(tmp_path: Path) -> None:
    release = test_calibration_prior.RELEASE
    module = load_module(exported(release, tmp_path), "exported")
    top = ((("billing", math.log(0.6)), ("delivery", math.log(0.4))),)
    for text in ("is my parcel in the van?", "a fee on my card"):
        want = Prompt(release).parse("billing", top, inputs={"message": text})
        found = module.parse("billing", top, inputs={"message": text})
        assert (found.fields, found.confidence) == (want.fields, pytest.approx(want.confidence))
    assert module.parse("billing").fields == {"team": "billing"}
    with pytest.raises(ValueError, match=r"pass inputs="):
        module.parse("billing", top)


def test_a_parser_that_reads_otherwise_is_refused() -> None:
    form = FORMATS.get("python")

    def files(material: Material) -> dict[str, Any]:
        texts = {name: str(text) for name, text in form.files(material).items()}
        changed = {name: text.replace('"answer", "final answer"', '"so", "thus"') for name, text in texts.items()}
        assert changed != texts
        return changed

    release = replace(PLAIN, outputs=(NUMBER,), messages=(*PLAIN.messages, Message("assistant", "1 or 2\nAnswer: 3")))
    with pytest.raises(ReleaseError, match="python: parse drifts"):
        verify_exports([replace(form, files=files)], {"python": Material(release)})


@pytest.mark.parametrize(
    "release",
    [
        *RELEASES.values(),
        *(release_of(PROGRAM, candidate) for candidate in list(prompts())[:2]),
        test_calibration_prior.RELEASE,
        test_conversation_formats.PICKING,
        replace(test_conversation_formats.PICKING, calibration=NEAR),
    ],
)
def test_no_name_of_the_module_means_two_things(release: PromptRelease) -> None:
    form = FORMATS.get("python")
    (source,) = form.files(Material(release)).values()
    assert not isinstance(source, bytes)
    assert set(imported(source)) <= sys.stdlib_module_names
    meanings = Counter(name for name, _ in set(bound(source)))
    assert [name for name, count in meanings.items() if count > 1] == []
    assert {"render", "parse"} <= set(meanings)


def imported(source: str) -> Iterator[str]:
    """The packages that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)


def bound(source: str) -> Iterator[tuple[str, str]]:
    """Each name that a module binds, with what it means."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ast.dump(node)
        elif isinstance(node, ast.ImportFrom):
            yield from ((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Import):
            yield from ((name.asname or name.name, name.name) for name in node.names)
        else:
            names = [each for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
            yield from ((name.id, ast.dump(node)) for name in names)
