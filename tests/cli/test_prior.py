"""A classifier's vote from end to end: a run in which it wins says so, and releases what answers as it was scored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calibrated import listed
from tests.cli.world import TOPICS, WORD, compatible, files, good, good_json
from tests.wire import Fault, WireServer

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
