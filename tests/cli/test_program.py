"""A DSPy program of the user's own as a task: optimized, tested on sealed rows, and shipped as it was scored."""

from __future__ import annotations

import csv
from enum import Enum
from pathlib import Path

import dspy
import pytest
from pydantic import BaseModel

from agent.programs.dspy import read
from agent.types import Field, Signature
from tests.cli.world import TOPICS, good, refused, write_csv, write_task

PROGRAM = """
import dspy


class TwoSteps(dspy.Module):
    def __init__(self):
        self.gist = dspy.Predict(dspy.Signature("text -> gist", "Say what it is about."))
        self.route = dspy.Predict(dspy.Signature("gist -> label", "Name the department."))

    def forward(self, text):
        return self.route(gist=self.gist(text=text).gist)


def build():
    return TwoSteps()
"""
TOML = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
instruction = "What the program does: it routes notes."
program = "program:build"

[fields.label]
type = "choice"
choices = {list(TOPICS)}
"""


def folder() -> Path:
    """A task folder `notes` with 60 rows a split."""
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 180).open(encoding="utf-8")))
    write_task(TOML.replace("'", '"'), {split: rows[at::3] for at, split in enumerate(("train", "dev", "test"))})
    place = Path("notes")
    (place / "program.py").write_text(PROGRAM, "utf-8")
    return place


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import dspy\ndef build():\n    return 1 / 0\n", "notes/program.py:3: ZeroDivisionError"),
        (
            "def build():\n    return 3\n",
            "notes/program.py:1: build() gives a int, not a dspy.Module or a LangChain Runnable",
        ),
        ("import dspy\ndef build():\n    return dspy.Module()\n", "has no predictor"),
        ("x = (\n", "notes/program.py:1: not valid Python"),
        ("y = 1\n", "notes/program.py:1: no function build"),
    ],
)
def test_a_program_that_cannot_be_made_is_refused_before_a_call(source: str, words: str) -> None:
    place = folder()
    (place / "program.py").write_text(source, "utf-8")
    assert words in "\n".join(refused(2, "run", str(place), "-m", "openai-compatible/x@http://127.0.0.1:9"))


class Invoice(BaseModel):
    total: float
    currency: str


class Team(Enum):
    BILLING = "billing"


def test_typed_outputs_of_a_program_are_read_as_what_they_hold() -> None:
    data, team = Field("data", "json"), Field("team", "choice", choices=("billing", "sales"))
    made = Invoice(total=3, currency="EUR")
    whole = {"total": 3.0, "currency": "EUR"}
    for value, found in ((made, whole), ([made, made], [whole, whole]), ({"first": made}, {"first": whole})):
        got = read(dspy.Prediction(data=value, team=Team.BILLING), Signature((), (data, team)))
        assert (got.error, dict(got.fields)) == ("", {"data": found, "team": "billing"})


def test_the_plan_says_what_a_program_costs() -> None:
    place = folder()
    said = good("run", str(place), "--dry-run", "--max-calls", "700", "--price", "1,1")
    assert "program:build runs in this process and makes 2 calls or more" in said
