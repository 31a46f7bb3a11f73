"""A run as it is published: its events with their hashes, and the rows that they add up to. Knows no database but the
ledger that it comes from.

The events are those of the run, and those by which candidates that it tried were made, if an earlier run made them.
Their numbers and hashes are those of the chain, so each is proved by itself, and where they stand one after the other
also as a chain. `digest` is over all their hashes: who has it elsewhere can prove that none was taken out.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import LedgerError
from agent.ledger.bundle_verify import Folded
from agent.ledger.merged import HOME
from agent.ledger.place import ledger_option
from agent.ledger.query import History, Row
from agent.ledger.schema import Finding, sha256
from agent.ledger.verify import EVENT, compare, defaults, left_over, link

FINISHED = ("complete", "budget")
NUL, SHOWN_NUL = "\0", "\u2400"
"""PostgreSQL keeps no text with NUL: it stands there as its symbol."""
_TRIED = (
    "SELECT candidate_id FROM proposals WHERE run_id = :run UNION SELECT candidate_id FROM trials WHERE run_id = :run"
)
_OF_RUN = (
    f"SELECT {', '.join(EVENT)} FROM events WHERE run_id = :run "
    "OR (kind IN ('candidate_made', 'demo_made', 'row_adopted') AND CASE json_extract(body, '$.insert') "
    f"WHEN 'candidates' THEN json_extract(body, '$.row.id') IN ({_TRIED}) "
    f"WHEN 'demos' THEN json_extract(body, '$.row.candidate_id') IN ({_TRIED}) "
    "WHEN 'runs' THEN json_extract(body, '$.row.id') = :run END) ORDER BY seq"
)


@dataclass(frozen=True, slots=True)
class Publication:
    """A run that is to be published: `ledger` is the hash of the first event there, `texts` its payload texts by hash
    (none, unless they are wanted)."""

    run_id: str
    ledger: str
    events: tuple[Row, ...]
    rows: Mapping[str, list[Row]]
    texts: Mapping[str, str]
    digest: str


def publication(history: History, run_id: str, with_texts: bool) -> Publication:
    """Gathers a finished run. Raises LedgerError for one that is not finished, or where its events do not hold."""
    run = history.run(run_id)
    if run["status"] not in FINISHED:
        raise LedgerError(f"{run['id']}: not finished ({run['status']}); `optimize resume` goes on with it")
    events = tuple(dict(zip(EVENT, found, strict=True)) for found in history.db.execute(_OF_RUN, {"run": run["id"]}))
    folded, findings = fold(events)
    if findings:
        verify = f"`optimize audit verify{ledger_option(history.path)}`"
        raise LedgerError(f"{history.path}: not whole: {findings[0]}; {verify} lists all")
    rows: dict[str, list[Row]] = {table: [] for table in HOME}
    empty = {table: defaults(history.db, table) for table in HOME}
    for place, row in folded.rows.items():
        rows[place[0]].append(plain({**empty[place[0]], **row}))
    named = folded.texts if with_texts else {}
    texts = {digest: text for digest in named if (text := history.text(digest)) is not None}
    (ledger,) = history.db.execute("SELECT hash FROM events WHERE seq = 1").fetchone()
    return Publication(run["id"], str(ledger), events, rows, texts, digest_of(events))


def digest_of(events: Iterable[Row]) -> str:
    """SHA-256 (hex) over the hashes of events, in their order."""
    return hashlib.sha256("".join(str(event["hash"]) for event in events).encode()).hexdigest()


def plain(row: Mapping[str, Any]) -> Row:
    """A row as PostgreSQL can keep it."""
    return {name: _without_nul(value) if isinstance(value, str) else value for name, value in row.items()}


def _without_nul(text: str) -> str:
    return text.replace(NUL, SHOWN_NUL)


def fold(events: Iterable[Row]) -> tuple[Folded, list[Finding]]:
    """What events of a run add up to, and where they are not what their hashes say."""
    folded, findings = Folded(), list[Finding]()
    before: Row | None = None
    for event in events:
        seq = int(event["seq"])
        follows = before is None or (
            seq > before["seq"] and (seq > before["seq"] + 1 or event["prev_hash"] == before["hash"])
        )
        try:
            if holds := follows and event["hash"] == link(event["prev_hash"], event):
                folded.add(seq, event["run_id"], event["body"])
        except (ValueError, KeyError, TypeError, RecursionError):
            holds = False
        if not holds:
            return folded, [Finding(seq, f"event {seq} is not what its hash says")]
        before = event
    return folded, findings


def differences(events: Iterable[Row], rows: Mapping[str, Iterable[Row]], texts: Iterable[Row]) -> Iterator[Finding]:
    """Where rows and texts are not what the events say of them."""
    folded, findings = fold(events)
    yield from findings
    if findings:
        return
    named, last = dict(folded.texts), max(folded.seqs.values(), default=0)
    folded.rows = {place: plain(row) for place, row in folded.rows.items()}
    with sqlite3.connect(":memory:") as db:
        db.executescript(_tables())
        for table, there in rows.items():
            yield from compare(table, map(dict, there), defaults(db, table), folded, last)
    yield from left_over(folded)
    for text in texts:
        if text["hash"] not in named:
            yield Finding(0, f"no event tells of a text: {text['hash']}")
        elif text["hash"] not in {sha256(text["body"]), sha256(text["body"].replace(SHOWN_NUL, NUL))}:
            yield Finding(named[text["hash"]], f"a text is not what its hash says: {text['hash']}")


def columns() -> dict[str, list[tuple[str, str]]]:
    """By table of a ledger, the names and types (TEXT, INTEGER, REAL) of its columns."""
    with sqlite3.connect(":memory:") as db:
        db.executescript(_tables())
        return {table: [(row[1], row[2]) for row in db.execute(f"PRAGMA table_info({table})")] for table in HOME}


def _tables() -> str:
    from agent.ledger.schema import expected_objects

    return ";".join(sql for (kind, name), (_, sql) in expected_objects().items() if kind == "table" and name in HOME)
