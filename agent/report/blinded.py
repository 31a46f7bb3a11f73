"""Answers of a run, blinded, for people to rate: who rates sees inputs and answer, never which prompt wrote it.

Every rater gets the same answers, in another order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History
from agent.types import Task


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer to rate."""

    item: str
    inputs: Mapping[str, str]
    answer: str


def task_of(run: Mapping[str, Any]) -> Task:
    from agent.task.load import load_task

    task = load_task(Path(run["folder"]))
    if task.hashes.get("dev") != run["hashes"].get("dev"):
        raise InputError(f"{run['id']}: the dev rows of {run['folder']} changed since; put them back to rate this run")
    return task


def field_of(task: Task, output: str | None) -> str:
    names = [field.name for field in task.signature.outputs]
    judged = [spec.field for spec in task.metrics if spec.name == "judge"]
    name = output or (judged or names)[0]
    if name not in names:
        raise InputError(f"--output {name}: the outputs of {task.name} are {', '.join(names)}")
    return name


def items_of(history: History, run_id: str, task: Task, field: str, count: int) -> list[Shown]:
    """Different answers, taken from each prompt in turn; the same for every rater."""
    from agent.prompt.render import label_text
    from agent.types import content_id

    rows = {row.id: row for row in task.dev}
    piles: list[list[Shown]] = []
    for trial in history.trials(run_id):
        if trial["state"] != "complete":
            continue
        pile = []
        for outcome in history.outcomes(run_id, trial["candidate_id"], "dev"):
            row, value = rows.get(outcome["example_id"]), outcome["fields"].get(field)
            if row is not None and value not in (None, ""):
                answer = label_text(value)
                pile.append(Shown(content_id("item", [dict(row.inputs), [answer]]), row.inputs, answer))
        random.Random(f"{run_id} {trial['number']}").shuffle(pile)
        piles.append(pile)
    found: dict[str, Shown] = {}
    for turn in range(max(map(len, piles), default=0)):
        for pile in piles:
            if turn < len(pile) and len(found) < count:
                found.setdefault(pile[turn].item, pile[turn])
    return list(found.values())


def order_of(items: Sequence[Shown], run_id: str, rater: str) -> list[Shown]:
    """The answers in this rater's order."""
    found = list(items)
    random.Random(f"{run_id} {rater}").shuffle(found)
    return found
