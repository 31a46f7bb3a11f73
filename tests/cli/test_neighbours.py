"""Neighbours from end to end: a run in which they win says so, is released, exported, reproduced and checked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent.release.formats.python_module import load_module
from agent.release.runtime import load_prompt
from tests.cli.calibrated import copying
from tests.cli.world import compatible, files, good, good_json
from tests.wire import WireServer


def test_neighbours_win_where_they_know_more_than_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.programs.prompt.trained_opinions", lambda shared: [])  # it would win
    with WireServer(copying) as server:
        found = good_json(*files(240), "--max-calls", "600", "--price", "1,2", "-m", compatible(server))
        assert found["calibration"]["method"] == "neighbours", found["winner"]
        prompt = load_prompt(Path(found["release"]))
        calibration = prompt.release.calibration
        assert calibration is not None
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
