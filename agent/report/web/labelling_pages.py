"""Labelling and blinded rating in the browser, one item at a time, into the files of the commands.

Labels have a page only under `optimize label TASK --web`, for that task alone. Ratings go into the file of `optimize
judge rate`; the ledger itself is never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from agent.errors import InputError
from agent.ledger.query import History
from agent.report.blinded import RatingSession, agreement, rating_session
from agent.report.blocks import PageCell, PageSection, group, line, text
from agent.report.page_blocks import Button, FormBlock, FormField, ProgressBlock
from agent.report.web.page_request import Page, PageRequest, Site
from agent.report.web.parts import address, crumbs, links, named, section, title
from agent.task.label_files import LabelledTask
from agent.task.label_log import DISAGREEMENT, LONGEST_NAME, SPREAD
from agent.task.label_session import LabelQueue, LabelSession, agreements
from agent.types import Rubric

KEPT = "Every answer is saved immediately; you can stop and continue at any time."
MOST_SKIPPED = 30
"""Skipped rows kept in one address; older ones are shown again."""


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


def label(request: PageRequest) -> Page:
    """Return the labeller's next row, skipping `skipped`, or the row of `again`; without a name, the sign-in form."""
    place = _place(request.site)
    labeller = request.arg("labeller")[:LONGEST_NAME]
    task, skipped = place.task, _skipped(request.arg("skipped"))
    session = place.session(labeller) if labeller else None
    events = task.log.events()
    shown = session.again(request.arg("again")) or session.next(events, skipped) if session else None
    status, meanings = task.status(events), task.definitions
    data = {
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
    also, script = ("", "label.js") if labeller and shown else ("/label.json", "label.js" if labeller else "")
    return Page(f"Label · {task.name}", data, partial(_label_page, data), also, script=script)


def _label_page(data: Mapping[str, Any]) -> Iterator[PageSection]:
    shown, name, labeller = data["shown"], data["task"], data["labeller"]
    labelled, skipped = f"{data['labelled']} of {data['of']} rows have a label", data["skipped"]
    if not labeller:
        form = _begin("/label", "labeller", "A name or initials of the labeller:", data["suggested"])
        yield section("", title(f"Label rows of {name}"), line(f"{labelled}. {KEPT}"), form)
        return
    undo = Button("Undo", "undo", "u")
    sent = {"labeller": labeller, "skipped": skipped}
    if not shown:
        count = len(skipped.split(",")) if skipped else 0
        counts = ", ".join(f"{label} {count}" for label, count in data["by_label"].items())
        again = PageCell("See those that were skipped", f"/label?{urlencode({'labeller': labeller})}")
        yield section(
            "",
            title(f"No row is left for {labeller}{f' but {count} skipped' if count else ''}"),
            line(f"{labelled}: {counts}."),
            *(line(each) for each in data["agreement"]),
            links([again]) if skipped else None,
            FormBlock("/label", _hidden(sent), (undo,), is_post=True, look=""),
            line(f"Labels are saved in {data['file']}, like those of `optimize label`.", look="soft"),
        )
        return
    wanted = f"; wanted before train, dev and test are written: {data['missing']}" if data["missing"] else ""
    others = "".join(f"; {other} says {given}" for other, given in shown["others"].items())
    keys = [Button(each["label"], f"label:{each['label']}", each["key"], is_main=True) for each in data["labels"]]
    about = [f"{each['label']}: {each['about']}" for each in data["labels"] if each["about"]]
    yield section(
        "",
        title(f"{name}: row {data['done'] + 1} of {labeller}"),
        ProgressBlock(data["labelled"], data["of"], "labelled", parts=(f"{labelled}{wanted}",)),
        group(*named(shown["inputs"]), line(f"{shown['why']}{others}", look="soft"), tag="article", look="row"),
        FormBlock(
            "/label",
            _hidden({**sent, "row": shown["row"], "chosen": shown["chosen"]}),
            (*keys, Button("Skip", "skip", "s"), undo),
            is_post=True,
            look="labels",
        ),
        text(*about, heading="What the labels mean") if about else None,
    )


def _begin(action: str, name: str, words: str, suggested: str = "") -> FormBlock:
    more = {"required": True, "maxlength": LONGEST_NAME, "autocomplete": "off"}
    return FormBlock(action, (FormField(name, suggested, words, more=more),), (Button("Begin"),))


def _hidden(values: Mapping[str, str]) -> tuple[FormField, ...]:
    return tuple(FormField(name, value, kind="hidden") for name, value in values.items())


def post_label(site: Site, names: Mapping[str, str], form: Mapping[str, str]) -> str:
    """Store a label, skip, or undo; one form at a time. Raises InputError for a bad form."""
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


MOST_MARKS = 11
"""Longest scale shown as buttons; for longer ones a number is typed."""


def _session(request: PageRequest, rater: str) -> RatingSession:
    return rating_session(request.history, request.names["run"], rater, cached=partial(request.cached, "items"))


def rate(request: PageRequest) -> Page:
    """Return the rater's next answer, skipping `skipped`; without a name, the sign-in form."""
    rater = request.arg("rater")[:LONGEST_NAME]
    session = _session(request, rater)
    skipped = request.number("skipped", 0, 0)
    todo = session.todo if rater else []
    rated = len(session.items) - len(todo) if rater else 0
    stopped = request.arg("stopped") == "1"
    shown = todo[skipped] if skipped < len(todo) and not stopped else None
    rubric = session.rubric
    data = {
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
    here = f"{address('run', session.run['id'])}/rate"
    also = "" if shown else f"{here}.json"
    return Page(f"Rate · {session.task.name}", data, partial(_rate_page, data, here), also)


def _rate_page(data: Mapping[str, Any], here: str) -> Iterator[PageSection]:
    shown, rater, of, rated = data["shown"], data["rater"], data["of"], data["rated"]
    way = crumbs(f"run {data['run']['id']}", "run", data["run"]["id"])
    if not rater:
        said = f"You see {of} answers to rows of {data['task']} and never which prompt wrote them. {KEPT}"
        form = _begin(here, "rater", "Who rates? A name or initials:")
        yield section("", way, title("Rate answers, blinded"), line(said), form)
        return
    if not shown:
        whole = f"All {of} answers are rated" if rated >= of else f"{rated} of {of} answers are rated"
        agreed = f" {data['agreement'].capitalize()}." if data["agreement"] else ""
        more_left = PageCell("Continue with the rest", f"{here}?{urlencode({'rater': rater})}")
        yield section(
            "",
            way,
            title(whole),
            line(f"by {rater}.{agreed}"),
            links([more_left]) if rated < of else None,
            line("Measure a judge with the ratings:"),
            text(data["command"], exact=True),
            line(f"Ratings are saved in {data['file']}, like those of `optimize judge rate`.", look="soft"),
        )
        return
    skipped = f", {data['skipped']} skipped" if data["skipped"] else ""
    sent = {"rater": rater, "item": shown["item"], "skipped": str(data["skipped"])}
    without_marks = {"formnovalidate": True}
    buttons = (
        Button("Save and continue", "save", is_main=True),
        Button("Skip", "skip", more=without_marks),
        Button("Stop", "stop", more=without_marks),
    )
    marks = [_mark_field(mark, data["scale"]) for mark in data["marks"]]
    rubric = text(data["rubric"], exact=True)
    answer = (line(f"{data['field']}:", look="soft"), line(shown["answer"], look="text given"))
    yield section(
        "",
        way,
        title(f"Answer {data['number']} of {of}"),
        ProgressBlock(rated, of, "rated", parts=(f"{rated} rated by {rater}{skipped}",)),
        group(*named(shown["inputs"]), *answer, tag="article", look="row"),
        FormBlock(here, (*_hidden(sent), *marks), buttons, is_post=True, look=""),
        group(rubric, tag="details", title="What to go by", is_open=not data["marks"][0]["levels"]),
    )


def _mark_field(mark: Mapping[str, Any], scale: Sequence[int]) -> FormField:
    notes = [f"{value}: {words}" for value, words in mark["levels"]]
    common: dict[str, Any] = {"label": mark["name"], "about": mark["about"], "notes": notes}
    if len(scale) <= MOST_MARKS:
        return FormField(mark["key"], kind="marks", choices=[str(value) for value in scale], **common)
    return FormField(mark["key"], kind="number", more={"min": scale[0], "max": scale[-1]}, **common)


def post_rating(site: Site, names: Mapping[str, str], form: Mapping[str, str]) -> str:
    """Store the marks of the form; one form at a time."""
    with site.writing, closing(History(site.db, verified=True)) as history:
        return save(PageRequest(site, history, names), form)


def save(request: PageRequest, form: Mapping[str, str]) -> str:
    """Store the marks of one answer, or skip it; return the next address. Raises InputError for a bad form."""
    rater = form.get("rater", "").strip()[:LONGEST_NAME]
    if not rater:
        raise InputError("no rater; enter a name or initials")
    session = _session(request, rater)
    skipped = int(form["skipped"]) if form.get("skipped", "").isdecimal() and len(form["skipped"]) < 6 else 0
    action = form.get("action")
    if action == "save":
        shown = next((item for item in session.items if item.item == form.get("item")), None)
        if shown is None:
            raise InputError("this answer is not of this run; go back to the run and rate again")
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
        raise InputError(f"{name}: not a number from {rubric.low} to {rubric.high}; go back and choose one")
    return int(text)
