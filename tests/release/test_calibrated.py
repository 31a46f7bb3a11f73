"""A release with calibrated label scores, alone, with nearest rows or with a classifier: kept, refused, applied."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.label_calibration import LabelCalibration, Neighbours, Prior
from agent.prompt.parts.calibration import Calibrating
from agent.prompt.parts.part import PromptPart
from agent.prompt.parts.picks import PickedDemos
from agent.release.completion import acomplete
from agent.release.export import write_release
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease
from agent.release.runtime import Prompt, load_prompt
from agent.retrieval.linear_training import trained
from agent.types import Completion, Field, Message, Request, Usage
from tests.cases import each_case
from tests.release.test_remembered import loaded
from tests.toys import FakeModel

LABELS = ('say "a"', "b c", "ünïcode")
TEAMS = ("billing", "delivery")
WEIGHTS = LabelCalibration("fitted", dict(zip(LABELS, (-2.5, 0.0, 1.25), strict=True)), 1.5)
FIELD, TEAM = Field("label", "choice", choices=LABELS), Field("team", "choice", choices=TEAMS)
FITTED = PromptRelease(
    name="pick",
    messages=(Message("user", "Which team?\n## classifier\n\n{{message}}"),),
    inputs=("message",),
    outputs=(FIELD,),
    format="turns",
    reasoning=False,
    model="fake/m",
    parameters={"max_tokens": 8, "temperature": 0.0, "logprobs": 6},
    provenance={"abstain_below": 0.75},
    parts=(Calibrating(WEIGHTS, FIELD),),
)
TEXTS = ("my card was charged", "a refund of the fee", "the parcel is late", "the van left my box") * 3
CLASSIFIER = trained(TEXTS, [0, 0, 1, 1] * 3, 2)
assert CLASSIFIER is not None
BY_PRIOR = LabelCalibration("prior", dict.fromkeys(TEAMS, 0.0), 4.0, prior=Prior(2.0, CLASSIFIER.trained_on))
PRIOR = replace(FITTED, outputs=(TEAM,), parts=(Calibrating(BY_PRIOR, TEAM, CLASSIFIER),))
NEAR = LabelCalibration("neighbours", dict.fromkeys(TEAMS, 0.0), 4.0, Neighbours(3, 2.0))
TOP = ((("billing", math.log(0.6)), ("delivery", math.log(0.4))),)


class Unsure(FakeModel):
    """Says the first label, with the log-probabilities of a place if they are requested."""

    def __init__(self, label: str = "billing", top: Any = TOP) -> None:
        super().__init__(lambda request: label)
        self.top = top

    async def complete(self, request: Request) -> Completion:
        found = await super().complete(request)
        return Completion(found.text, "stop", Usage(1, 1), self.name, self.top if request.logprobs else ())


def released(folder: Path, release: PromptRelease) -> Prompt:
    return load_prompt(write_release(release, folder))


def near(folder: Path) -> PromptRelease:
    """Ten rows: billing has card, parcel, door, refund and street, delivery the other words."""
    parameters = {"max_tokens": 8, "logprobs": 6}
    picking = loaded(folder / "plain").release
    return replace(picking, parts=voting(picking, NEAR), parameters=parameters)


def voting(release: PromptRelease, weights: LabelCalibration) -> tuple[PromptPart, ...]:
    picks = release.part(PickedDemos)
    assert picks is not None
    return Calibrating(weights, release.outputs[0], picks=picks), picks


def logistic(odds: float) -> Any:
    return pytest.approx(1 / (1 + math.exp(-abs(odds))))


def test_parse_and_complete_decide_by_the_weights(tmp_path: Path) -> None:
    top = (((LABELS[0][:3], math.log(0.7)), ("b c", math.log(0.2)), ("ün", math.log(0.1))),)
    prompt, model = released(tmp_path, FITTED), Unsure(LABELS[0], top)
    as_read, weighed = prompt.parse(LABELS[0]), prompt.parse(LABELS[0], top)
    assert (as_read.fields, as_read.confidence, prompt.abstain_below) == ({"label": LABELS[0]}, None, 0.75)
    terms = [math.exp(math.log(p) / 1.5 + b) for p, b in zip((0.7, 0.2, 0.1), WEIGHTS.bias.values(), strict=True)]
    assert (weighed.fields, weighed.confidence) == ({"label": LABELS[2]}, pytest.approx(terms[2] / sum(terms)))
    assert prompt.complete(model, message="x") == weighed
    assert model.seen[0].logprobs == 6


def test_nearest_rows_or_a_classifier_decide_if_the_model_is_not_sure(tmp_path: Path) -> None:
    odds = (math.log(0.6) - math.log(0.4)) / 4
    prompt = released(tmp_path / "near", near(tmp_path))
    for word, team in (("card", "billing"), ("fee", "delivery"), ("nothing", "billing")):
        read = prompt.parse("billing", TOP, inputs={"message": word})
        assert read.fields == {"team": team}
        assert word != "fee" or read.confidence == logistic(odds - 2 * math.log(2.5 / 0.5))
        assert prompt.complete(Unsure(), message=word) == read
    prompt = released(tmp_path / "prior", PRIOR)
    for text, team in (("is my parcel in the van?", "delivery"), ("a fee on my card", "billing"), ("xyz", "billing")):
        one, two = CLASSIFIER.log_probabilities(text)
        read = prompt.parse("billing", TOP, inputs={"message": text})
        assert (read.fields, read.confidence) == ({"team": team}, logistic(odds + 2 * (one - two)))
        assert prompt.complete(Unsure(), message=text) == read


def test_an_input_that_decides_is_needed_and_rows_of_a_user_vote_for_that_user_alone(tmp_path: Path) -> None:
    prompt, inputs = released(tmp_path, near(tmp_path)), {"message": "fee trouble"}
    for other, why in (
        (prompt, "as the labels of the nearest rows decide"),
        (Prompt(PRIOR), "as a classifier decides"),
    ):
        with pytest.raises(ReleaseError, match=rf"without its inputs, {why}; pass inputs="):
            other.parse("billing", TOP)
        assert other.parse("billing").fields == {"team": "billing"}, "without log-probabilities its text is read"
    wrong: dict[str, Any]
    for wrong in ({}, {"message": 3}, {"message": "fee", "more": "x"}):
        with pytest.raises(ReleaseError, match="cannot parse a reply of 'toy'"):
            prompt.parse("billing", TOP, inputs=wrong)
    before = prompt.parse("billing", TOP, inputs=inputs)
    prompt.remember(inputs, "billing", who="ann")
    mine = prompt.parse("billing", TOP, inputs=inputs, who="ann")
    assert (before.fields, mine.fields) == ({"team": "delivery"}, {"team": "billing"}), (
        "the corrected row does not vote"
    )
    assert prompt.complete(Unsure(), who="ann", **inputs) == mine
    assert (
        before == prompt.parse("billing", TOP, inputs=inputs) == prompt.parse("billing", TOP, inputs=inputs, who="ben")
    )


def test_both_files_hold_it_and_the_version_covers_every_number(tmp_path: Path) -> None:
    other = trained([*TEXTS, "a parcel"], [*[0, 0, 1, 1] * 3, 1], 2)
    with_near = near(tmp_path)
    for number, (release, changed) in enumerate(
        (
            (FITTED, (Calibrating(replace(WEIGHTS, temperature=1.6), FIELD),)),
            (with_near, voting(with_near, replace(NEAR, neighbours=Neighbours(4, 2.0)))),
            (with_near, voting(with_near, replace(NEAR, neighbours=Neighbours(3, 2.5)))),
            (PRIOR, (Calibrating(BY_PRIOR, TEAM, other),)),
        )
    ):
        folder = write_release(release, tmp_path / str(number)).parent
        for file in (PROMPT_FILE, MESSAGES_FILE):
            assert load_prompt(folder / file).release.data() == release.data()
        assert replace(release, parts=changed).version != release.version
    plain = replace(FITTED, parts=(), parameters={"max_tokens": 8}, provenance={})
    plain = replace(plain, inputs=("text",), messages=(Message("user", "{{text}}"),))
    assert plain.version == "p_257b9a927456800d", "without a part it has the version that it had before there were any"
    assert "calibration" not in write_release(plain, tmp_path / "plain").read_text("utf-8")
    file = tmp_path / "0" / PROMPT_FILE
    file.write_text(file.read_text("utf-8").replace("-2.5", "2.5"), "utf-8")
    with pytest.raises(ReleaseError, match="was edited after release"):
        load_prompt(file)


def edited(file: Path, change: dict[str, Any]) -> None:
    """Change values of a JSON file by the path of their keys; None takes one out."""
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


@each_case(
    "kind, change, why",
    [
        (
            "fitted",
            {"method": "guessed"},
            "calibration.method must be one of label-free, fitted, neighbours, prior, not",
        ),
        ("fitted", {"more": 1}, "calibration has the unknown key 'more'"),
        ("fitted", {"bias": {"b c": 1.0}}, "calibration.bias must be a number for each choice of the one output, and"),
        ("fitted", {"bias": [1, 2, 3]}, "calibration.bias must be a table"),
        ("fitted", {"temperature": 0}, "calibration.temperature must be a number"),
        ("fitted", {"temperature": True}, "calibration.temperature must be a number"),
        ("fitted", {"bias": dict.fromkeys(LABELS, "1")}, "must be a number, not '1'"),
        ("near", {"neighbours": None}, "calibration.neighbours must be there with the method neighbours"),
        ("near", {"method": "fitted"}, "calibration.neighbours must be there with the method neighbours, and"),
        ("near", {"neighbours": {"k": 3}}, "calibration.neighbours lacks weight"),
        ("near", {"neighbours.more": 1}, "calibration.neighbours has the unknown key 'more'"),
        *(("near", {"neighbours.k": k}, "neighbours.k must be a whole number") for k in (0, 1001, True)),
        *(("near", {"neighbours.weight": weight}, "weight must be a number") for weight in (-1.0, "1")),
        ("near", {".picks": None, ".messages": [{"role": "user", "content": "{{message}}"}]}, "but there is no pool"),
        ("prior", {"prior": None}, "calibration.prior must be there with the method prior"),
        ("prior", {"method": "fitted"}, "calibration.prior must be there with the method prior, and"),
        ("prior", {"prior.weight": -1.0}, "calibration.prior.weight must be a number of at least 0"),
        ("prior", {"prior.rows": "rows_other"}, "but the calibration names 'rows_other'"),
        ("prior", {".classifier": None}, "a classifier needs a calibration"),
        ("prior", {"method": "fitted", "prior": None}, "a classifier needs a calibration"),
        ("prior", {".calibration": None}, "a classifier needs a calibration"),
        ("prior", {".classifier.scale": "x"}, "classifier.scale must be a number above 0"),
        ("prior", {".classifier.rows.1.label": "other"}, "one line for each label of the output"),
        ("prior", {".classifier.rows": None}, "classifier.rows must be a list"),
    ],
)
def test_wrong_sections_are_refused_with_their_line(
    tmp_path: Path, kind: str, change: dict[str, Any], why: str
) -> None:
    release = {"fitted": lambda: FITTED, "near": lambda: near(tmp_path), "prior": lambda: PRIOR}[kind]()
    file = write_release(release, tmp_path / kind).with_name(MESSAGES_FILE)
    edited(file, {key[1:] if key.startswith(".") else f"calibration.{key}": value for key, value in change.items()})
    with pytest.raises(ReleaseError) as caught:
        load_prompt(file, verify=False)
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{file}:")


def test_a_prompt_file_without_the_section_of_its_classifier_is_refused(tmp_path: Path) -> None:
    file = write_release(PRIOR, tmp_path)
    text = file.read_text("utf-8")
    file.write_text(text[: text.rindex("## classifier")], "utf-8")
    with pytest.raises(ReleaseError, match=r"prompt\.md.*restore the released file"):
        load_prompt(file, verify=False)


async def test_a_prompt_without_weights_requests_log_probabilities_if_it_may_abstain() -> None:
    plain, model = replace(PRIOR, parts=(), parameters={"max_tokens": 8}), Unsure()
    found = await acomplete(plain, plain.row({"message": "x"}), model)
    assert (found.fields, found.confidence) == ({"team": "billing"}, pytest.approx(0.6))
    await acomplete(replace(plain, provenance={}), plain.row({"message": "x"}), model)
    assert [request.logprobs for request in model.seen] == [5, 0]
