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
from agent.report import blinded
from agent.report.blinded import BlindedAnswer
from agent.report.web.page_request import PageRequest
from agent.task.ratings import RatedFile
from agent.types import Criterion, Rubric, Task

COUNT = 40  # answers of a run, as many as the command shows
LONGEST_NAME = 100
WHOLE = Criterion("the whole", 1.0, "How good is the answer, all in all?")


@dataclass(frozen=True, slots=True)
class RatingSession:
    """What one rater rates. `todo`: the answers that are left, in this rater's order."""

    run: Row
    task: Task
    field: str
    rubric: Rubric
    items: list[BlindedAnswer]
    file: RatedFile
    rater: str

    @property
    def todo(self) -> list[BlindedAnswer]:
        done = self.file.done(self.rater)
        return [shown for shown in blinded.order_of(self.items, self.run["id"], self.rater) if shown.item not in done]

    @property
    def marks(self) -> list[tuple[str, Criterion]]:
        """Key and meaning of each mark to give: every criterion, where there are several, and the whole."""
        parts = self.rubric.criteria if len(self.rubric.criteria) > 1 else ()
        return [*((f"rating_{part.name}", part) for part in parts), ("rating", WHOLE)]


def begin(request: PageRequest, rater: str) -> RatingSession:
    """The session of one rater. Raises InputError where the run's rows have changed, or no answer can be rated."""
    run = request.history.run(request.names["run"])
    task = blinded.rated_task(run)
    field = blinded.field_of(task, None)
    items = request.cached("items", run["id"], lambda: blinded.items_of(request.history, run["id"], task, field, COUNT))
    if not items:
        raise InputError(f"{run['id']}: no answer of a prompt that saw the whole of dev has the field {field}")
    file = RatedFile(run_folder(request.site.db.parent, run["id"]) / "ratings.jsonl")
    return RatingSession(run, task, field, blinded.rubric_of(task, field), items, file, rater)


def rate(request: PageRequest) -> dict[str, Any]:
    """The rater's next answer, after `skipped` ones; without a rater's name, the form for it."""
    rater = request.arg("rater")[:LONGEST_NAME]
    session = begin(request, rater)
    skipped = request.number("skipped", 0, 0)
    todo = session.todo if rater else []
    rated = len(session.items) - len(todo) if rater else 0
    stopped = request.arg("stopped") == "1"
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
        "agreement": blinded.agreement(session.file.rows, rubric),
        "command": blinded.calibrate_command(session.run, session.task, session.field, rubric, session.file.path),
    }


def save(request: PageRequest, form: Mapping[str, str]) -> str:
    """Saves the marks of one answer, or skips it; returns the next address. Raises InputError for a bad form."""
    rater = form.get("rater", "").strip()[:LONGEST_NAME]
    if not rater:
        raise InputError("who rates? give a name or initials")
    session = begin(request, rater)
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
    text = form.get(key, "")
    if not (text.isdecimal() and len(text) < 5 and rubric.low <= int(text) <= rubric.high):
        raise InputError(f"{name}: choose a number from {rubric.low} to {rubric.high}; go back and send the form again")
    return int(text)
