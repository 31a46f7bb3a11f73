"""The pages of the audit: is the chain whole, the events of a run, and a call with its request and its reply."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ledger import trail
from agent.ledger.anchors import checked
from agent.ledger.connect import unchecked
from agent.ledger.files import is_held
from agent.ledger.provenance import utc_now
from agent.ledger.query import History
from agent.report.web.page_request import LedgerCheck, PageRequest, sql_link

EVENTS = 100  # on one page


def check_at_start(db: Path, opener: Callable[[Path], History] = History) -> LedgerCheck:
    """Opens the ledger, which checks it as in every command. Raises LedgerError when it does not hold."""
    started, utc, moving = time.perf_counter(), utc_now(), is_held(db)
    history = opener(db)
    (head,) = history.select("SELECT seq, hash FROM head")
    history.close()
    return LedgerCheck(utc, time.perf_counter() - started, head["seq"], head["hash"], moving=moving)


def whole_check(db: Path) -> LedgerCheck:
    """Compares everything with the chain; takes seconds with a large ledger."""
    started, utc = time.perf_counter(), utc_now()
    with unchecked(db) as connection:
        seq, digest, findings = checked(connection)
    return LedgerCheck(utc, time.perf_counter() - started, seq, digest, tuple(map(str, findings)))


def audit(request: PageRequest) -> dict[str, Any]:
    """The checks of the ledger; with ?verify=now the whole check, made now."""
    site = request.site
    if request.arg("verify") == "now":
        with site.checking:
            site.whole_check = whole_check(site.db)
    (head,) = request.history.select("SELECT seq, hash FROM head")
    return {
        "ledger": str(site.db),
        "head": head,
        "writing": is_held(site.db),
        "opened": _as_json(site.check_at_start),
        "verified": _as_json(site.whole_check) if site.whole_check else None,
        "runs": [{name: row[name] for name in ("id", "task", "status")} for row in request.history.runs()[:50]],
        "sql": sql_link("SELECT seq, utc, run_id, kind, body, hash FROM events ORDER BY seq DESC LIMIT 100"),
    }


def _as_json(check: LedgerCheck) -> dict[str, Any]:
    findings = list(check.findings)
    place = {"utc": check.utc, "seconds": round(check.seconds, 3), "seq": check.seq, "hash": check.hash}
    return {**place, "whole": not findings, "findings": findings, "moving": check.moving}


def events(request: PageRequest) -> dict[str, Any]:
    """The events of a run, from the one after `after`."""
    run = request.history.run(request.names["run"])
    after = request.number("after", 0, 0)
    rows = request.history.select(
        "SELECT seq, utc, kind, hash FROM events WHERE seq > ? AND run_id = ? ORDER BY seq LIMIT ?",
        after,
        run["id"],
        EVENTS + 1,
    )
    shown = rows[:EVENTS]
    return {
        "run": {name: run[name] for name in ("id", "task")},
        "events": shown,
        "after": after,
        "next": shown[-1]["seq"] if len(rows) > EVENTS else None,
        "sql": sql_link("SELECT * FROM events WHERE run_id = :run ORDER BY seq", run=run["id"]),
    }


def call(request: PageRequest) -> dict[str, Any]:
    """A call by its number or its key; with ?events=1 its events, for which the whole ledger is read."""
    name = request.names["call"]
    number = trail.call_id(request.history, name) if name.startswith("k_") else request.path_number("call")
    with_events = request.arg("events") == "1"
    return {
        **trail.call(request.history, number, with_events),
        "with_events": with_events,
        "sql": sql_link("SELECT * FROM calls WHERE id = :call", call=number),
    }
