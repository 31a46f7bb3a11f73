"""A released prompt that a classifier helps to decide: both files, wrong sections refused, inputs needed, formats."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.calibration import LabelCalibration, Prior
from agent.prompt.label_training import trained
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease
from agent.release.runtime import Prompt, load_prompt
from agent.types import Field, Message
from tests.release.test_calibration_neighbours import Unsure

TEAMS = ("billing", "delivery")
TEXTS = ("my card was charged", "a refund of the fee", "the parcel is late", "the van left my box") * 3
CLASSIFIER = trained(TEXTS, [0, 0, 1, 1] * 3, 2)
assert CLASSIFIER is not None
RELEASE = PromptRelease(
    name="toy",
    messages=(Message("user", "Which team?\n## classifier\n\n{{message}}"),),
    inputs=("message",),
    outputs=(Field("team", "choice", choices=TEAMS),),
    format="turns",
    reasoning=False,
    model="fake/m",
    parameters={"max_tokens": 8, "logprobs": 6},
    provenance={},
    calibration=LabelCalibration("prior", dict.fromkeys(TEAMS, 0.0), 4.0, prior=Prior(2.0, CLASSIFIER.trained_on)),
    classifier=CLASSIFIER,
)
TOP = ((("billing", math.log(0.6)), ("delivery", math.log(0.4))),)


def released(folder: Path) -> Prompt:
    return load_prompt(write_release(RELEASE, folder))


def test_the_classifier_decides_where_the_model_is_not_sure(tmp_path: Path) -> None:
    prompt = released(tmp_path)
    for text, team in (("is my parcel in the van?", "delivery"), ("a fee on my card", "billing"), ("xyz", "billing")):
        read = prompt.parse("billing", TOP, inputs={"message": text})
        assert read.fields == {"team": team}
        one, two = CLASSIFIER.log_probabilities(text)
        odds = (math.log(0.6) - math.log(0.4)) / 4 + 2 * (one - two)
        assert read.confidence == pytest.approx(1 / (1 + math.exp(-abs(odds))))
        assert prompt.complete(Unsure(), message=text) == read


def test_without_its_inputs_a_reply_is_refused_and_without_log_probabilities_read_as_it_is(tmp_path: Path) -> None:
    prompt = released(tmp_path)
    with pytest.raises(ReleaseError, match=r"as a classifier decides; pass inputs="):
        prompt.parse("billing", TOP)
    assert prompt.parse("billing").fields == {"team": "billing"}


def test_both_files_hold_the_classifier_and_the_version_covers_it(tmp_path: Path) -> None:
    released(tmp_path)
    for name in (PROMPT_FILE, MESSAGES_FILE):
        found = load_prompt(tmp_path / name).release
        assert (found.version, found.calibration, found.messages) == (
            RELEASE.version,
            RELEASE.calibration,
            RELEASE.messages,
        )
        assert found.data() == RELEASE.data()
    other = trained([*TEXTS, "a parcel"], [*[0, 0, 1, 1] * 3, 1], 2)
    assert replace(RELEASE, classifier=other).version != RELEASE.version
    file = tmp_path / PROMPT_FILE
    text = file.read_text("utf-8")
    line = next(each for each in text.splitlines() if '"weights": "' in each)
    start = line.index('"weights": "') + len('"weights": "')
    other_letter = "A" if line[start] != "A" else "B"
    file.write_text(text.replace(line, line[:start] + other_letter + line[start + 1 :]), "utf-8")
    with pytest.raises(ReleaseError, match="was edited after release"):
        load_prompt(file)


def edited(folder: Path, change: dict[str, Any]) -> Path:
    """messages.json with other values, by the path of their keys."""
    released(folder)
    file = folder / MESSAGES_FILE
    data = json.loads(file.read_text("utf-8"))
    for path, value in change.items():
        *keys, last = path.split(".")
        part = data
        for key in keys:
            part = part[int(key)] if key.isdigit() else part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
    file.write_text(json.dumps(data, indent=2), "utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"classifier": None}, "a classifier needs a calibration"),
        ({"calibration.prior": None}, "calibration.prior must be there with the method prior"),
        ({"calibration.prior.weight": -1.0}, "calibration.prior.weight must be a number of at least 0"),
        ({"calibration.prior.weight": "1"}, "calibration.prior.weight must be a number of at least 0"),
        ({"calibration.prior.more": 1}, "calibration.prior has the unknown key 'more'"),
        ({"calibration.prior.rows": "rows_other"}, "but the calibration names 'rows_other'"),
        ({"calibration.method": "fitted"}, "calibration.prior must be there with the method prior, and"),
        ({"calibration.method": "fitted", "calibration.prior": None}, "a classifier needs a calibration"),
        ({"calibration": None}, "a classifier needs a calibration"),
        ({"classifier.scale": "x"}, "the scale of the classifier is a number above 0"),
        ({"classifier.rows.0.terms": "x"}, "terms of the classifier are not bytes in base64"),
        ({"classifier.rows.1.label": "other"}, "one line for each label of the output"),
        ({"classifier.rows": None}, "no lines of numbers"),
    ],
)
def test_wrong_sections_are_refused_with_their_file(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    file = edited(tmp_path, change)
    with pytest.raises(ReleaseError) as caught:
        load_prompt(file, verify=False)
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{file}")


def test_a_prompt_file_without_its_section_is_refused(tmp_path: Path) -> None:
    released(tmp_path)
    file = tmp_path / PROMPT_FILE
    text = file.read_text("utf-8")
    file.write_text(text[: text.rindex("## classifier")], "utf-8")
    with pytest.raises(ReleaseError, match="restore the released file"):
        load_prompt(file, verify=False)


def test_targets_that_see_the_input_take_it_and_answer_alike() -> None:
    takes, said = set(), dict[str, str]()
    for name, form in FORMATS.usable().items():
        try:
            verify_exports([form], {name: Material(RELEASE)})
            takes.add(name)
        except ReleaseError as error:
            said[name] = str(error)
    assert takes == {"md", "messages", "python", "langchain", "dspy"}
    for name in ("llama-server", "peft", "tools"):
        assert said.pop(name)
    assert all("has a calibration, which" in why for why in said.values())
