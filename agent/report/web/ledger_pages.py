"""Pages of the whole ledger: runs, checks over time, verification, events, and calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger import trail
from agent.ledger.anchors import checked
from agent.ledger.connect import unchecked
from agent.ledger.files import is_held
from agent.ledger.provenance import utc_now
from agent.ledger.query import History, is_search
from agent.report import terms, wording
from agent.report.blocks import Block, Column, PageCell, cells, line, listing, soft, strong, text
from agent.report.checks import checks_chart
from agent.report.page_blocks import Button, FigureBlock, FormBlock, TermsBlock
from agent.report.run_list import ListedRun, listed
from agent.report.trail import call_trail
from agent.report.trial_tables import badge
from agent.report.web import parts
from agent.report.web.page_request import LedgerCheck, Page, PageRequest, checks_named, sql_link
from agent.report.web.parts import address, link, moment, section
from agent.report.wording import dollars
from agent.stats.figures import gain, gain_interval, points

EVENTS = 100  # on one page
MOST_FINDINGS = 50
NO_RUN = "No run yet. Try one on a task that comes with Promptassay, then reload this page:"
UNSEALED = " while a run was writing; bytes could not be compared with a seal"
SEALED = " and verified: no byte changed since it was sealed, or, without a seal, every row matches its event"


def runs(request: PageRequest) -> Page:
    """Return the page of all runs: searches first, then other jobs, newest first."""
    rows, place = request.paged(sorted(request.history.runs(), key=lambda row: not is_search(row)))
    found = listed(rows, request.history)
    sections = [parts.head("Runs")]
    words = "points on the sealed test, your prompt → the best found"
    if not rows:
        examples = ("optimize run support_triage", "optimize run rows.csv --target label --prompt prompt.txt -m MODEL")
        first, own = (text(example, exact=True) for example in examples)
        models = line(
            "`optimize models list` lists the models; add `--dry-run` to see what a run would cost.", look="soft"
        )
        sections.append(section("", line(NO_RUN), first, line("Or with your own rows and prompt:"), own, models))
    if searches := [run for run in found.runs if run.is_search]:
        form = FormBlock("/compare", blocks=(_listed("Searches", searches, True),), buttons=(parts.COMPARE,), look="")
        note = line(f"score: {words}; gain: their paired difference.", look="soft")
        sections.append(section("Searches", form, note))
    if jobs := [run for run in found.runs if not run.is_search]:
        sections.append(section("Other jobs", _listed("jobs", jobs, False)))
    if rows:
        sections.append(section("", parts.pager(place, "run"), TermsBlock(terms.legend(is_compared=True))))
    db = str(request.site.db)
    data = {**found.to_json(), "place": place, "ledger": db}
    return Page("Runs", sections, data, sql_link("SELECT * FROM runs ORDER BY started_utc DESC"), db)


def _listed(title: str, found: Sequence[ListedRun], is_search: bool) -> Block:
    def score(run: ListedRun) -> str:
        return "-" if run.baseline is None else cells(points(run.baseline), "→", strong(points(run.winner)))

    def lift(run: ListedRun) -> str:
        return cells(strong(gain(run.lift.diff)), soft(gain_interval(run.lift.ci95))) if run.lift else "-"

    def names(run: ListedRun) -> str:
        here = address("run", run.id)
        more = (PageCell("Report", f"{here}/report"), PageCell("Prompt", f"{here}#prompt")) if is_search else ()
        return cells(PageCell(run.id, here), *more)

    def started(run: ListedRun) -> str:
        return cells(parts.pick(run.id, run.id) if is_search else "", moment(run.started_utc, 16))

    of_searches: list[Any] = [
        ("score #", score),
        ("gain, 95 % CI #", lift),
        ("decision", lambda run: run.outcome or "-"),
    ]
    of_jobs: list[Any] = [("job", "job"), ("result", lambda run: run.decision.replace("_", " ") or "-")]
    columns: list[Any] = [
        (Column("started, UTC"), started),
        (Column("task, model", "break"), lambda run: cells(strong(run.task), soft(run.model))),
        ("status", _status),
        *(of_searches if is_search else of_jobs),
        ("cost #", _cost),
        ("run", names),
    ]
    return listing(title, columns, found)


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
    file = PageCell("optimize check PROMPT --history --page FILE", tag="code")
    said = f"{count} finished check{'s' * (count != 1)}, of every version and model · as one file to send on: "
    chart = request.cached("checks chart", name, lambda: checks_chart(name, found.checks, "/run/"))
    heading = f"Checks of {name}"
    head = parts.head(heading, line(said, file, look="soft"), chart, above=link("releases", "releases"))
    return Page(heading, [head], found.to_json())


def check_at_start(db: Path, opener: Callable[[Path], History] = History) -> LedgerCheck:
    """Open the ledger, which verifies it as every command does. Raises LedgerError."""
    started, utc, moving = time.perf_counter(), utc_now(), is_held(db)
    history = opener(db)
    (head,) = history.select("SELECT seq, hash FROM head")
    history.close()
    return LedgerCheck(utc=utc, seconds=time.perf_counter() - started, moving=moving, **head)


def whole_check(db: Path) -> LedgerCheck:
    """Compare everything with the hash chain; takes seconds for a large ledger."""
    started, utc = time.perf_counter(), utc_now()
    with unchecked(db) as connection:
        seq, digest, findings = checked(connection)
    seconds = time.perf_counter() - started
    return LedgerCheck(utc=utc, seconds=seconds, seq=seq, hash=digest, findings=tuple(map(str, findings)))


def audit(request: PageRequest) -> Page:
    """Return the page of ledger verification; ?verify=now runs the full check."""
    site = request.site
    if request.arg("verify") == "now":
        with site.checking:
            site.whole_check = whole_check(site.db)
    found = site.whole_check or site.check_at_start
    is_writing = is_held(site.db)
    (head,) = request.history.select("SELECT seq, hash FROM head")
    when = f"{moment(found.utc)} UTC in {found.seconds:.1f} s"
    if site.whole_check is None:
        seal = UNSEALED if found.moving else SEALED
        state = parts.box(f"Opened {when} at event {found.seq}{seal}. Not verified since.")
    elif found.findings:
        state = parts.box(f"Damaged or changed. Checked {when}:", "bad")
    else:
        state = parts.box(
            f"Verified: every row and text matches its event, up to event {found.seq}. Checked {when}.", "good"
        )
    left = len(found.findings) - MOST_FINDINGS
    problems = text(*found.findings[:MOST_FINDINGS], f"and {left} more" if left > 0 else "", heading="problems found")
    verify = Button("Verify everything now", more={"name": "verify", "value": "now"})
    told = soft("reads the whole ledger: up to a minute if it is large")
    keep = (
        f"{'A run is writing now, so this changes. ' * is_writing}Store the hash outside the ledger (",
        PageCell("optimize audit anchor", tag="code"),
        "): the chain reveals a changed event, and a hash stored outside reveals a rewritten ledger.",
    )
    figures = FigureBlock((("event", str(head["seq"])), ("hash", head["hash"])))
    runs = (
        line(PageCell(run["id"], f"{address('run', run['id'])}/events"), f" {run['task']} ", badge(run["status"]))
        for run in request.history.runs()[:50]
    )
    sections = [
        parts.head("Audit", state, problems, FormBlock("/audit", buttons=(verify,), after=(told,))),
        section("End of the chain", figures, line(*keep, look="soft")),
        section("Events", *runs),
    ]
    data = {"head": head, "writing": is_writing, "opened": site.check_at_start, "verified": site.whole_check}
    sql = sql_link("SELECT seq, utc, run_id, kind, body, hash FROM events ORDER BY seq DESC LIMIT 100")
    return Page("Audit", sections, data, sql, str(site.db))


def events(request: PageRequest) -> Page:
    """Return the page of a run's events, starting behind `after`."""
    run = request.history.run(request.names["run"])
    after = request.number("after", 0, 0)
    here = f"{address('run', run['id'])}/events"
    rows = request.history.select(
        "SELECT seq, utc, kind, hash FROM events WHERE seq > ? AND run_id = ? ORDER BY seq LIMIT ?",
        after,
        run["id"],
        EVENTS + 1,
    )
    shown = rows[:EVENTS]
    following = shown[-1]["seq"] if len(rows) > EVENTS else None
    first = [PageCell("first", here), " "] if after else []
    way = line(*first, *[PageCell("next", f"{here}?after={following}")] * bool(following), look="pager")
    heading = f"Events{f' after {after}' if after else ''}"
    table = listing(
        "Events",
        [
            ("event #", lambda event: PageCell(str(event["seq"]), f"/ledger/events/{event['seq']}")),
            ("UTC", lambda event: moment(event["utc"], 23)),
            ("kind", "kind"),
            ("hash", lambda event: PageCell(f"{event['hash'][:16]}…", tag="code")),
        ],
        shown,
    )
    sections = [parts.head(heading, table, way, above=parts.run_link(run["id"]))]
    sql = sql_link("SELECT * FROM events WHERE run_id = :run ORDER BY seq", run=run["id"])
    data = {"events": shown, "next": following}
    return Page(f"Events · {run['task']}", sections, data, sql)


def call(request: PageRequest) -> Page:
    """Return the page of a call by number or key. ?events=1 adds its events, which reads the whole ledger."""
    name = request.names["call"]
    with_events = request.arg("events") == "1"
    number = trail.call_id(request.history, name) if name.startswith("k_") else request.path_number("call")
    found = call_trail(request.history, number, with_events)
    one, sent = found.call, dict(found.request or {})
    asked = parts.messages(sent.pop("messages", ()))
    parameters = ", ".join(f"{name} {parts.value_text(value)}" for name, value in sent.items())
    look = PageCell("Look for the events about it", f"/call/{one.id}?events=1#events")
    about = line(f"{one.role} · {one.model} · ", badge(one.state), f" {one.call_key}", look="soft")
    sections = [
        parts.head(f"Call {one.id}", about, above=parts.run_link(one.run_id)),
        section("Request", *asked, line(parameters if asked else "(erased)", look="soft break")),
        section("Reply", text(found.said, exact=True) if found.reply else line(found.said)),
        section("Recorded", found.recorded_table()),
        section("Attempts at the same call", found.attempts_table()),
        section(
            "Events", found.events_table() if with_events else line(look, " ", soft("reads every event of the run"))
        ),
    ]
    sql = sql_link("SELECT * FROM calls WHERE id = :call", call=number)
    return Page(f"Call {number}", sections, found.to_json(), sql)
