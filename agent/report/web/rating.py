"""Blinded rating in the browser: one answer at a time, into the same file as `optimize judge rate`.

The one place that writes, through `RatedFile`; the ledger itself is never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from agent.errors import InputError
from agent.ledger.query import Row, run_folder
from agent.report.blinded import (
    Shown,
    agreement,
    calibrating,
    field_of,
    items_of,
    order_of,
    rated_task,
    rubric_of,
)
from agent.report.web.ask import Ask
from agent.task.ratings import RatedFile
from agent.types import Criterion, Rubric, Task

COUNT = 40  # answers of a run, as many as the command shows
LONGEST_NAME = 100
WHOLE = Criterion("the whole", 1.0, "How good is the answer, all in all?")


@dataclass(frozen=True, slots=True)
class Session:
    """What one rater has before them. `todo` is in their order."""

    run: Row
    task: Task
    field: str
    rubric: Rubric
    items: list[Shown]
    file: RatedFile
    rater: str

    @property
    def todo(self) -> list[Shown]:
        done = self.file.done(self.rater)
        return [shown for shown in order_of(self.items, self.run["id"], self.rater) if shown.item not in done]

    @property
    def marks(self) -> list[tuple[str, Criterion]]:
        """Key and meaning of each mark to give: every criterion, where there are several, and the whole."""
        parts = self.rubric.criteria if len(self.rubric.criteria) > 1 else ()
        return [*((f"rating_{part.name}", part) for part in parts), ("rating", WHOLE)]


def begin(ask: Ask, rater: str) -> Session:
    """Raises InputError where the run's rows have changed, or none of its answers can be rated."""
    run = ask.history.run(ask.names["run"])
    folder = run_folder(ask.site.db.parent, run["id"])
    task = rated_task(run)
    field = field_of(task, None)
    items = ask.kept("items", run["id"], lambda: items_of(ask.history, run["id"], task, field, COUNT))
    if not items:
        raise InputError(f"{run['id']}: no answer of a prompt that saw the whole of dev has the field {field}")
    rubric = rubric_of(task, field)
    file = RatedFile(folder / "ratings.jsonl")
    return Session(run, task, field, rubric, items, file, rater)


def rate(ask: Ask) -> dict[str, Any]:
    """The rater's next answer; after as many as were skipped, `skipped`. Without a name, the question who rates."""
    rater = ask.arg("rater")[:LONGEST_NAME]
    session = begin(ask, rater)
    skipped = ask.number("skipped", 0, 0)
    todo = session.todo if rater else []
    rated = len(session.items) - len(todo) if rater else 0
    stopped = ask.arg("stopped") == "1"
    shown = todo[skipped] if skipped < len(todo) and not stopped else None
    rubric = session.rubric
    return {
        "run": {"id": session.run["id"]},
        "task": session.task.name,
        "rater": rater,
        "field": session.field,
        "of": len(session.items),
        "rated": rated,
        "skipped": skipped,
        "stopped": stopped,
        "number": rated + skipped + 1,
        "shown": None if shown is None else {"item": shown.item, "inputs": dict(shown.inputs), "answer": shown.answer},
        "rubric": rubric.text,
        "marks": [
            {"key": key, "name": part.name, "about": part.about, "levels": [list(level) for level in part.levels]}
            for key, part in session.marks
        ],
        "scale": list(range(rubric.low, rubric.high + 1)),
        "file": str(session.file.path),
        "agreement": agreement(session.file.rows, rubric),
        "command": calibrating(session.run, session.task, session.field, rubric, session.file.path),
    }


def save(ask: Ask, form: Mapping[str, str]) -> str:
    """Keeps one answer's marks, or passes it over; the address to go on from. Raises InputError for a bad form."""
    rater = form.get("rater", "").strip()[:LONGEST_NAME]
    if not rater:
        raise InputError("who rates? give a name or initials")
    session = begin(ask, rater)
    skipped = int(form["skipped"]) if form.get("skipped", "").isdecimal() and len(form["skipped"]) < 6 else 0
    action = form.get("action")
    if action == "save":
        shown = next((item for item in session.items if item.item == form.get("item")), None)
        if shown is None:
            raise InputError("this answer is not among those of the run; go back to the run and rate again")
        marks = {key: _mark(form, key, part.name, session.rubric) for key, part in session.marks}
        if shown.item not in session.file.done(rater):  # else the form was sent twice
            session.file.add(shown.rated(rater, session.field, marks))
    words = {"rater": rater, "skipped": str(skipped + (action == "skip"))}
    if action == "stop":
        words["stopped"] = "1"
    return f"/run/{quote(session.run['id'], safe='')}/rate?{urlencode(words)}"


def _mark(form: Mapping[str, str], key: str, name: str, rubric: Rubric) -> int:
    said = form.get(key, "")
    if not (said.isdecimal() and len(said) < 5 and rubric.low <= int(said) <= rubric.high):
        raise InputError(f"{name}: choose a number from {rubric.low} to {rubric.high}; go back and send the form again")
    return int(said)
