"""The pages of the audit: is the chain whole, what happened in a run, and a call with what was sent and what came."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ledger import trail
from agent.ledger.anchors import checked, unchecked
from agent.ledger.files import is_held
from agent.ledger.provenance import utc_now
from agent.ledger.query import History
from agent.report.web.ask import Ask, Checked, number_in, sql_link

EVENTS = 100  # of a run on one page


def opened(db: Path, opener: Callable[[Path], History] = History) -> Checked:
    """The check that every command makes when it opens a ledger. Raises LedgerError when it does not hold."""
    started, utc, moving = time.perf_counter(), utc_now(), is_held(db)
    history = opener(db)
    (head,) = history.select("SELECT seq, hash FROM head")
    history.close()
    return Checked(utc, time.perf_counter() - started, head["seq"], head["hash"], moving=moving)


def verified(db: Path) -> Checked:
    """Everything compared with the chain; takes seconds with a large ledger."""
    started, utc = time.perf_counter(), utc_now()
    with unchecked(db) as connection:
        seq, digest, found = checked(connection)
    return Checked(utc, time.perf_counter() - started, seq, digest, tuple(map(str, found)))


def audit(ask: Ask) -> dict[str, Any]:
    site = ask.site
    if ask.arg("verify") == "now":
        with site.verifying:
            site.verified = verified(site.db)
    (head,) = ask.history.select("SELECT seq, hash FROM head")
    return {
        "ledger": str(site.db),
        "head": head,
        "writing": is_held(site.db),
        "opened": _told(site.opened),
        "verified": _told(site.verified) if site.verified else None,
        "runs": [{name: row[name] for name in ("id", "task", "status")} for row in ask.history.runs()[:50]],
        "sql": sql_link("SELECT seq, utc, run_id, kind, body, hash FROM events ORDER BY seq DESC LIMIT 100"),
    }


def _told(checked: Checked) -> dict[str, Any]:
    return {
        "utc": checked.utc,
        "seconds": round(checked.seconds, 3),
        "seq": checked.seq,
        "hash": checked.hash,
        "whole": not checked.findings,
        "findings": list(checked.findings),
        "moving": checked.moving,
    }


def events(ask: Ask) -> dict[str, Any]:
    """What happened in a run, from the event after `after`."""
    run = ask.history.run(ask.names["run"])
    after = ask.number("after", 0, 0)
    rows = ask.history.select(
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


def call(ask: Ask) -> dict[str, Any]:
    """A call by its number or its key; the events about it with ?events=1, as all of the ledger is read for them."""
    name = ask.names["call"]
    number = trail.call_id(ask.history, name) if name.startswith("k_") else number_in(ask, "call")
    asked = ask.arg("events") == "1"
    return {
        **trail.call(ask.history, number, asked),
        "with_events": asked,
        "sql": sql_link("SELECT * FROM calls WHERE id = :call", call=number),
    }
