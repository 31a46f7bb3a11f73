"""Calibration from end to end: by the label, by neighbours and by a classifier; it costs no call and is released."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agent.prompt.label_calibration import LabelCalibration
from agent.prompt.parts.calibration import Calibrating
from agent.release.formats.module_proof import load_module
from agent.release.runtime import Prompt, load_prompt
from agent.task.load import load_task
from tests.cli.calibrated import biased, copying, likelihoods, listed
from tests.cli.world import TOPICS, WORD, compatible, files, good, good_json, refused
from tests.wire import Fault, WireServer

PARCEL = {"text": "my parcel is with the courier, the tracking says so"}


def weights_of(prompt: Prompt) -> LabelCalibration:
    reading = prompt.release.part(Calibrating)
    assert reading is not None
    return reading.weights


def test_calibration_win_where_the_model_prefers_a_label_and_cost_no_call() -> None:
    command = [*files(240), "--max-calls", "300", "--price", "1,2"]
    with WireServer(biased) as server:
        found = good_json(*command, "-m", compatible(server))
        assert len(server.requests) == found["calls"]["model"] + found["calls"]["proposer"]
        prompt = load_prompt(Path(found["release"]))
        calibration = weights_of(prompt)
        assert prompt.release.parameters["logprobs"] == 8
        answer = prompt.complete(**PARCEL)
        other = ("--models", f"openai-compatible/y@{server.url}", "--limit", "8", "--price", "1,2")
        moved = {one["candidate_id"] for one in good_json("transfer", found["run_id"], *other)["candidates"]}
        checked = good_json("check", found["release"], "--price", "1,2", "--repeats", "1")
        assert checked["score"]["now"]["mean"] > found["baseline"]["test"] + 0.4, "it is read by its calibration, too"
        assert len(checked["flips"]) <= 6, "a recorded dev row was read with the calibration of other rows"
        Path("new.csv").write_text("text\nthe courier lost my parcel\nmy password and username\n", "utf-8")
        good("apply", found["release"], "new.csv", "-o", "answers.csv", "--price", "1,2")
        answered = [row.split(",")[1] for row in Path("answers.csv").read_text().split("\n")[1:3]]
        assert answered == ["delivery", "account"]
    assert found["decision"] == "promote"
    assert answer.fields == {"label": "delivery"}
    assert answer.confidence is not None
    assert 0.5 < answer.confidence <= 1
    trials = good_json("history", found["run_id"])["trials"]
    twins = [trial for trial in trials if trial["operator"].startswith("calibration:")]
    assert {trial["operator"] for trial in twins} >= {"calibration:label-free", "calibration:fitted"}
    assert not moved & {trial["candidate_id"] for trial in twins}, "calibration belong to one model"
    others = [trial for trial in twins if trial["candidate_id"] != found["winner"]["candidate_id"]]
    assert others
    assert {trial["calls"] + trial["cached"] for trial in others} == {0}
    assert found["calibration"]["method"] == calibration.method
    assert found["calibration"]["bias"] == calibration.bias
    assert sum(one["n"] for one in found["calibration"]["bins"]) == found["calibration"]["rows"]
    (carried,) = [part for part in found["attribution"] if part["part"] == "calibration"]
    assert (carried["how"], carried["points"] > 20) == ("measured", True)
    assert good_json("reproduce", found["run_id"])["same"]
    text = good("show", found["run_id"])
    assert "expected calibration error of its confidences" in text
    (shown,) = good_json("audit", "lineage", found["winner"]["candidate_id"])["prompts"]
    assert shown["candidate"]["calibration"] == calibration.as_dict()
    assert f"calibration: {calibration.method}" in good("audit", "lineage", found["winner"]["candidate_id"])
    good("export", found["run_id"], "--format", "python", "-o", "exported.py")
    module = load_module(Path("exported.py"), "exported_with_weights")
    shares = likelihoods([{"content": PARCEL["text"]}])
    logs = [[(topic, math.log(share)) for topic, share in shares.items()]]
    label, confidence = module.answer(logs, PARCEL)
    assert label == "delivery"
    assert abs(confidence - answer.confidence) < 1e-6
    (line,) = refused(1, "export", found["run_id"], "--format", "promptfoo", "-o", "out")
    assert "has a calibration, which this target cannot hold" in line
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert "Right answers by confidence" in page
    assert "expected calibration error of its confidences" in page
    assert f"Answers are calibrated ({calibration.method}" in page


def test_the_option_and_a_task_that_says_no_switch_calibration_off() -> None:
    with WireServer(biased) as server:
        plain = good_json(*files(120), "--max-calls", "100", "-n", "1", "-m", compatible(server), "--no-calibrate")
    assert plain["calibration"] is None
    assert not [trial for trial in good_json("history")["trials"] if "calibration:" in trial["operator"]]
    good("init", "--sample", "support_triage")
    file = Path("tasks/support_triage/task.toml")
    text = file.read_text("utf-8").replace("[search]\n", "[search]\ncalibrate = false\n")
    file.write_text(f"{text}\n[calibration]\nprecision = 0.9\n", "utf-8")
    task = load_task(file.parent)
    assert (task.defaults["calibrate"], task.precision) == (False, 0.9)


# -- by neighbours, and by a classifier --------------------------------------------------------------------------------


def test_neighbours_win_where_they_know_more_than_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.programs.prompt.trained_opinions", lambda shared: [])  # it would win
    with WireServer(copying) as server:
        found = good_json(*files(240), "--max-calls", "600", "--price", "1,2", "-m", compatible(server))
        assert found["calibration"]["method"] == "neighbours", found["winner"]
        prompt = load_prompt(Path(found["release"]))
        calibration = weights_of(prompt)
        assert calibration.neighbours is not None
        answer = prompt.complete(**PARCEL)
        assert answer.fields == {"label": "delivery"}
        checked = good_json("check", found["release"], "--price", "1,2", "--repeats", "1")
        assert checked["score"]["now"]["mean"] > 0.8
    assert found["decision"] == "promote"
    voting = calibration.neighbours
    assert found["calibration"]["neighbours"] == {"k": voting.k, "weight": voting.weight}
    trials = good_json("history", found["run_id"])["trials"]
    twins = [trial for trial in trials if trial["operator"] == "calibration:neighbours"]
    assert twins
    others = [trial for trial in twins if trial["candidate_id"] != found["winner"]["candidate_id"]]
    assert {trial["calls"] + trial["cached"] for trial in others} <= {0}
    assert good_json("reproduce", found["run_id"])["same"]
    assert "answers are combined with a kNN vote of the 32 nearest train rows" in good("show", found["run_id"])
    (shown,) = good_json("audit", "lineage", found["winner"]["candidate_id"])["prompts"]
    assert shown["candidate"]["calibration"] == calibration.as_dict()
    assert ", 32 neighbours with weight " in good("audit", "lineage", found["winner"]["candidate_id"])
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert "Answers are combined with a kNN vote of the 32 nearest train rows" in page
    good("export", found["run_id"], "--format", "python", "-o", "exported.py")
    module = load_module(Path("exported.py"), "exported_with_neighbours")
    equal = [[(topic, math.log(0.25)) for topic in calibration.bias]]
    label, confidence = module.answer(equal, PARCEL)
    read = prompt.parse("delivery", equal, inputs=PARCEL)
    assert (read.fields["label"], read.confidence) == (label, pytest.approx(confidence))


ADDS_NOTHING = "the classifier trained on the train rows decides alone: the model adds nothing"


def contrary(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Prefers what the words of the message do not say."""
    if "improve the instruction" in messages[0]["content"]:
        return "<instruction>Say which department handles it: billing, delivery, account or repair.</instruction>"
    words = set(WORD.findall(messages[-1]["content"].lower()))
    weights = {topic: math.exp(-3.0 * len(words & set(known.split()))) for topic, known in TOPICS.items()}
    total = sum(weights.values())
    return listed({topic: weight / total for topic, weight in weights.items()}, messages, body)


def test_a_model_that_adds_nothing_is_said_to() -> None:
    command = [*files(160), "--max-calls", "200", "--price", "1,2", "--proposer", "none"]
    with WireServer(contrary) as server:
        found = good_json(*command, "-m", compatible(server))
    assert found["calibration"]["method"] == "prior", found["winner"]
    assert found["calibration"]["prior"]["model_adds_nothing"]
    classifier = next(one for one in found["yardsticks"] if one["name"] == "classifier")
    assert found["winner"]["test"] == pytest.approx(classifier["test"], abs=0.03)
    shown = good("show", found["run_id"])
    assert f"  {ADDS_NOTHING}\n" in shown, "under what changed"
    assert f"{ADDS_NOTHING}; expected calibration error" in shown
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert ADDS_NOTHING[1:] in page
