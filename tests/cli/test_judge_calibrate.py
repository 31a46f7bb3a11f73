"""`optimize judge calibrate` against judges with planted faults: each is measured, and none of them promotes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.evaluate.judge_trust import steadiness, trusted
from agent.results.judge_calibration import CalibrationResult, Control
from agent.types import Outcome, Prediction
from tests.cli.judges import PlantedJudge, write_labels, write_pairs
from tests.cli.world import compatible, good_json, optimize, refused
from tests.wire import Fault, WireServer

RATED = ("--input", "question", "--output", "answer", "--price", "1,2", "-q")
PAIRED = ("--input", "question", "--pair", "left,right", "--rating", "votes", "--price", "1,2", "-q")


def calibrated(judge: Callable[..., Any], *more: str, pairs: bool = False, high: int = 5) -> dict[str, Any]:
    """What the command says of a judge, with the labels in labels.jsonl."""
    path = Path("labels.jsonl")
    write_pairs(path, 60) if pairs else write_labels(path, 60, high=high)
    with WireServer(judge) as server:
        given = ("--labels", path, *(PAIRED if pairs else RATED), "--judge", compatible(server), *more)
        return good_json("judge", "calibrate", *given)


def within(interval: list[float], value: float) -> bool:
    return interval[0] <= value <= interval[1]


def test_a_judge_that_rates_as_people_do_is_trusted() -> None:
    told = calibrated(PlantedJudge())
    assert (told["trusted"], told["why"]) == (True, [])
    ones = ("kappa", "alpha", "agreement", "self_consistency", "order_consistency")
    assert {told[name] for name in ones} == {1.0}
    assert told["first_wins"] == 0.5
    assert all(control["fooled"] == 0 for control in told["negative_controls"].values())
    assert (told["items"], told["unscored"]) == (60, 0)
    assert sum(map(sum, told["confusion"])) == 60


def test_trust_ends_at_each_of_its_limits() -> None:
    measured = CalibrationResult(**calibrated(PlantedJudge()))
    empty, *others = measured.negative_controls.values()
    assert (empty.n, len(others)) == (8, 3)

    def reasons(**changes: Any) -> list[str]:
        return [reason.code for reason in trusted(measured.model_copy(update=changes)).reasons]

    def controls(**first: int) -> dict[str, Control]:
        return {**measured.negative_controls, "empty": empty.model_copy(update=first)}

    assert [reasons(kappa=kappa) for kappa in (0.6, 0.59, None)] == [[], ["low_agreement"], ["low_agreement"]]
    assert [reasons(items=items) for items in (30, 29)] == [[], ["few_items"]]
    assert [reasons(unscored=unscored) for unscored in (12, 13)] == [[], ["unreadable"]]
    assert [reasons(negative_controls=controls(fooled=fooled)) for fooled in (3, 4)] == [[], ["fooled"]]
    assert reasons(negative_controls=controls(n=7)) == ["few_controls"]


def test_a_judge_that_contradicts_itself_shows_it() -> None:
    told = calibrated(PlantedJudge(contradicts=0.2), "--repeats", "5")
    assert within(told["self_consistency_ci95"], 0.8)
    assert told["asked_again"] == 4 * 30


def test_an_item_counts_once_in_the_interval_however_often_it_is_asked_again() -> None:
    first, second = (
        [Outcome("j", f"{at}", Prediction({}, ""), (), float(at >= low)) for at in range(30)] for low in (0, 6)
    )
    told = [steadiness([first, *[second] * times], 5) for times in (1, 8)]
    assert [each["self_consistency"] for each in told] == [0.8, 0.8]
    assert told[0]["self_consistency_ci95"] == told[1]["self_consistency_ci95"]
    assert [each["asked_again"] for each in told] == [30, 240]


def test_points_for_length_are_told_apart_from_what_people_give() -> None:
    told = calibrated(PlantedJudge(longer=1), high=4)
    assert within(told["length_bias_ci95"], 1.0)
    assert told["length_bias_ci95"][0] > 0.5


def test_a_judge_that_obeys_the_answer_is_not_trusted() -> None:
    told = calibrated(PlantedJudge(obeys=True))
    assert told["negative_controls"]["asks for full marks"]["fooled"] == 8
    assert not told["trusted"]
    assert any("asks for full marks" in why for why in told["why"])


def test_a_preference_for_the_first_answer_is_measured_and_both_orders_take_it_out() -> None:
    biased = calibrated(PlantedJudge(first=0.4), pairs=True)
    assert within(biased["order_consistency_ci95"], 0.6)
    assert biased["first_wins"] > 0.6
    table = biased["confusion"]  # worse, tie, better: who is misled ends at a tie, never at the wrong answer
    assert table[0][2] == table[2][0] == 0
    assert biased["people"]["raters"] == 3


def test_a_judge_that_finds_no_answer_as_good_as_an_answer_is_fooled() -> None:
    told = calibrated(PlantedJudge(first=1.0), pairs=True)  # the first in both orders: a tie
    assert {control["fooled"] for control in told["negative_controls"].values()} == {8}
    assert any("32 of 32 negative controls got a good rating" in why for why in told["why"])


def test_a_judge_that_sees_nothing_is_not_trusted() -> None:
    def same(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return json.dumps({"reason": "fine", "quality": 4, "verdict": "A"})

    labels = write_labels(Path("labels.jsonl"), 60)
    with WireServer(same) as server:
        command = ("judge", "calibrate", "--labels", labels, *RATED, "--judge", compatible(server))
        told = good_json(*command)
        gated = optimize(*command, "--gate")
    assert (told["kappa"], told["order_consistency"], told["trusted"]) == (0.0, 0.0, False)
    assert gated.exit_code == 100
    assert "NOT TRUSTED" in gated.stdout
    assert "promotion is blocked" in gated.stdout


def test_calls_that_fail_leave_the_item_unscored() -> None:
    told = calibrated(PlantedJudge(fails=lambda answer: Fault(status=400) if "quality-3" in answer else None))
    assert told["unscored"] > 5
    assert told["kappa"] == 1.0
    assert len(told["reasons"]) == 5


def test_a_judge_that_the_budget_did_not_measure_is_not_trusted() -> None:
    told = calibrated(PlantedJudge(), "--max-calls", "50")
    assert (told["calls"]["judge"], told["status"], told["trusted"]) == (50, "budget", False)
    assert any("negative controls were judged: the budget ended" in why for why in told["why"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--labels", "labels.jsonl"), "--output"),
        (("--labels", "labels.jsonl", "--output", "anwser"), "did you mean"),
        (("--labels", "labels.jsonl", "--output", "answer", "--scale", "5"), "--scale"),
        (("--labels", "labels.jsonl", "--output", "answer", "--scale", "1-3"), "labels.jsonl:"),
        (("--labels", "labels.jsonl", "--output", "answer", "--pair", "a,b"), "one of the two"),
        (("--labels", "labels.jsonl", "--output", "answer", "--mode", "rubric"), "--mode goes with TASK"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_call(words: tuple[str, ...], what: str) -> None:
    write_labels(Path("labels.jsonl"))
    assert any(what in line for line in refused(2, "judge", "calibrate", *words, "-q"))
