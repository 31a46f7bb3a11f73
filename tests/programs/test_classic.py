"""Answers without a language model: learnt from train alone, the same each time, and never a reason to crash."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.programs.classic import ClassicProgram
from agent.programs.constants import Scorer, best_constant, predicted
from agent.retrieval.classifiers import fit, trained
from agent.scoring.task_metrics import build_metrics, combine
from agent.types import Example, Field, MetricSpec, Prediction, Signature, Task
from tests.toys import TEAMS, make_task

NUMBERS = Signature((Field("message"),), (Field("total", "number"),))


def numbers(count: int = 36, shift: float = 0.0) -> Task:
    """A task whose answer is a number word of the row, plus `shift`."""

    def row(split: str, n: int) -> Example:
        word = ("none", "one", "two", "three", "four", "five")[n % 6]
        return Example(f"{split}-{n}", {"message": f"{split}: {word} of them"}, {"total": n % 6 + shift})

    rows: dict[str, Any] = {split: tuple(row(split, n) for n in range(count)) for split in ("train", "dev", "test")}
    return make_task(signature=NUMBERS, metrics=(MetricSpec("numeric", "total"),), **rows)


def scorer(task: Task) -> Scorer:
    """The task's own score of an answer."""
    metrics = build_metrics(task)

    async def score(row: Example, prediction: Prediction) -> float | None:
        return combine([await metric.score(row, prediction) for metric in metrics], task.metrics)

    return score


def mean(task: Task, answer: Any, rows: tuple[Example, ...]) -> float:
    """The mean score of one answer for all rows."""
    score, fields = scorer(task), {task.signature.outputs[0].name: answer}

    async def work() -> list[float]:
        return [await score(row, predicted(fields)) or 0.0 for row in rows]

    return statistics.mean(asyncio.run(work()))


def constant(task: Task) -> Any:
    """The best constant answer of a task with one output."""
    return asyncio.run(best_constant(task, scorer(task)))[1][task.signature.outputs[0].name]


def answers(task: Task, rows: tuple[Example, ...]) -> dict[str, list[Any]]:
    """The answers of each method; a call would fail."""
    name = task.signature.outputs[0].name

    async def work() -> dict[str, list[Any]]:
        program = ClassicProgram(task)
        await program.fit(rows, scorer(task))
        return {
            candidate.method: [(await program.run(candidate, row, None)).fields[name] for row in rows]  # type: ignore[arg-type]
            for candidate in program.candidates()
        }

    return asyncio.run(work())


def test_a_number_is_whole_where_all_of_train_are() -> None:
    task = numbers()
    said = answers(task, task.test)
    assert said["mean"] == [round(2.5)] * 36
    near = [abs(a - row.labels["total"]) for a, row in zip(said["ridge"], task.test, strict=True)]
    assert sum(near) / len(near) < 1.0
    assert all(isinstance(value, int) for values in said.values() for value in values)
    assert not all(isinstance(value, int) for value in answers(numbers(shift=0.5), task.test)["ridge"])


@pytest.mark.parametrize(
    "task",
    [
        make_task(train=()),
        make_task(metrics=(MetricSpec("judge", "team"),)),
        make_task(
            signature=Signature((Field("message"),), (Field("team"),)),
            metrics=(MetricSpec("length", "team", options={"max_words": 3}),),
        ),
    ],
    ids=["no rows", "judged", "no metric reads a label"],
)
def test_where_nothing_can_be_compared_there_is_no_yardstick(task: Task) -> None:
    assert not ClassicProgram.suits(task)
    assert ClassicProgram.suits(make_task())


# -- the best constant answer -----------------------------------------------------------------------------------------

TAGS = ("billing", "login", "shipping", "refund")


def labelled(field: Field, metric: MetricSpec, labels: list[Any]) -> Task:
    """A task with these labels, the same in each split."""
    rows = tuple(Example(f"r{n}", {"message": f"note {n}"}, {field.name: label}) for n, label in enumerate(labels))
    changes: dict[str, Any] = {"train": rows, "dev": rows, "test": rows}
    return make_task(signature=Signature((Field("message"),), (field,)), metrics=(metric,), **changes)


def test_the_constant_record_has_the_most_frequent_value_of_each_field() -> None:
    labels = [
        {"team": "a", "urgent": True, "tags": ["x"]},
        {"team": "a", "urgent": False, "tags": ["x", "y"]},
        {"team": "b", "urgent": True, "tags": ["y"]},
        {"team": "c", "urgent": True, "tags": ["y", "x"]},
    ]
    task = labelled(Field("record", "json"), MetricSpec("json_fields", "record"), labels)
    found = constant(task)
    assert (found["team"], found["urgent"], sorted(found["tags"])) == ("a", True, ["x", "y"])
    assert next(iter(answers(task, task.test))) == "constant record"


def test_accepted_values_become_one_value() -> None:
    label = [{"name": "lights_on", "arguments": {"room": ["hall", "hallway"], "level": ["", 3]}}]
    metric = MetricSpec("tool_calls", "calls", options={"accepted": True})
    task = labelled(Field("calls", "json"), metric, [label] * 3)
    assert mean(task, constant(task), task.train) == 1.0


def test_several_outputs_are_chosen_field_by_field() -> None:
    outputs = (Field("team", "choice", choices=TEAMS), Field("total", "number"))
    labels = [("billing", 1), ("billing", 2), ("refunds", 2), ("delivery", 2)]
    rows = tuple(
        Example(f"r{n}", {"message": f"note {n}"}, {"team": team, "total": total})
        for n, (team, total) in enumerate(labels)
    )
    task = make_task(
        signature=Signature((Field("message"),), outputs),
        metrics=(MetricSpec("choice", "team", 0.5), MetricSpec("numeric", "total", 0.5)),
        train=rows,
        dev=(),
    )
    found = asyncio.run(best_constant(task, scorer(task)))
    assert found == ("constant record", {"team": "billing", "total": 2})


# -- sets, lists and records ------------------------------------------------------------------------------------------


def worded(count: int = 40) -> list[tuple[str, set[str]]]:
    """Texts that name their tags."""
    rng = random.Random(7)
    drawn = [set(rng.sample(TAGS, rng.randint(1, 2))) for _ in range(count)]
    return [(f"about {' and '.join(sorted(tags))}, number {n}", tags) for n, tags in enumerate(drawn)]


@pytest.mark.parametrize(
    ("field", "metric", "label"),
    [
        (Field("answer"), MetricSpec("set_f1", "answer"), lambda tags: "; ".join(sorted(tags))),
        (Field("answer", "json"), MetricSpec("json_fields", "answer"), sorted),
        (
            Field("answer", "json"),
            MetricSpec("json_fields", "answer"),
            lambda tags: {"first": min(tags), "is_login": "login" in tags, "all": sorted(tags)},
        ),
    ],
    ids=["set", "list", "record"],
)
def test_words_that_name_the_parts_of_an_answer_are_learnt_and_the_export_says_the_same(
    field: Field, metric: MetricSpec, label: Any
) -> None:
    rows = tuple(
        Example(f"r{n}", {"message": text}, {"answer": label(tags)}) for n, (text, tags) in enumerate(worded())
    )
    task = make_task(
        signature=Signature((Field("message"),), (field,)), metrics=(metric,), train=rows[:30], dev=(), test=rows
    )
    said = answers(task, rows[30:])
    assert list(said)[1:] == ["classifier", "nearest"]

    def score(method: str) -> float:
        return statistics.mean(mean(task, value, (row,)) for value, row in zip(said[method], rows[30:], strict=True))

    assert score("classifier") > 0.8 > mean(task, constant(task), rows[30:])
    assert score("nearest") > 0.5
    for method in ("classifier", "nearest"):
        files = ClassicProgram(task).exported(method)
        answer = trained(files["model.json"], files["rows.jsonl"])
        assert [answer(**row.inputs) for row in rows[30:]] == json.loads(json.dumps(said[method]))


tag_sets = st.lists(st.sets(st.sampled_from(TAGS), min_size=1, max_size=3), min_size=2, max_size=12)


@settings(max_examples=30, deadline=None)
@given(tag_sets)
def test_no_set_of_tags_is_better_than_the_constant_one(sets: list[set[str]]) -> None:
    task = labelled(Field("tags"), MetricSpec("set_f1", "tags"), ["; ".join(sorted(each)) for each in sets])
    every = [subset for size in range(5) for subset in itertools.combinations(TAGS, size)]
    best = max(mean(task, "; ".join(subset), task.train) for subset in every)
    assert mean(task, constant(task), task.train) >= best - 0.02, "greedy search may miss the best by little"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=20)), min_size=1, max_size=12), st.text(max_size=40))
@example([("", "a"), (" ", "b")], "x")  # nothing to learn from
def test_any_text_is_learnt_from_and_answered(rows: list[tuple[str, str]], asked: str) -> None:
    """Labels, sets and free texts."""
    for outputs, metric in (
        (Field("answer", "choice", choices=TEAMS), "choice"),
        (Field("answer"), "set_f1"),
        (Field("answer"), "rougeL"),
    ):
        labels = [TEAMS[n % 2] if outputs.choices else label for n, (_, label) in enumerate(rows)]
        train = tuple(
            Example(f"t{n}", {"message": text}, {"answer": label})
            for n, ((text, _), label) in enumerate(zip(rows, labels, strict=True))
        )
        task = make_task(
            signature=Signature((Field("message"),), (outputs,)),
            metrics=(MetricSpec(metric, "answer"),),
            train=train,
            dev=(),
        )
        if ClassicProgram.suits(task):
            said = answers(task, (Example("x", {"message": asked}, {"answer": TEAMS[0]}),))
            values = [value for each in said.values() for value in each]
            assert all(isinstance(value, str) for value in values)
            assert not outputs.choices or set(values) <= set(TEAMS)


def test_sets_of_labels_keep_the_order_of_the_rows_in_every_process() -> None:
    order = ["delta", "alpha", "zeta", "beta", "omega", "gamma", "kappa", "eta"]
    answers = ["; ".join(order), *["none"] * 3]
    said = fit("set", ["all of them", "x", "y", "z"], answers, ";")["classifier"](["all of them"])
    assert said == ["; ".join(order)]
