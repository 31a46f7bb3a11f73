"""Calibration from end to end: they win where the model prefers a label, cost no call, and are released."""

from __future__ import annotations

import math
from pathlib import Path

from agent.jobs.launch import prepare
from agent.options.jobs import RecordedOptions
from agent.release.formats.python_module import load_module
from agent.release.runtime import load_prompt
from agent.task.load import load_task
from tests.cli.calibrated import biased, likelihoods
from tests.cli.world import compatible, files, good, good_json, refused
from tests.wire import WireServer


def test_calibration_win_where_the_model_prefers_a_label_and_cost_no_call() -> None:
    command = [*files(240), "--max-calls", "300", "--price", "1,2"]
    with WireServer(biased) as server:
        found = good_json(*command, "-m", compatible(server))
        plain = good_json(*command, "-m", compatible(server), "--no-calibrate", "--db", "plain/ledger.db")
        bought = len(server.requests)
        assert bought == found["calls"]["model"] + found["calls"]["proposer"] + sum(plain["calls"].values())
        prompt = load_prompt(Path(found["release"]))
        assert prompt.release.calibration is not None
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
    calibration = prompt.release.calibration
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
