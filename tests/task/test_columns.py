"""Optional columns, columns that are filled in later, and a file that brings its own splits."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ProblemsError
from agent.options.shared import Asked
from agent.task.from_file import task_from_file, write_task
from agent.task.load import load_task
from agent.task.task_text import Reading
from agent.types import Task
from tests.task.test_scoring_rule import WORDS

TEAMS = ("billing", "delivery", "refunds")
Rows = list[dict[str, Any]]


def tickets(count: int = 60, **columns: list[str]) -> Rows:
    """Texts with a team, and further columns whose values are taken in turn."""
    rng = random.Random(5)
    return [
        {"message": " ".join(rng.sample(WORDS, 12)), "team": TEAMS[n % 3]}
        | {name: values[n % len(values)] for name, values in columns.items()}
        for n in range(count)
    ]


def write(table: Rows) -> str:
    Path("t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")
    return "t.jsonl"


def read(table: Rows, prompt: str = "", **asked: Any) -> tuple[Task, Reading]:
    return task_from_file(write(table), "team", prompt, asked=Asked(**asked))


def rows_of(task: Task) -> int:
    return len(task.train) + len(task.dev) + len(task.test)


def test_an_empty_cell_of_an_optional_column_drops_no_row_and_the_column_is_named(here: Path) -> None:
    table = tickets(csat=["5", "", "1", "4", "3", "2", "", "5", "2", "1", "3"])
    task, reading = read(table)
    assert (rows_of(task), next(reading.lines())) == (
        60,
        "t.jsonl: 60 rows; dropped: none; left out of the splits (near-duplicates, or past their sizes): 0",
    )
    assert "column 'csat': input (holds text; empty in 11 rows, kept)" in list(reading.lines())
    assert {row.inputs["csat"] for row in task.train} > {""}


def test_a_task_by_hand_says_which_input_may_be_empty(here: Path) -> None:
    folder = Path("tasks/desk")
    write_task(folder, write(tickets(csat=["5", "", "1", "2"])), "team")
    toml = folder / "task.toml"
    assert "[fields.csat]\noptional = true\n" in toml.read_text("utf-8")
    assert {row.inputs["csat"] for row in load_task(folder).dev} == {"5", "", "1", "2"}
    toml.write_text(toml.read_text("utf-8").replace("optional = true", "optional = false"), "utf-8")
    with pytest.raises(ProblemsError, match="csat: is empty; write the text or remove the row"):
        load_task(folder)
    toml.write_text(
        toml.read_text("utf-8")
        .replace("[fields.csat]\noptional = false", "[fields.team]\noptional = true", 1)
        .replace("[fields.team]\ntype", "type"),
        "utf-8",
    )
    with pytest.raises(ProblemsError, match="'team' cannot be empty; optional is for one of several inputs"):
        load_task(folder)


@pytest.mark.parametrize(
    "name",
    [
        "CSAT",
        "csat_score",
        "Assignee",
        "assignee_id",
        "Closed",
        "closed at",
        "prediction",
        "model_prediction",
        "Predicted",
        "split",
        "Bearbeiter",
        "Gelöst am",
        "Resolution",
    ],
)
def test_a_column_that_is_filled_in_later_is_an_input_with_a_warning(here: Path, name: str) -> None:
    table = tickets(**{name: ["so", "thus", "other", "more", "less"]})
    task, reading = read(table)
    assert len(task.signature.inputs) == 2
    quoted = f"'{name}'" if " " in name else name
    assert f"column {name!r}: is it known when the prompt is used? If not: --ignore {quoted}" in list(reading.lines())
    assert read(table, ignore=(name,))[1].later == []
    assert read(table, input=("message", name))[1].later == []


def held(task: Task, column: dict[str, str]) -> list[set[str]]:
    """By split of the task, which values of a column its rows have in the file."""
    return [{column[row.inputs["message"]] for row in rows} for rows in (task.train, task.dev, task.test)]


@pytest.mark.parametrize(
    ("values", "expected", "says"),
    [
        (["train", "dev", "test"], [{"train"}, {"dev"}, {"test"}], ""),
        (["Training", "Training", "validation", "TEST"], [{"Training"}, {"validation"}, {"TEST"}], ""),
        (["train", "val", "holdout", "train"], [{"train"}, {"val"}, {"holdout"}], ""),
        (["train", "train", "eval", "test"], [{"train"}, {"eval"}, {"test"}], ""),
        (
            ["train", "train", "test"],
            [{"train"}, {"train"}, {"test"}],
            "; dev rows are taken from train, as it names none",
        ),
        (
            ["train", "train", "dev"],
            [{"train"}, {"dev"}, {"train"}],
            "; test rows are taken from train, as it names none",
        ),
    ],
)
def test_a_column_of_splits_splits_the_rows(here: Path, values: list[str], expected: list[set[str]], says: str) -> None:
    table = tickets(120, fold=values)
    task, reading = read(table)
    assert held(task, {row["message"]: row["fold"] for row in table}) == expected
    assert [field.name for field in task.signature.inputs] == ["message"]
    lines = list(reading.lines())
    assert "column 'fold': split (says which rows are train, dev and test)" in lines
    assert f"splits: by the column 'fold'{says}" in lines
    assert reading.unused == 0
    assert read(table, "Which team? {{message}} {{fold}}")[1].split_line == ""
    assert read(table, ignore=("fold",))[1].split_line == ""


def test_a_near_duplicate_of_a_test_row_is_left_out_of_train(here: Path) -> None:
    table = tickets(120, split=["train", "dev", "test", "train"])
    table[0]["message"] = table[2]["message"] + " please"
    table[0]["team"] = table[2]["team"]
    task, reading = read(table)
    assert reading.unused == 1
    assert table[0]["message"] not in {row.inputs["message"] for row in (*task.train, *task.dev, *task.test)}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["dev", "test"], "names splits, but no train rows; rows are split afresh"),
        (["train", "dev", "test", ""], "names splits, but is empty in 15 rows; fill it in to have it used"),
    ],
)
def test_a_column_of_splits_that_cannot_be_used_says_why(here: Path, values: list[str], reason: str) -> None:
    _, reading = read(tickets(split=values))
    assert f"column 'split': ignored ({reason})" in list(reading.lines())
    assert reading.split_line == ""
