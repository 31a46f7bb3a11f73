"""Answers of a run, blinded, for people to rate: who rates sees inputs and answer, never which prompt wrote it.

Every rater gets the same answers, in another order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import InputError
from agent.ledger.query import History, Row
from agent.report.view import task_of
from agent.types import Task


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer to rate."""

    item: str
    inputs: Mapping[str, str]
    answer: str


def rated_task(run: Row) -> Task:
    """The run's task. Raises InputError when its dev rows are not those that the run read."""
    task = task_of(run)
    if task.hashes.get("dev") != run["hashes"].get("dev"):
        where = run["folder"] or run["options"]["task"]
        raise InputError(f"{run['id']}: the dev rows of {where} changed since; put them back to rate this run")
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
