"""Scales of words, and numbers that stand in the text: which metric they get, and what is refused before a call."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.metrics.number_metrics import OrdinalOptions, ordinal
from agent.task.answers import known_scale
from agent.task.scoring_rule import metric_asked
from agent.task.task_text import Reading
from agent.types import Task
from tests.task.test_scoring_rule import WORDS, answered, read

AGREEMENT = ["Strongly disagree", "Disagree", "Neutral", "Agree", "Strongly agree"]


@pytest.mark.parametrize(
    "scale",
    [
        AGREEMENT,
        ["very dissatisfied", "dissatisfied", "neutral", "satisfied", "very satisfied"],
        ["Never", "Rarely", "Sometimes", "Often", "Always"],
        ["LOW", "MEDIUM", "HIGH"],
        ["low", "medium", "high", "critical"],
        ["Low", "Normal", "High", "Urgent"],
        ["minor", "major", "critical"],
        ["poor", "fair", "good", "excellent"],
        ["Stimme gar nicht zu", "Stimme eher nicht zu", "teils/teils", "Stimme eher zu", "Stimme voll zu"],
        ["sehr unzufrieden", "unzufrieden", "neutral", "zufrieden", "sehr zufrieden"],
        ["nie", "selten", "manchmal", "häufig", "immer"],
        ["niedrig", "mittel", "hoch"],
        ["gering", "mittel", "hoch", "kritisch"],
    ],
)
def test_labels_of_a_known_scale_are_scored_by_their_distance(here: Path, scale: list[str]) -> None:
    task, reading = read(answered(sorted(scale) * 12))
    assert reading.metric_lines[0].startswith(
        f"metric: ordinal (order {' < '.join(scale)}), because the answers are a scale"
    )
    assert (reading.targets[0].rule.type, reading.targets[0].choices) == ("choice", tuple(scale))
    assert task.metrics[0].options == {"order": scale}
    check = ordinal(OrdinalOptions(order=scale), task.signature.outputs[0])
    assert [check(label, scale[0])[0] for label in scale] == [1 - at / (len(scale) - 1) for at in range(len(scale))]


@pytest.mark.parametrize(
    "labels",
    [["billing", "low", "high"], ["yes", "no", "not sure"], ["high", "low"], ["agree", "mostly agree", "neutral"]],
)
def test_labels_that_are_no_steps_of_one_scale_stay_labels(here: Path, labels: list[str]) -> None:
    assert known_scale(labels) == []
    assert read(answered(labels * 20))[1].metric_lines[0].startswith("metric: choice")


def test_the_plain_label_or_another_order_may_be_asked_for(here: Path) -> None:
    assert read(answered(AGREEMENT * 12), metric="choice")[1].targets[0].rule.metric.name == "choice"
    task, reading = read(answered(["gold", "bronze", "silver"] * 20), metric="ordinal,order=bronze,Silver,gold")
    assert task.metrics[0].options == {"order": ["bronze", "Silver", "gold"]}
    assert reading.targets[0].choices == ("bronze", "silver", "gold")
    assert metric_asked('ordinal,order=["a, b", "c"]', ["x"]).options == {"order": ["a, b", "c"]}


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("ordinal", "the choice 'bronze' is not a number; list the labels from one end to the other: order = [...]"),
        ("ordinal,order=bronze,gold", "the choice 'silver' is not in order; list every choice"),
        ("ordinal,order=bronze,Bronze,gold", "order needs two or more different labels"),
        ("quantity", "the choice 'bronze' is not a number with a unit"),
    ],
)
def test_a_metric_that_cannot_score_the_labels_is_refused(here: Path, metric: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--metric {metric}: {says}")):
        read(answered(["gold", "bronze", "silver"] * 20), metric=metric)


def sentences(text: str, count: int = 60) -> list[str]:
    """Texts that differ in most of their words; {row} is their number from 100 on."""
    rng = random.Random(4)
    return [f"{' '.join(rng.sample(WORDS, 20))} {text.format(row=row)}" for row in range(100, 100 + count)]


def ordered(numbers: list[int], **asked: Any) -> tuple[Task, Reading]:
    texts = zip(numbers, sentences("to bay 7, order 4711-{row}"), strict=True)
    return read([{"mail": f"{n} boxes of {text}", "quantity": n} for n, text in texts], target="quantity", **asked)


def test_numbers_that_stand_in_the_text_are_numbers_and_no_labels(here: Path) -> None:
    numbers = [n % 20 + 1 for n in range(60)]
    task, reading = ordered(numbers)
    assert (reading.targets[0].rule.type, task.metrics[0].name) == ("number", "numeric")
    assert reading.metric_lines[0] == (
        "metric: numeric, because the answers are numbers that stand in the text in 60 of 60 rows; where they are "
        "labels: --type choice"
    )
    assert (
        ordered([n % 5 + 1 for n in range(60)])[1].targets[0].rule.metric.name == "numeric"
    )  # and no scale from 1 to 5
    assert ordered(numbers, type="choice")[1].targets[0].rule.type == "choice"


def test_quantities_with_a_unit_that_stand_in_the_text_are_no_labels(here: Path) -> None:
    texts = enumerate(sentences("as lot {row}"))
    table = [{"note": f"{n % 9 + 1} kg of {text}", "weight": f"{n % 9 + 1} kg"} for n, text in texts]
    assert (
        read(table, target="weight")[1].metric_lines[0].startswith("metric: quantity, because the answers are numbers")
    )


def test_ratings_of_texts_with_many_numbers_stay_a_scale(here: Path) -> None:
    texts = enumerate(sentences("Room 1 on floor 2, 3 beds, 4 towels, 5 keys"))
    table = [{"note": text, "stars": n % 5 + 1} for n, text in texts]
    assert read(table, target="stars")[1].targets[0].rule.metric.name == "ordinal"
