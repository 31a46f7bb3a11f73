"""A released prompt whose answers neighbours help to decide: wrong data refused, inputs needed, a user's rows count."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.prompt.calibration import LabelCalibration, Neighbours
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import Prompt, load_prompt
from agent.types import Completion, Request, Usage
from tests.release.test_remembered import loaded

TEAMS = ("billing", "delivery")
WEIGHTS = LabelCalibration("neighbours", dict.fromkeys(TEAMS, 0.0), 4.0, Neighbours(3, 2.0))
TOP = ((("billing", math.log(0.6)), ("delivery", math.log(0.4))),)


class Unsure:
    """Says billing, hardly sure."""

    name, concurrency = "fake/m", 1

    async def complete(self, request: Request) -> Completion:
        return Completion("billing", "stop", Usage(1, 1), self.name, TOP if request.logprobs else ())

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        return None


def released(folder: Path) -> Prompt:
    """The prompt of ten rows: billing has card, parcel, door, refund and street, delivery the other words."""
    plain = loaded(folder / "plain").release
    release = replace(plain, calibration=WEIGHTS, parameters={"max_tokens": 8, "logprobs": 6})
    return load_prompt(write_release(release, folder))


def test_the_nearest_rows_decide_where_the_model_is_not_sure(tmp_path: Path) -> None:
    prompt = released(tmp_path)
    read = {word: prompt.parse("billing", TOP, inputs={"message": word}) for word in ("card", "fee", "nothing")}
    assert {word: each.fields["team"] for word, each in read.items()} == {
        "card": "billing",
        "fee": "delivery",
        "nothing": "billing",
    }
    assert read["fee"].confidence == pytest.approx(1 / (1 + math.exp(math.log(1.5) / 4 - 2 * math.log(2.5 / 0.5))))
    for word, prediction in read.items():
        assert prompt.complete(Unsure(), message=word) == prediction


def test_without_its_inputs_a_reply_is_refused_and_never_read_otherwise(tmp_path: Path) -> None:
    prompt = released(tmp_path)
    with pytest.raises(
        ReleaseError, match=r"without its inputs, as the labels of the nearest rows decide; pass inputs="
    ):
        prompt.parse("billing", TOP)
    wrong: dict[str, Any]
    for wrong in ({}, {"message": 3}, {"message": "fee", "more": "x"}):
        with pytest.raises(ReleaseError, match="cannot parse a reply of 'toy'"):
            prompt.parse("billing", TOP, inputs=wrong)
    assert prompt.parse("billing").fields == {"team": "billing"}, "without log-probabilities as it stands"


def test_rows_of_a_user_vote_for_that_user_alone(tmp_path: Path) -> None:
    prompt = released(tmp_path)
    inputs = {"message": "fee trouble"}
    before = prompt.parse("billing", TOP, inputs=inputs)
    assert before.fields == {"team": "delivery"}
    prompt.remember(inputs, "billing", who="ann")
    for prediction in (
        prompt.parse("billing", TOP, inputs=inputs, who="ann"),
        prompt.complete(Unsure(), who="ann", **inputs),
    ):
        assert prediction.fields == {"team": "billing"}, "the corrected row of the pool does not vote"
    assert prompt.parse("billing", TOP, inputs=inputs) == before
    assert prompt.parse("billing", TOP, inputs=inputs, who="ben") == before
    prompt.forget("ann")
    assert prompt.parse("billing", TOP, inputs=inputs, who="ann") == before


def test_both_files_hold_the_neighbours_and_the_version_covers_them(tmp_path: Path) -> None:
    release = released(tmp_path).release
    assert [load_prompt(tmp_path / name).release for name in (PROMPT_FILE, MESSAGES_FILE)] == [release, release]
    versions = {replace(release, calibration=replace(WEIGHTS, neighbours=Neighbours(k, 2.0))).version for k in (3, 4)}
    versions |= {replace(release, calibration=replace(WEIGHTS, neighbours=Neighbours(3, 2.5))).version}
    assert len(versions) == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"neighbours": None}, "calibration.neighbours must be there with the method neighbours"),
        ({"neighbours": {"k": 3}}, "calibration.neighbours lacks weight"),
        ({"neighbours": {"k": 3, "weight": 1.0, "more": 1}}, "calibration.neighbours has the unknown key 'more'"),
        (
            {"neighbours": {"k": 0, "weight": 1.0}},
            "calibration.neighbours.k must be a whole number from 1 to 1,000, not 0",
        ),
        ({"neighbours": {"k": 10**9, "weight": 1.0}}, "calibration.neighbours.k must be a whole number"),
        ({"neighbours": {"k": True, "weight": 1.0}}, "calibration.neighbours.k must be a whole number"),
        ({"neighbours": {"k": 3, "weight": -1.0}}, "calibration.neighbours.weight must be a number of at least 0"),
        ({"neighbours": {"k": 3, "weight": "1"}}, "calibration.neighbours.weight must be a number of at least 0"),
        ({"method": "fitted"}, "calibration.neighbours must be there with the method neighbours, and"),
    ],
)
def test_wrong_neighbours_are_refused_with_their_line(tmp_path: Path, change: dict[str, object], why: str) -> None:
    released(tmp_path)
    file = tmp_path / MESSAGES_FILE
    data = json.loads(file.read_text("utf-8"))
    data["calibration"] |= change
    file.write_text(json.dumps(data, indent=2), "utf-8")
    with pytest.raises(ReleaseError) as caught:
        load_prompt(file, verify=False)
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{file}:")


def test_neighbours_without_a_pool_are_refused(tmp_path: Path) -> None:
    released(tmp_path)
    data = json.loads((tmp_path / MESSAGES_FILE).read_text("utf-8"))
    del data["picks"]
    data["messages"] = [message for message in data["messages"] if "picked" not in message["content"]]
    (tmp_path / MESSAGES_FILE).write_text(json.dumps(data, indent=2), "utf-8")
    with pytest.raises(ReleaseError, match="but there is no pool"):
        load_prompt(tmp_path / MESSAGES_FILE, verify=False)


def test_only_targets_that_can_count_votes_take_it(tmp_path: Path) -> None:
    release = released(tmp_path).release
    takes, said = set(), dict[str, str]()
    for name, form in FORMATS.usable().items():
        try:
            verify_exports([form], {name: Material(release)})
            takes.add(name)
        except ReleaseError as error:
            said[name] = str(error)
    assert takes == {"md", "messages", "python", "langchain", "dspy"}
    assert said.pop("llama-server").startswith("llama-server: ")
    assert said.pop("peft").startswith("peft: ")
    assert "calls no tools" in said.pop("tools")
    assert all("has a calibration, which" in why for why in said.values())
