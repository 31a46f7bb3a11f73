"""Pages of the whole ledger: runs, checks over time, verification, events, and calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger import trail
from agent.ledger.anchors import checked
from agent.ledger.connect import unchecked
from agent.ledger.files import is_held
from agent.ledger.provenance import utc_now
from agent.ledger.query import History
from agent.report import terms, wording
from agent.report.blocks import Block, Column, PageCell, PageSection, cells, line, listing, table, text
from agent.report.checks import checks_chart
from agent.report.page_blocks import Button, FigureBlock, FormBlock, TermsBlock
from agent.report.run_list import ListedRun, listed
from agent.report.trail import CallTrail, call_trail
from agent.report.web.page_request import LedgerCheck, Page, PageRequest, checks_named, is_search, sql_link
from agent.report.web.parts import (
    address,
    badge,
    box,
    crumbs,
    link,
    messages,
    moment,
    pager,
    section,
    soft,
    strong,
    title,
    value_text,
)
from agent.report.web.trial_pages import COMPARE, pick
from agent.report.wording import dollars, gain, points

NO_RUN = "No run yet. Try one on a task that comes with Promptassay, then reload this page:"


def runs(request: PageRequest) -> Page:
    """Return the page of all runs: searches first, then other jobs, newest first."""
    rows, place = request.paged(sorted(request.history.runs(), key=lambda row: not is_search(row)))
    found = listed(rows, request.history)
    data = {**found.to_json(), "place": place, "ledger": str(request.site.db)}
    sql = sql_link("SELECT * FROM runs ORDER BY started_utc DESC")
    shown = partial(_run_list, found.runs, place)
    return Page("Runs", data, shown, "/runs.json", sql, str(request.site.db))


def _run_list(found: Sequence[ListedRun], place: Mapping[str, Any]) -> Iterator[PageSection]:
    yield section("", title("Runs"))
    if not found:
        models = "`optimize models list` lists the models; add `--dry-run` to see what a run would cost."
        own = "optimize run rows.csv --target label --prompt prompt.txt -m MODEL"
        yield section(
            "",
            line(NO_RUN),
            text("optimize run support_triage", exact=True),
            line("Or with your own rows and prompt:"),
            text(own, exact=True),
            line(models, look="soft"),
        )
        return
    searches, jobs = ([run for run in found if run.is_search is wanted] for wanted in (True, False))
    words = "points on the sealed test, your prompt → the best found; gain: their paired difference."
    if searches:
        form = FormBlock("/compare", blocks=(_searches(searches),), buttons=(COMPARE,), look="")
        yield section("Searches", form, line(f"score: {words}", look="soft"))
    if jobs:
        yield section("Other jobs", _jobs(jobs))
    yield section("", pager(place, "run"), TermsBlock(terms.legend(is_compared=True)))


def _searches(found: Sequence[ListedRun]) -> Block:
    def score(run: ListedRun) -> str:
        return "-" if run.baseline is None else cells(points(run.baseline), "→", strong(points(run.winner)))

    def lift(run: ListedRun) -> str:
        return cells(strong(gain(run.lift.diff)), soft(wording.gain_interval(run.lift.ci95))) if run.lift else "-"

    def names(run: ListedRun) -> str:
        here = address("run", run.id)
        report, prompt = PageCell("Report", f"{here}/report"), PageCell("Prompt", f"{here}#prompt")
        return cells(PageCell(run.id, here), report, prompt)

    return listing(
        "Searches",
        [
            (Column("started, UTC"), lambda run: cells(pick(run.id, run.id), moment(run.started_utc, 16))),
            (Column("task, model", "break"), lambda run: cells(strong(run.task), soft(run.model))),
            ("status", _status),
            ("score #", score),
            ("gain, 95 % CI #", lift),
            ("decision", lambda run: run.outcome or "-"),
            ("cost #", _cost),
            ("run", names),
        ],
        found,
    )


def _jobs(found: Sequence[ListedRun]) -> Block:
    return listing(
        "jobs",
        [
            ("started, UTC", lambda run: moment(run.started_utc, 16)),
            ("job", "job"),
            ("task", "task"),
            (Column("model", "break"), "model"),
            ("status", _status),
            ("result", lambda run: run.decision.replace("_", " ") or "-"),
            ("cost #", _cost),
            (Column("run", "id"), lambda run: link(run.id, "run", run.id)),
        ],
        found,
    )


def _status(run: ListedRun) -> str:
    return cells(badge(run.status), PageCell(wording.cut(run.error, 300), tag="text soft"))


def _cost(run: ListedRun) -> str:
    result = run.result or {}
    return dollars(result["cost_usd"], result.get("unpriced", ())) if "cost_usd" in result else "-"


def checks(request: PageRequest) -> Page:
    """Return the page of a prompt's finished checks; raise InputError if missing."""
    found = checks_named(request, request.names["name"])
    name, count = found.name, len(found.checks)
    if not found.checks:
        raise InputError(f"{name}: no finished check of a prompt of this name; `optimize check PROMPT` makes one")

    def shown() -> Iterator[PageSection]:
        file = PageCell("optimize check PROMPT --history --page FILE", tag="code")
        said = f"{count} finished check{'s' * (count != 1)}, of every version and model · as one file to send on: "
        chart = request.cached("checks chart", name, lambda: checks_chart(name, found.checks, "/run/"))
        way = crumbs("releases", "releases")
        yield section("", way, title(f"Checks of {name}"), line(said, file, look="soft"), chart)

    return Page(f"Checks of {name}", found.to_json(), shown, f"{address('checks', name)}.json")


EVENTS = 100  # on one page
MOST_FINDINGS = 50
UNSEALED = " while a run was writing; bytes could not be compared with a seal"
SEALED = " and verified: no byte changed since it was sealed, or, without a seal, every row matches its event"
READS_ALL = "reads every event of the run"


def check_at_start(db: Path, opener: Callable[[Path], History] = History) -> LedgerCheck:
    """Open the ledger, which verifies it as every command does. Raises LedgerError."""
    started, utc, moving = time.perf_counter(), utc_now(), is_held(db)
    history = opener(db)
    (head,) = history.select("SELECT seq, hash FROM head")
    history.close()
    return LedgerCheck(utc, time.perf_counter() - started, head["seq"], head["hash"], moving=moving)


def whole_check(db: Path) -> LedgerCheck:
    """Compare everything with the hash chain; takes seconds for a large ledger."""
    started, utc = time.perf_counter(), utc_now()
    with unchecked(db) as connection:
        seq, digest, findings = checked(connection)
    return LedgerCheck(utc, time.perf_counter() - started, seq, digest, tuple(map(str, findings)))


def audit(request: PageRequest) -> Page:
    """Return the page of ledger verification; ?verify=now runs the full check."""
    site = request.site
    if request.arg("verify") == "now":
        with site.checking:
            site.whole_check = whole_check(site.db)
    (head,) = request.history.select("SELECT seq, hash FROM head")
    data = {
        "ledger": str(site.db),
        "head": head,
        "writing": is_held(site.db),
        "opened": _as_json(site.check_at_start),
        "verified": _as_json(site.whole_check) if site.whole_check else None,
        "runs": [{name: row[name] for name in ("id", "task", "status")} for row in request.history.runs()[:50]],
    }
    sql = sql_link("SELECT seq, utc, run_id, kind, body, hash FROM events ORDER BY seq DESC LIMIT 100")
    return Page("Audit", data, partial(_audit_page, data), "/audit.json", sql, str(site.db))


def _as_json(check: LedgerCheck) -> dict[str, Any]:
    findings = list(check.findings)
    place = {"utc": check.utc, "seconds": round(check.seconds, 3), "seq": check.seq, "hash": check.hash}
    return {**place, "whole": not findings, "findings": findings, "moving": check.moving}


def _audit_page(data: Mapping[str, Any]) -> Iterator[PageSection]:
    head, checked = data["head"], data["verified"] or data["opened"]
    when = f"{moment(checked['utc'])} UTC in {checked['seconds']:.1f} s"
    if data["verified"] is None:
        found = UNSEALED if checked["moving"] else SEALED
        state = box(f"Opened {when} at event {checked['seq']}{found}. Not verified since.")
    elif checked["whole"]:
        state = box(
            f"Verified: every row and text matches its event, up to event {checked['seq']}. Checked {when}.", "good"
        )
    else:
        state = box(f"Damaged or changed. Checked {when}:", "bad")
    findings = checked["findings"]
    more = f"and {len(findings) - MOST_FINDINGS} more" if len(findings) > MOST_FINDINGS else ""
    verify = Button("Verify everything now", more={"name": "verify", "value": "now"})
    told = soft("reads the whole ledger: up to a minute if it is large")
    listed = text(*findings[:MOST_FINDINGS], more, heading="problems found")
    yield section("", title("Audit"), state, listed, FormBlock("/audit", buttons=(verify,), after=(told,)))
    writing = "A run is writing now, so this changes. " if data["writing"] else ""
    keep = (
        f"{writing}Store the hash outside the ledger (",
        PageCell("optimize audit anchor", tag="code"),
        "): the chain reveals a changed event, and a hash stored outside reveals a rewritten ledger.",
    )
    figures = FigureBlock((("event", str(head["seq"])), ("hash", head["hash"])))
    yield section("End of the chain", figures, line(*keep, look="soft"))
    runs = (
        line(PageCell(run["id"], f"{address('run', run['id'])}/events"), f" {run['task']} ", badge(run["status"]))
        for run in data["runs"]
    )
    yield section("Events", *runs)


def events(request: PageRequest) -> Page:
    """Return the page of a run's events, starting behind `after`."""
    run = request.history.run(request.names["run"])
    after = request.number("after", 0, 0)
    rows = request.history.select(
        "SELECT seq, utc, kind, hash FROM events WHERE seq > ? AND run_id = ? ORDER BY seq LIMIT ?",
        after,
        run["id"],
        EVENTS + 1,
    )
    shown, here = rows[:EVENTS], f"{address('run', run['id'])}/events"
    data = {
        "run": {name: run[name] for name in ("id", "task")},
        "events": shown,
        "after": after,
        "next": shown[-1]["seq"] if len(rows) > EVENTS else None,
    }

    def sections() -> Iterator[PageSection]:
        first = [PageCell("first", here), " "] if after else []
        following = [PageCell("next", f"{here}?after={data['next']}")] if data["next"] else []
        name = f"Events{f' after {after}' if after else ''}"
        way = line(*first, *following, look="pager")
        yield section("", crumbs(f"run {run['id']}", "run", run["id"]), title(name), _events(shown), way)

    sql = sql_link("SELECT * FROM events WHERE run_id = :run ORDER BY seq", run=run["id"])
    return Page(f"Events · {run['task']}", data, sections, f"{here}.json?after={after}", sql)


def _events(rows: Sequence[Mapping[str, Any]]) -> Block:
    columns: list[Any] = [
        ("event #", lambda event: PageCell(str(event["seq"]), f"/ledger/events/{event['seq']}")),
        ("UTC", lambda event: moment(event["utc"], 23)),
        ("kind", "kind"),
    ]
    if rows and "hash" in rows[0]:
        columns.append(("hash", lambda event: PageCell(f"{event['hash'][:16]}…", tag="code")))
    return listing("Events", columns, rows)


def call(request: PageRequest) -> Page:
    """Return the page of a call by number or key; ?events=1 adds its events, which reads the whole ledger."""
    name = request.names["call"]
    number = trail.call_id(request.history, name) if name.startswith("k_") else request.path_number("call")
    with_events = request.arg("events") == "1"
    found = call_trail(request.history, number, with_events)
    data = {**found.to_json(), "with_events": with_events}
    sql = sql_link("SELECT * FROM calls WHERE id = :call", call=number)
    shown = partial(_call_page, found, with_events)
    return Page(f"Call {number}", data, shown, f"/call/{number}.json", sql)


def _call_page(found: CallTrail, with_events: bool) -> Iterator[PageSection]:
    one, sent = found.call, dict(found.request or {})
    yield section(
        "",
        crumbs(f"run {one.run_id}", "run", one.run_id),
        title(f"Call {one.id}"),
        line(f"{one.role} · {one.model} · ", badge(one.state), f" {one.call_key}", look="soft"),
    )
    asked = messages(sent.pop("messages", ()))
    parameters = ", ".join(f"{name} {value_text(value)}" for name, value in sent.items())
    yield section("Request", *asked, line(parameters if asked else "(erased)", look="soft break"))
    yield section("Reply", text(found.said, exact=True) if found.reply else line(found.said))
    recorded = [(name, value_text(value)) for name, value in found.recorded]
    yield section("Recorded", table("Recorded", ("what", Column("value", "break")), recorded))
    attempts = listing(
        "Attempts at the same call",
        [
            ("call #", lambda each: link(str(each.id), "call", each.id)),
            ("run", "run_id"),
            ("attempt #", "attempt"),
            ("state", "state"),
            ("error", "error_class"),
            ("cost #", lambda each: dollars(each.cost_usd, digits=6)),
            ("seconds #", lambda each: value_text(each.latency_s)),
            ("sent, UTC", lambda each: moment(each.sent_utc)),
        ],
        found.attempts,
    )
    yield section("Attempts at the same call", attempts)
    look = line(PageCell("Look for the events about it", f"/call/{one.id}?events=1#events"), " ", soft(READS_ALL))
    yield section("Events", _events([event.to_json() for event in found.events]) if with_events else look)
