"""Labelling in the browser: one row at a time, into the same file as `optimize label`.

Only `optimize label TASK --web` shows it; the task is the one that was named there, never one of the address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.report.web.page_request import PageRequest, Site
from agent.task.label_files import LabelledTask
from agent.task.label_log import DISAGREEMENT, LONGEST_NAME, SPREAD
from agent.task.label_session import LabelQueue, LabelSession, agreements

MOST_SKIPPED = 30
"""Rows that one address skips; older ones come again."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """What is labelled in the browser. `keys`: by key its label; `queue`: of the task, for all labellers."""

    task: LabelledTask
    keys: Mapping[str, str]
    labeller: str
    queue: LabelQueue
    overlap: int

    def session(self, labeller: str) -> LabelSession:
        """The session of a labeller. Raises InputError for a bad name."""
        return LabelSession(self.task, labeller, self.queue, self.overlap)


def _place(site: Site) -> LabelPlace:
    if not isinstance(site.labelling, LabelPlace):
        raise InputError("no task is labelled here; start it with `optimize label TASK --web`")
    return site.labelling


def label(request: PageRequest) -> dict[str, Any]:
    """The labeller's next row, without the `skipped` ones, or the row of `again`; without a name, the form for it."""
    place = _place(request.site)
    labeller = request.arg("labeller")[:LONGEST_NAME]
    task, skipped = place.task, _skipped(request.arg("skipped"))
    session = place.session(labeller) if labeller else None
    events = task.log.events()
    shown = session.again(request.arg("again")) or session.next(events, skipped) if session else None
    status, meanings = task.status(events), task.definitions
    return {
        "task": task.name,
        "field": task.field,
        "labeller": labeller,
        "suggested": place.labeller,
        "done": session.done(events) if session else 0,
        "labelled": status.labelled,
        "of": status.rows,
        "missing": status.missing,
        "skipped": ",".join(skipped),
        "shown": None
        if shown is None
        else {
            "row": shown.row.id,
            "inputs": dict(shown.row.inputs),
            "why": shown.why,
            "chosen": shown.chosen,
            "others": dict(shown.others),
        },
        "labels": [{"key": key, "label": name, "about": meanings[name]} for key, name in place.keys.items()],
        "by_label": dict(status.by_label),
        "agreement": agreements(task, events) if shown is None else [],
        "file": str(task.log.path),
    }


def post(site: Site, names: Mapping[str, str], form: Mapping[str, str]) -> str:
    """Gives a label, skips, or takes back; one form at a time. Raises InputError for a bad form."""
    with site.writing:
        return _posted(_place(site), form)


def _posted(place: LabelPlace, form: Mapping[str, str]) -> str:
    labeller = form.get("labeller", "").strip()[:LONGEST_NAME]
    session, row, action = place.session(labeller), form.get("row", ""), form.get("action", "")
    skipped, again = _skipped(form.get("skipped", "")), ""
    if action == "skip":
        skipped = [*skipped, row][-MOST_SKIPPED:] if row in place.task.by_id else skipped
    elif action == "undo":
        taken = session.undo()
        again = taken.row if taken else ""
    elif action.startswith("label:"):
        chosen = form.get("chosen", "")
        session.label(row, action.removeprefix("label:"), chosen if chosen in (SPREAD, DISAGREEMENT) else "")
    else:
        raise InputError("this form gives no label; go back to the page and send it again")
    words = {"labeller": labeller, "skipped": ",".join(skipped), "again": again}
    return f"/label?{urlencode({name: value for name, value in words.items() if value})}"


def _skipped(text: str) -> list[str]:
    return [row for row in text.split(",") if row][-MOST_SKIPPED:]
