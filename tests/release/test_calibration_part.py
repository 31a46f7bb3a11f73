"""Calibration in a released prompt: kept in both files, hashed with it, refused where they are wrong, applied."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ReleaseError
from agent.prompt.calibration import LabelCalibration
from agent.release.completion import acomplete
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.runtime import MESSAGES_FILE, PROMPT_FILE, PromptRelease, load_prompt
from agent.types import Completion, Field, Message, Request, Usage

LABELS = ('say "a"', "b c", "ünïcode")
WEIGHTS = LabelCalibration("fitted", dict(zip(LABELS, (-2.5, 0.0, 1.25), strict=True)), 1.5)
RELEASE = PromptRelease(
    name="pick",
    messages=(Message("user", "{{text}}"),),
    inputs=("text",),
    outputs=(Field("label", "choice", choices=LABELS),),
    format="turns",
    reasoning=False,
    model="fake/m",
    parameters={"max_tokens": 8, "temperature": 0.0, "logprobs": 6},
    provenance={"abstain_below": 0.75},
    calibration=WEIGHTS,
)
TOP = ((("say", math.log(0.7)), ("b c", math.log(0.2)), ("ün", math.log(0.1))),)


class Sure:
    """Says the first label, and lists the others where it is asked to."""

    name, concurrency = "fake/m", 1

    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        return Completion(LABELS[0], "stop", Usage(1, 1), self.name, TOP if request.logprobs else ())

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        return None


def test_both_files_hold_the_weights_and_the_version_covers_them(tmp_path: Path) -> None:
    write_release(RELEASE, tmp_path)
    for file in (PROMPT_FILE, MESSAGES_FILE):
        prompt = load_prompt(tmp_path / file)
        assert prompt.release == RELEASE
        assert list(prompt.release.calibration.bias) == list(LABELS)
        assert prompt.abstain_below == 0.75
    versions = {RELEASE.version, replace(RELEASE, calibration=None).version}
    versions.add(replace(RELEASE, calibration=replace(WEIGHTS, temperature=1.6)).version)
    assert len(versions) == 3


def test_a_release_without_weights_has_the_version_and_the_files_that_it_had(tmp_path: Path) -> None:
    plain = replace(RELEASE, calibration=None, parameters={"max_tokens": 8}, provenance={})
    assert plain.version == "p_257b9a927456800d"
    write_release(plain, tmp_path)
    assert "calibration" not in (tmp_path / PROMPT_FILE).read_text("utf-8")
    assert load_prompt(tmp_path).abstain_below is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"method": "guessed"},
            "calibration.method must be one of label-free, fitted, neighbours, prior, not 'guessed'",
        ),
        ({"more": 1}, "calibration has the unknown key 'more'"),
        (
            {"bias": {"b c": 1.0}},
            "calibration.bias must be a number for each choice of the one output, and for no other",
        ),
        ({"bias": [1, 2, 3]}, "calibration.bias must be a table"),
        ({"temperature": 0}, "calibration.temperature must be a number above 0"),
        ({"temperature": True}, "calibration.temperature must be a number above 0"),
        ({"bias": dict.fromkeys(LABELS, "1")}, "must be a number, not '1'"),
    ],
)
def test_wrong_weights_are_refused_with_their_line(tmp_path: Path, change: dict[str, object], why: str) -> None:
    write_release(RELEASE, tmp_path)
    file = tmp_path / MESSAGES_FILE
    data = json.loads(file.read_text("utf-8"))
    data["calibration"] |= change
    file.write_text(json.dumps(data, indent=2), "utf-8")
    with pytest.raises(ReleaseError) as caught:
        load_prompt(file, verify=False)
    assert why in str(caught.value)
    line = next(at for at, text in enumerate(file.read_text("utf-8").split("\n"), 1) if '"calibration"' in text)
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_an_edited_weight_is_refused(tmp_path: Path) -> None:
    write_release(RELEASE, tmp_path)
    file = tmp_path / PROMPT_FILE
    file.write_text(file.read_text("utf-8").replace("-2.5", "2.5"), "utf-8")
    with pytest.raises(ReleaseError, match="was edited after release"):
        load_prompt(file)


def test_parse_and_complete_decide_by_the_weights(tmp_path: Path) -> None:
    prompt = load_prompt(write_release(RELEASE, tmp_path))
    as_read, weighed = prompt.parse(LABELS[0]), prompt.parse(LABELS[0], TOP)
    assert (as_read.fields, as_read.confidence) == ({"label": LABELS[0]}, None)
    assert weighed.fields == {"label": LABELS[2]}
    terms = [math.exp(math.log(p) / 1.5 + b) for p, b in zip((0.7, 0.2, 0.1), WEIGHTS.bias.values(), strict=True)]
    assert weighed.confidence == pytest.approx(terms[2] / sum(terms))
    lm = Sure()
    assert prompt.complete(lm, text="x") == weighed
    assert lm.seen[0].logprobs == 6


async def test_a_prompt_without_weights_asks_for_log_probabilities_where_it_may_abstain() -> None:
    plain, lm = replace(RELEASE, calibration=None, parameters={"max_tokens": 8}), Sure()
    found = await acomplete(plain, plain.row({"text": "x"}), lm)
    assert (found.fields, found.confidence) == ({"label": LABELS[0]}, pytest.approx(0.7))
    await acomplete(replace(plain, provenance={}), plain.row({"text": "x"}), lm)
    assert [request.logprobs for request in lm.seen] == [6, 0]


def test_only_targets_that_can_decide_by_weights_take_them() -> None:
    takes, said = set(), dict[str, str]()
    for name, form in FORMATS.usable().items():
        try:
            verify_exports([form], {name: Material(RELEASE)})
            takes.add(name)
        except ReleaseError as error:
            said[name] = str(error)
    for name in ("llama-server", "peft"):  # they take calibration with one
        assert said.pop(name).startswith(f"{name}: 'pick' has no adapter")
    assert said.pop("tools") == "'pick': calls no tools; leave --format tools out"
    assert takes == {"md", "messages", "python", "langchain", "dspy"}
    assert len(said) > 5
    assert all("export as md, messages, python, langchain or dspy" in why for why in said.values())
    for name, why in said.items():
        assert why.startswith(f"{name}: 'pick' has a calibration, which")
