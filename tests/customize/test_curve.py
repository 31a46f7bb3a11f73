"""The numbers of rows of a label curve, the rows themselves, and what is said of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from agent.jobs.customize import table as curve
from agent.jobs.customize.table import CurvePoint, curve_sizes, curve_text, first_rows
from tests.json_of import json_of
from tests.toys import make_task

curve_lines = json_of(curve.curve_lines)


def test_sizes_are_ascending_and_all_is_left_to_the_table() -> None:
    assert curve_sizes("75, 24,all", 160) == ([24, 75], [])
    assert curve_sizes("24,160", 160) == ([24], [])
    assert curve_sizes("", 160) == ([], [])


def test_what_is_wrong_is_named_all_at_once() -> None:
    _, problems = curve_sizes("x,4,999,-20", 160)
    assert [str(each) for each in problems] == [
        "--curve: 'x': write numbers of train rows, such as 24,75,all",
        "--curve: 4 rows are too few to train on; give at least 16",
        "--curve: 999 rows: there are only 160 train rows; write all",
        "--curve: '-20': write numbers of train rows, such as 24,75,all",
    ]


def test_the_first_rows_hold_each_label_as_the_whole_does_and_grow() -> None:
    task = make_task(60)
    name = task.signature.outputs[0].name
    whole = Counter(str(row.labels[name]) for row in task.train)
    few, more = (first_rows(task, count, 0).train for count in (len(task.train) // 4, len(task.train) // 2))
    assert few == more[: len(few)]
    for label, count in Counter(str(row.labels[name]) for row in few).items():
        assert count == pytest.approx(len(few) * whole[label] / len(task.train), abs=1)
    assert {row.id for row in first_rows(task, 10, 1).train} != {row.id for row in few[:10]}
    assert first_rows(replace(task, train=task.train[:8]), 99, 0).train != ()


def point(arm: str, labels: int, right: int, of: int = 100) -> CurvePoint:
    return CurvePoint(arm, labels, [1.0] * right + [0.0] * (of - right))


CROSSING = [
    point("classifier", 24, 60),
    point("lora", 24, 40),
    point("classifier", 75, 65),
    point("lora", 75, 80),
    point("classifier", 150, 66),
    point("lora", 150, 95),
]


def test_lines_are_by_arm_and_rows_with_an_interval() -> None:
    lines = curve_lines(CROSSING)
    assert [(line["arm"], line["labels"], line["test"]) for line in lines] == [
        ("classifier", 24, 0.6),
        ("classifier", 75, 0.65),
        ("classifier", 150, 0.66),
        ("lora", 24, 0.4),
        ("lora", 75, 0.8),
        ("lora", 150, 0.95),
    ]
    assert all(set(line) == {"arm", "labels", "test", "ci95", "train_s"} for line in lines)
    assert all(line["ci95"][0] < line["test"] < line["ci95"][1] for line in lines)


def test_it_is_said_where_arms_cross_and_that_more_labels_are_likely_to_pay() -> None:
    text = curve_text(CROSSING, 0)
    assert text.startswith(
        "Of the arms that learn classifier leads with 24 train rows, lora passes it between 24 and 75; "
        "from 75 to 150 rows lora gains +15.0 points (95 % CI "
    )
    assert text.endswith(
        "+2.0 for 10 rows: it still climbs, so more labels are likely to pay; each point is one training."
    )


def test_a_step_within_noise_is_not_called_a_climb() -> None:
    text = curve_text([point("lora", 24, 90), point("lora", 75, 91)], 0)
    assert "leads with 24 train rows and with all others up to 75: no arm passes it" in text
    assert "it is not shown that more labels pay" in text


def test_a_fall_is_called_one() -> None:
    text = curve_text([point("lora", 24, 90), point("lora", 75, 40)], 0)
    assert "gains -50.0 points" in text
    assert "more labels of this kind are unlikely to pay" in text


def test_of_one_number_of_rows_nothing_is_said() -> None:
    assert curve_text([point("lora", 24, 90)], 0) == ""
    assert curve_text([], 0) == ""
