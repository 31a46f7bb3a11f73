"""What is said of a winner's confidences: over which rows, how far off they are, and what abstaining leaves."""

from __future__ import annotations

import pytest

from agent.evaluate import breakdown
from agent.results.breakdown import Calibration
from agent.types import Outcome, Prediction
from tests.json_of import json_of

confidence_report = json_of(breakdown.confidence_report)

approx = pytest.approx


def outcome(at: int, value: float | None, sure: float | None) -> Outcome:
    return Outcome("c_1", f"r{at}", Prediction({"team": "x"}, "x", confidence=sure), (), value)


DEV = [outcome(at, float(at >= 10), at / 50) for at in range(50)]
TEST = [outcome(at, float(at % 4 > 0), 0.9 if at < 60 else 0.1) for at in range(80)]


def test_the_threshold_comes_from_dev_and_what_it_leaves_from_the_test() -> None:
    found = confidence_report(TEST, DEV, None, 0.95)
    assert found is not None
    assert (found["method"], found["rows"]) == ("none", 80)
    assert found["ece"] == approx((60 * 0.15 + 20 * 0.65) / 80)
    abstain = found["abstain"]
    assert abstain["below"] == approx(8 / 50)  # 40 of the 42 rows from there on are right
    assert abstain["answered"] == approx(0.75)
    assert abstain["reached"] == approx(0.75)
    assert Calibration.from_json(found).to_json() == found


def test_rows_without_a_score_or_a_confidence_do_not_count() -> None:
    found = confidence_report([*TEST, outcome(90, None, 0.5), outcome(91, 1.0, None)], DEV, None, None)
    assert found is not None
    assert (found["rows"], found["abstain"]) == (80, None)
    assert confidence_report([outcome(0, 1.0, None)], DEV, None, 0.9) is None


def test_where_no_threshold_reaches_the_precision_that_is_said() -> None:
    wrong = [outcome(at, 0.0, 0.9) for at in range(50)]
    found = confidence_report(TEST, wrong, {"method": "fitted", "bias": {"x": 1.0}, "temperature": 2.0}, 0.95)
    assert found is not None
    assert found["abstain"]["below"] is None
    assert (found["abstain"]["answered"], found["abstain"]["reached"]) == (0, None)
    assert (found["bias"], found["temperature"]) == ({"x": 1.0}, 2.0)
