"""A classifier's vote from end to end: a run in which it wins says so, and releases what answers as it was scored."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.release.formats.python_module import load_module
from agent.release.runtime import load_prompt
from tests.cli.calibrated import copying, listed
from tests.cli.world import TOPICS, WORD, compatible, files, good, good_json
from tests.wire import Fault, WireServer

INPUTS = {"text": "my parcel is with the courier, the tracking says so"}
ADDS_NOTHING = "the classifier trained on the train rows decides alone: the model adds nothing"


def contrary(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Prefers what the words of the message do not say."""
    if "improve the instruction" in messages[0]["content"]:
        return "<instruction>Say which department handles it: billing, delivery, account or repair.</instruction>"
    words = set(WORD.findall(messages[-1]["content"].lower()))
    weights = {topic: math.exp(-3.0 * len(words & set(known.split()))) for topic, known in TOPICS.items()}
    total = sum(weights.values())
    return listed({topic: weight / total for topic, weight in weights.items()}, messages, body)


def test_a_classifier_wins_where_the_model_is_hardly_sure_and_is_released() -> None:
    command = [*files(240), "--max-calls", "600", "--price", "1,2"]
    with WireServer(copying) as server:
        found = good_json(*command, "-m", compatible(server))
        prompt = load_prompt(Path(found["release"]))
        answer = prompt.complete(**INPUTS)
        checked = good_json("check", found["release"], "--price", "1,2", "--repeats", "1")
    assert found["decision"] == "promote"
    assert found["calibration"]["method"] == "prior", found["winner"]
    calibration = prompt.release.calibration
    assert calibration is not None
    assert calibration.prior is not None
    said = found["calibration"]["prior"]
    assert (said["weight"], said["rows"], said["model_adds_nothing"]) == (
        calibration.prior.weight,
        calibration.prior.rows,
        False,
    )
    classifier = next(one for one in found["yardsticks"] if one["name"] == "classifier")
    assert found["winner"]["test"] > classifier["test"] - 0.05
    assert answer.fields == {"label": "delivery"}
    assert checked["score"]["now"]["mean"] > 0.8
    twins = [t for t in good_json("history", found["run_id"])["trials"] if t["operator"] == "calibration:prior"]
    others = [trial for trial in twins if trial["candidate_id"] != found["winner"]["candidate_id"]]
    assert {trial["calls"] + trial["cached"] for trial in others} <= {0}
    assert good_json("reproduce", found["run_id"])["same"]
    assert "answers are combined with a classifier's vote (prior: weight " in good("show", found["run_id"])
    assert ", a classifier of the train rows with weight " in good("audit", "lineage", found["winner"]["candidate_id"])
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert "Answers are combined with a classifier&#39;s vote (prior: weight " in page
    good("export", found["run_id"], "--format", "python", "-o", "exported.py")
    equal = [[(topic, math.log(0.25)) for topic in calibration.bias]]
    read = prompt.parse("delivery", equal, inputs=INPUTS)
    label, confidence = load_module(Path("exported.py"), "exported_with_prior").answer(equal, INPUTS)
    assert (read.fields["label"], read.confidence) == (label, pytest.approx(confidence))
    code = (
        "import json, sys; from promptassay import load_prompt\n"
        "equal, inputs = json.loads(sys.argv[2])\n"
        "found = load_prompt(sys.argv[1]).parse('delivery', equal, inputs=inputs)\n"
        "print(found.fields['label'], found.confidence, 'sklearn' in sys.modules)"
    )
    sent = json.dumps([equal, INPUTS])
    done = subprocess.run(
        [sys.executable, "-c", code, found["release"], sent], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [label, str(read.confidence), "False"]


def test_a_model_that_adds_nothing_is_said_to() -> None:
    command = [*files(240), "--max-calls", "300", "--price", "1,2"]
    with WireServer(contrary) as server:
        found = good_json(*command, "-m", compatible(server))
        plain = good_json(*command, "-m", compatible(server), "--no-calibrate", "--db", "plain/ledger.db")
    assert found["calibration"]["method"] == "prior", found["winner"]
    assert found["calibration"]["prior"]["model_adds_nothing"]
    classifier = next(one for one in found["yardsticks"] if one["name"] == "classifier")
    assert found["winner"]["test"] == pytest.approx(classifier["test"], abs=0.03)
    shown = good("show", found["run_id"])
    assert f"  {ADDS_NOTHING}\n" in shown, "under what changed"
    assert f"{ADDS_NOTHING}; expected calibration error" in shown
    page = Path(good_json("report", found["run_id"])["file"]).read_text("utf-8")
    assert ADDS_NOTHING[1:] in page
    assert plain["calibration"] is None
    trials = good_json("history", plain["run_id"], "--db", "plain/ledger.db")["trials"]
    assert not [trial for trial in trials if "calibration:" in trial["operator"]]
