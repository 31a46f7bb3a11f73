"""Blinded rating in the browser: one answer at a time, into the same file as `optimize judge rate`.

The one place that writes, through `RatedFile`; the ledger itself is never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from agent.errors import InputError
from agent.ledger.query import History
from agent.report.blinded import RatingSession, agreement, rating_session
from agent.report.web.page_request import PageRequest, Site
from agent.types import Rubric

LONGEST_NAME = 100


def _session(request: PageRequest, rater: str) -> RatingSession:
    return rating_session(request.history, request.names["run"], rater, cached=partial(request.cached, "items"))


def rate(request: PageRequest) -> dict[str, Any]:
    """The rater's next answer, after `skipped` ones; without a rater's name, the form for it."""
    rater = request.arg("rater")[:LONGEST_NAME]
    session = _session(request, rater)
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
        "shown": None if shown is None else {"item": shown.item, "inputs": shown.parts, "answer": shown.answer},
        "rubric": rubric.text,
        "marks": [
            {"key": key, "name": part.name, "about": part.about, "levels": [list(level) for level in part.levels]}
            for key, part in session.marks
        ],
        "scale": list(range(rubric.low, rubric.high + 1)),
        "file": str(session.file.path),
        "agreement": agreement(session.file.rows, rubric),
        "command": session.command,
    }


def post(site: Site, names: Mapping[str, str], form: Mapping[str, str]) -> str:
    """Saves the form's marks; one form at a time."""
    with site.writing, closing(History(site.db, verified=True)) as history:
        return save(PageRequest(site, history, names), form)


def save(request: PageRequest, form: Mapping[str, str]) -> str:
    """Saves the marks of one answer, or skips it; returns the next address. Raises InputError for a bad form."""
    rater = form.get("rater", "").strip()[:LONGEST_NAME]
    if not rater:
        raise InputError("who rates? give a name or initials")
    session = _session(request, rater)
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
