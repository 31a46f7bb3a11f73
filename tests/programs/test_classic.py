"""Answers without a language model: learnt from train alone, the same each time, and never a reason to crash."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.classic import METHODS, ClassicProgram
from agent.programs.classifiers import text_of
from agent.types import Example, Field, MetricSpec, Signature, Task
from tests.toys import TEAMS, make_task

NUMBERS = Signature((Field("message"),), (Field("total", "number"),))


def numbers(count: int = 36, shift: float = 0.0) -> Task:
    """A task whose answer is a number that stands in the row as a word, plus `shift`."""

    def row(split: str, n: int) -> Example:
        word = ("none", "one", "two", "three", "four", "five")[n % 6]
        return Example(f"{split}-{n}", {"message": f"{split}: {word} of them"}, {"total": n % 6 + shift})

    rows: dict[str, Any] = {split: tuple(row(split, n) for n in range(count)) for split in ("train", "dev", "test")}
    return make_task(signature=NUMBERS, metrics=(MetricSpec("numeric", "total"),), **rows)


def answers(task: Task, rows: tuple[Example, ...]) -> dict[str, list[Any]]:
    """What each method says to the rows; a call would fail, as there is none to make."""
    name = task.signature.outputs[0].name

    async def work() -> dict[str, list[Any]]:
        program = ClassicProgram(task)
        await program.fit(rows)
        return {
            candidate.method: [(await program.run(candidate, row, None)).fields[name] for row in rows]  # type: ignore[arg-type]
            for candidate in program.candidates()
        }

    return asyncio.run(work())


def test_a_word_that_names_the_class_is_learnt_and_the_largest_class_is_said_to_every_row() -> None:
    task = make_task(30)
    task = replace(task, train=task.train[:-1])  # one row less of the last class
    said = answers(task, task.test)
    right = [row.labels["team"] for row in task.test]
    assert list(said) == list(METHODS["choice"])
    assert said["classifier"] == right
    assert said["nearest"] == right
    assert set(said["largest class"]) == {TEAMS[0]}, "of equally large ones the first by name"


def test_a_number_is_whole_where_all_of_train_are() -> None:
    task = numbers()
    said = answers(task, task.test)
    assert said["mean"] == [round(2.5)] * 36
    near = [abs(a - row.labels["total"]) for a, row in zip(said["ridge"], task.test, strict=True)]
    assert sum(near) / len(near) < 1.0
    assert all(isinstance(value, int) for values in said.values() for value in values)
    assert not all(isinstance(value, int) for value in answers(numbers(shift=0.5), task.test)["ridge"])


def test_the_same_rows_give_the_same_answers_and_only_train_is_looked_at() -> None:
    task = make_task(20)
    dark = replace(task, dev=(), test=())
    assert answers(task, task.test) == answers(dark, task.test)


@pytest.mark.parametrize(
    "task",
    [
        make_task(train=make_task().train[:1]),
        make_task(train=tuple(replace(row, inputs={"message": " "}) for row in make_task().train)),
        make_task(signature=Signature((Field("message"),), (Field("team"),))),
        make_task(metrics=(MetricSpec("judge", "team"),)),
    ],
    ids=["one answer", "no words", "text", "judged"],
)
def test_where_nothing_can_be_learnt_there_is_no_yardstick(task: Task) -> None:
    assert not ClassicProgram.suits(task)
    assert ClassicProgram.suits(make_task())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=2, max_size=12), st.text(max_size=40))
def test_any_text_is_learnt_from_and_answered(texts: list[str], asked: str) -> None:
    rows = tuple(Example(f"train-{n}", {"message": text}, {"team": TEAMS[n % 2]}) for n, text in enumerate(texts))
    task = make_task(train=rows)
    if ClassicProgram.suits(task):
        said = answers(task, (Example("x", {"message": asked}, {"team": TEAMS[0]}),))
        assert {value for values in said.values() for value in values} <= set(TEAMS)


def test_all_inputs_of_a_row_are_read() -> None:
    assert text_of(["a", "b"]) == "a\nb"
