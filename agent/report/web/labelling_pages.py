"""Labelling and blinded rating in the browser, one item at a time, into the files of the commands.

Labels have a page only under `optimize label TASK --web`, for that task alone. Ratings go into the file of `optimize
judge rate`; the ledger itself is never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.report.blinded import RateOptions, RatingSession, agreement, rating_session
from agent.report.blocks import PageCell, group, line, text
from agent.report.page_blocks import Button, FormBlock, FormField, ProgressBlock
from agent.report.web.page_request import Page, PageRequest, Site
from agent.report.web.parts import address, head, hidden, links, named, run_link
from agent.task.label_files import LabelledTask
from agent.task.label_log import DISAGREEMENT, LONGEST_NAME, SPREAD
from agent.task.label_session import LabelQueue, LabelSession, agreements
from agent.types import Criterion, Rubric

KEPT = "Every answer is saved immediately; you can stop and continue at any time."
MOST_SKIPPED = 30
"""Skipped rows kept in one address; older ones are shown again."""
MOST_MARKS = 11
"""Longest scale shown as buttons; for longer ones a number is typed."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """A task that is labelled in the browser. `keys`: labels by key; `queue`: its rows, for all labellers."""

    task: LabelledTask
    keys: Mapping[str, str]
    labeller: str
    queue: LabelQueue
    overlap: int

    def session(self, labeller: str) -> LabelSession:
        """Return the session of a labeller. Raises InputError for a bad name."""
        return LabelSession(self.task, labeller, self.queue, self.overlap)


def _place(site: Site) -> LabelPlace:
    if not isinstance(site.labelling, LabelPlace):
        raise InputError("no task is labelled here; start it with `optimize label TASK --web`")
    return site.labelling


def _sign_in(action: str, name: str, words: str, suggested: str = "") -> FormBlock:
    more = {"required": True, "maxlength": LONGEST_NAME, "autocomplete": "off"}
    return FormBlock(action, (FormField(name, suggested, words, more=more),), (Button("Begin"),))


def label(request: PageRequest) -> Page:
    """Return the labeller's next row, or the sign-in form without a name.

    `skipped` rows are left out; `again` names a row to repeat.
    """
    place = _place(request.site)
    labeller = request.arg("labeller")[:LONGEST_NAME]
    task, skipped = place.task, _skipped(request.arg("skipped"))
    events = task.log.events()
    status = task.status(events)
    meanings = task.definitions
    labelled = f"{status.labelled} of {status.rows} rows have a label"
    window = f"Label · {task.name}"
    if not labeller:
        form = _sign_in("/label", "labeller", "A name or initials of the labeller:", place.labeller)
        return Page(window, [head(f"Label rows of {task.name}", line(f"{labelled}. {KEPT}"), form)])
    session = place.session(labeller)
    undo = Button("Undo", "undo", "u")
    shown = session.again(request.arg("again")) or session.next(events, skipped)
    sent = {"labeller": labeller, "skipped": ",".join(skipped)}
    if not shown:
        counts = ", ".join(f"{label} {count}" for label, count in status.by_label.items())
        again = PageCell("See those that were skipped", f"/label?{urlencode({'labeller': labeller})}")
        end = head(
            f"No row is left for {labeller}{f' but {len(skipped)} skipped' if skipped else ''}",
            line(f"{labelled}: {counts}."),
            *(line(each) for each in agreements(task, events)),
            links([again]) if skipped else None,
            FormBlock("/label", hidden(**sent), (undo,), is_post=True, look=""),
            line(f"Labels are saved in {task.log.path}, like those of `optimize label`.", look="soft"),
        )
        return Page(window, [end], script="label.js")
    wanted = f"; wanted before train, dev and test are written: {status.missing}" if status.missing else ""
    others = "".join(f"; {other} says {given}" for other, given in shown.others.items())
    keys = [Button(name, f"label:{name}", key, is_main=True) for key, name in place.keys.items()]
    about = [f"{name}: {meanings[name]}" for name in place.keys.values() if meanings[name]]
    fields = hidden(**sent, row=shown.row.id, chosen=shown.chosen)
    row = head(
        f"{task.name}: row {session.done(events) + 1} of {labeller}",
        ProgressBlock(status.labelled, status.rows, "labelled", parts=(f"{labelled}{wanted}",)),
        group(*named(shown.row.inputs), line(f"{shown.why}{others}", look="soft"), tag="article", look="row"),
        FormBlock("/label", fields, (*keys, Button("Skip", "skip", "s"), undo), is_post=True, look="labels"),
        text(*about, heading="What the labels mean") if about else None,
    )
    return Page(window, [row], script="label.js")


def post_label(request: PageRequest) -> str:
    """Store a label, skip, or undo; one form at a time. Raises InputError for a bad form."""
    place = _place(request.site)
    labeller = request.arg("labeller")[:LONGEST_NAME]
    session = place.session(labeller)
    row = request.arg("row")
    action = request.arg("action")
    skipped = _skipped(request.arg("skipped"))
    again = ""
    with request.site.writing:
        if action == "skip":
            skipped = [*skipped, row][-MOST_SKIPPED:] if row in place.task.by_id else skipped
        elif action == "undo":
            taken = session.undo()
            again = taken.row if taken else ""
        elif action.startswith("label:"):
            chosen = request.arg("chosen")
            session.label(row, action.removeprefix("label:"), chosen if chosen in (SPREAD, DISAGREEMENT) else "")
        else:
            raise InputError("this form gives no label; go back to the page and send it again")
    words = {"labeller": labeller, "skipped": ",".join(skipped), "again": again}
    return f"/label?{urlencode({name: value for name, value in words.items() if value})}"


def _skipped(text: str) -> list[str]:
    return [row for row in text.split(",") if row][-MOST_SKIPPED:]


def _session(request: PageRequest, rater: str) -> RatingSession:
    return rating_session(
        request.history, request.names["run"], RateOptions(rater=rater), partial(request.cached, "items")
    )


def rate(request: PageRequest) -> Page:
    """Return the rater's next answer, skipping `skipped`; without a name, the sign-in form."""
    rater = request.arg("rater")[:LONGEST_NAME]
    skipped = request.number("skipped", 0, 0)
    session = _session(request, rater)
    todo = session.todo
    of = len(session.items)
    task = session.task.name
    rubric = session.rubric
    above = run_link(session.run["id"])
    here = f"{address('run', session.run['id'])}/rate"
    window = f"Rate · {task}"
    rated = of - len(todo)
    shown = todo[skipped] if skipped < len(todo) and request.arg("stopped") != "1" else None
    if not rater:
        said = f"You see {of} answers to rows of {task} and never which prompt wrote them. {KEPT}"
        form = _sign_in(here, "rater", "Who rates? A name or initials:")
        page = head("Rate answers, blinded", line(said), form, above=above)
    elif not shown:
        agreed = agreement(session.file.rows, rubric)
        more_left = PageCell("Continue with the rest", f"{here}?{urlencode({'rater': rater})}")
        page = head(
            f"{rated} of {of} answers are rated" if todo else f"All {of} answers are rated",
            line(f"by {rater}.{f' {agreed.capitalize()}.' if agreed else ''}"),
            links([more_left]) if todo else None,
            line("Measure a judge with the ratings:"),
            text(session.command, exact=True),
            line(f"Ratings are saved in {session.file.path}, like those of `optimize judge rate`.", look="soft"),
            above=above,
        )
    else:
        progress = f"{rated} rated by {rater}{f', {skipped} skipped' if skipped else ''}"
        without_marks = {"formnovalidate": True}
        buttons = (
            Button("Save and continue", "save", is_main=True),
            Button("Skip", "skip", more=without_marks),
            Button("Stop", "stop", more=without_marks),
        )
        fields = hidden(rater=rater, item=shown.item, skipped=str(skipped))
        marks = [_mark_field(key, part, rubric) for key, part in session.marks]
        answer = (line(f"{session.field}:", look="soft"), line(shown.answer, look="text given"))
        is_open = not session.marks[0][1].levels
        page = head(
            f"Answer {rated + skipped + 1} of {of}",
            ProgressBlock(rated, of, "rated", parts=(progress,)),
            group(*named(shown.parts), *answer, tag="article", look="row"),
            FormBlock(here, (*fields, *marks), buttons, is_post=True, look=""),
            group(text(rubric.text, exact=True), tag="details", title="What to go by", is_open=is_open),
            above=above,
        )
    return Page(window, [page])


def _mark_field(key: str, part: Criterion, rubric: Rubric) -> FormField:
    notes = [f"{value}: {words}" for value, words in part.levels]
    common: dict[str, Any] = {"label": part.name, "about": part.about, "notes": notes}
    if rubric.high - rubric.low < MOST_MARKS:
        return FormField(key, kind="marks", choices=list(map(str, range(rubric.low, rubric.high + 1))), **common)
    return FormField(key, kind="number", more={"min": rubric.low, "max": rubric.high}, **common)


def post_rating(request: PageRequest) -> str:
    """Store the marks of one answer, or skip it; return the next address. Raises InputError for a bad form."""
    rater = request.arg("rater")[:LONGEST_NAME]
    action = request.arg("action")
    if not rater:
        raise InputError("no rater; enter a name or initials")
    with request.site.writing:
        session = _session(request, rater)
        if action == "save":
            shown = next((item for item in session.items if item.item == request.arg("item")), None)
            if shown is None:
                raise InputError("this answer is not of this run; go back to the run and rate again")
            marks = {key: _mark(request.arg(key), part.name, session.rubric) for key, part in session.marks}
            if shown.item not in session.file.done(rater):  # else the form was sent twice
                session.file.add(shown.rated(rater, session.field, marks))
    words = {"rater": rater, "skipped": str(request.number("skipped", 0, 0) + (action == "skip"))}
    if action == "stop":
        words["stopped"] = "1"
    return f"{address('run', session.run['id'])}/rate?{urlencode(words)}"


def _mark(text: str, name: str, rubric: Rubric) -> int:
    if not (text.isdecimal() and len(text) < 5 and rubric.low <= int(text) <= rubric.high):
        raise InputError(f"{name}: not a number from {rubric.low} to {rubric.high}; go back and choose one")
    return int(text)
