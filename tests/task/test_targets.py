"""Several targets: an answer with a value for each, scored one by one."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.options.shared import Asked
from agent.prompt.reply_parser import parse_reply
from agent.task.from_file import Targets, task_from_file
from agent.task.task_text import Reading
from agent.types import Task
from tests.task.test_scoring_rule import WORDS

QUEUES = ("billing", "delivery", "refunds")
LEVELS = ("low", "medium", "high")
BOTH = ("Queue", "priority")


def tickets(count: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(6)
    return [
        {
            "message": " ".join(rng.sample(WORDS, 12)),
            "Queue": QUEUES[n % 3],
            "priority": LEVELS[n // 3 % 3],
            "stars": n % 5,
        }
        for n in range(count)
    ]


def read(target: Targets, prompt: str = "", **asked: Any) -> tuple[Task, Reading]:
    Path("t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in tickets()), "utf-8")
    return task_from_file("t.jsonl", target, prompt, asked=Asked(**asked))


def test_each_target_is_an_output_with_its_own_type_and_metric(here: Path) -> None:
    task, reading = read(BOTH, ignore=("stars",))
    assert str(task.signature) == "message -> Queue, priority"
    assert [field.choices for field in task.signature.outputs] == [QUEUES, LEVELS]
    assert [(m.name, m.field, m.weight) for m in task.metrics] == [
        ("choice", "Queue", 0.5),
        ("ordinal", "priority", 0.5),
    ]
    labels = {row["message"]: (row["Queue"], row["priority"]) for row in tickets()}
    for row in (*task.train, *task.dev, *task.test):
        assert (row.labels["Queue"], row.labels["priority"]) == labels[row.inputs["message"]]
    lines = list(reading.lines())
    assert [line.split(", because")[0] for line in reading.metric_lines] == [
        "metric of Queue: choice",
        "metric of priority: ordinal (order low < medium < high)",
    ]
    assert (
        "replies: the lines 'Queue: ...' and 'priority: ...', or one JSON object with these keys; ask for one of them "
        "in your prompt"
    ) in lines
    assert lines[-3].startswith("train: 18 rows (Queue billing: 6, delivery: 6, refunds: 6; priority low: ")


def test_the_plain_prompt_asks_for_lines_that_are_read_as_the_answers(here: Path) -> None:
    task, _ = read((*BOTH, "stars"))
    assert task.instruction == (
        "Read the message and give the Queue, priority and stars.\n"
        "The Queue is exactly one of:\n- billing\n- delivery\n- refunds\n"
        "The priority is exactly one of:\n- low\n- medium\n- high\n"
        "Answer with these lines:\n"
        "Queue: that one only, spelled as above.\n"
        "priority: that one only, spelled as above.\n"
        "stars: one number from 0 to 4 only, in digits, without a unit or other words."
    )
    wanted = {"Queue": "refunds", "priority": "low", "stars": 3}
    for reply in ("Queue: refunds\npriority: low\nstars: 3", json.dumps(wanted)):
        assert parse_reply(reply, task.signature.outputs).fields == wanted


@pytest.mark.parametrize(
    ("target", "prompt", "asked", "says"),
    [
        (("Queue", "Queue"), "", {}, "--target 'Queue' is named twice; name each column once"),
        (("Queue", "prioriti"), "", {}, "--target 'prioriti' is not a column; did you mean 'priority'?"),
        (
            BOTH,
            "",
            {"metric": "choice"},
            "--metric choice: which output? write choice:FIELD with one of Queue, priority",
        ),
        (BOTH, "", {"type": "choice"}, "--type choice: there are 2 targets; leave it out, or make a task folder with"),
        (BOTH, "Which? {{message}} {{priority}}", {}, "'{{priority}}', which is the column to predict; take it out of"),
        (BOTH, "", {"input": ("Queue",)}, "--input 'Queue' is the column to predict"),
    ],
)
def test_what_does_not_go_with_several_targets_is_refused(
    here: Path, target: Targets, prompt: str, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(target, prompt, **asked)
