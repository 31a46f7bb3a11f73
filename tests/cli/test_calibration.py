"""Calibration from end to end: by the label, by neighbours and by a classifier; it costs no call and is released."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.launch import prepare
from agent.options.jobs import RecordedOptions
from agent.prompt.parts.calibration import Calibrating
from agent.release.formats.module_proof import load_module
from agent.release.runtime import load_prompt
from agent.task.load import load_task
from tests.cli.calibrated import biased, copying, likelihoods, listed
from tests.cli.world import TOPICS, WORD, compatible, files, good, good_json, refused
from tests.wire import Fault, WireServer


def test_calibration_win_where_the_model_prefers_a_label_and_cost_no_call() -> None:
    command = [*files(240), "--max-calls", "300", "--price", "1,2"]
    with WireServer(biased) as server:
        found = good_json(*command, "-m", compatible(server))
        plain = good_json(*command, "-m", compatible(server), "--no-calibrate", "--db", "plain/ledger.db")
        bought = len(server.requests)
        assert bought == found["calls"]["model"] + found["calls"]["proposer"] + sum(plain["calls"].values())
        prompt = load_prompt(Path(found["release"]))
        assert prompt.release.part(Calibrating) is not None
        assert prompt.release.parameters["logprobs"] == 8
        answer = prompt.complete(text="my parcel is with the courier, the tracking says so")
        other = ("--models", f"openai-compatible/y@{server.url}", "--limit", "8", "--price", "1,2")
        moved = {one["candidate_id"] for one in good_json("transfer", found["run_id"], *other)["candidates"]}
        checked = good_json("check", found["release"], "--price", "1,2", "--repeats", "1")
        assert checked["score"]["now"]["mean"] > plain["winner"]["test"] + 0.2, (
            "it is read by its calibration there, too"
        )
        assert len(checked["flips"]) <= 6, "a recorded dev row was read with the calibration of other rows"
        Path("new.csv").write_text("text\nthe courier lost my parcel\nmy password and username\n", "utf-8")
        good("apply", found["release"], "new.csv", "-o", "answers.csv", "--price", "1,2")
        assert [row.split(",")[1] for row in Path("answers.csv").read_text().split("\n")[1:3]] == [
            "delivery",
            "account",
        ]
    assert found["decision"] == "promote"
    assert found["winner"]["test"] > plain["winner"]["test"] + 0.2
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
    plain_trials = good_json("history", plain["run_id"], "--db", "plain/ledger.db")["trials"]
    assert not [trial for trial in plain_trials if "calibration:" in trial["operator"]]
    assert plain["calibration"] is None
    assert plain["trials"]["complete"] + len(twins) == found["trials"]["complete"]
    reading = prompt.release.part(Calibrating)
    assert reading is not None
    calibration = reading.weights
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
    shares = likelihoods([{"content": "my parcel is with the courier, the tracking says so"}])
    logs = [[(topic, math.log(share)) for topic, share in shares.items()]]
    label, confidence = module.answer(logs, {"text": "my parcel is with the courier, the tracking says so"})
    assert label == "delivery"
    assert abs(confidence - answer.confidence) < 1e-6
    (line,) = refused(1, "export", found["run_id"], "--format", "promptfoo", "-o", "out")
    assert "has a calibration, which this target cannot hold" in line
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert "Right answers by confidence" in page
    assert "expected calibration error of its confidences" in page
    assert f"Answers are calibrated ({calibration.method}" in page


def test_the_option_and_a_task_that_says_no_switch_calibration_off() -> None:
    files(60)
    Path("replies.jsonl").write_text('{"reply": "billing"}\n', "utf-8")
    own = {"task": "rows.csv", "target": "label", "prompt": "p.txt", "model": "scripted/replies.jsonl"}
    asked = RecordedOptions(**own, max_calls=200)
    assert prepare(asked, Path("runs/ledger.db")).options.calibrate
    assert not prepare(asked.changed(calibrate=False), Path("runs/ledger.db")).options.calibrate
    good("init", "--sample", "support_triage")
    file = Path("tasks/support_triage/task.toml")
    text = file.read_text("utf-8").replace("[search]\n", "[search]\ncalibrate = false\n")
    file.write_text(f"{text}\n[calibration]\nprecision = 0.9\n", "utf-8")
    task = load_task(file.parent)
    assert (task.calibrate, task.precision) == (False, 0.9)


# -- by neighbours, and by a classifier --------------------------------------------------------------------------------


def test_neighbours_win_where_they_know_more_than_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.programs.prompt.trained_opinions", lambda shared: [])  # it would win
    with WireServer(copying) as server:
        found = good_json(*files(240), "--max-calls", "600", "--price", "1,2", "-m", compatible(server))
        assert found["calibration"]["method"] == "neighbours", found["winner"]
        prompt = load_prompt(Path(found["release"]))
        reading = prompt.release.part(Calibrating)
        assert reading is not None
        calibration = reading.weights
        assert calibration.neighbours is not None
        inputs = {"text": "my parcel is with the courier, the tracking says so"}
        answer = prompt.complete(**inputs)
        assert answer.fields == {"label": "delivery"}
        checked = good_json("check", found["release"], "--price", "1,2", "--repeats", "1")
        assert checked["score"]["now"]["mean"] > 0.8
    assert found["decision"] == "promote"
    assert found["calibration"]["neighbours"] == {
        "k": calibration.neighbours.k,
        "weight": calibration.neighbours.weight,
    }
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
    label, confidence = module.answer(equal, inputs)
    read = prompt.parse("delivery", equal, inputs=inputs)
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
    command = [*files(240), "--max-calls", "300", "--price", "1,2"]
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
