"""The hash chain over events, and is a ledger what it says? Finds damage and tampering, and names the first event that
no longer holds. Reads only; knows the tables as `schema` has them, and nothing of runs or scores.

Tamper-evident, not tamper-proof: who rewrites the whole file can rewrite the chain. A head hash noted elsewhere (every
release and report has it, `optimize audit anchor` prints it) shows that too.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as it was put, also in place of an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact of its own.
"""

from __future__ import annotations

import gc
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import Any

from agent.ledger.bundle_verify import GENESIS, Folded
from agent.ledger.merged import is_merged
from agent.ledger.schema import AUDITED, Finding, sha256, structure

EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")
"""The columns of an event."""


def link(prev_hash: str, event: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the previous hash and the canonical JSON (RFC 8785) of seq, run_id, utc, kind and body."""
    text = (
        f'{prev_hash}{{"body":{_quoted(event["body"])},"kind":{_quoted(event["kind"])},'
        f'"run_id":{_quoted(event["run_id"])},"seq":{event["seq"]},"utc":{_quoted(event["utc"])}}}'
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def follows(event: Mapping[str, Any], seq: int, prev_hash: str) -> bool:
    """Whether `event` is the one with number `seq`, linked to the hash of the event before it."""
    return bool(event["seq"] == seq and event["prev_hash"] == prev_hash and event["hash"] == link(prev_hash, event))


def first_break(events: Iterable[Mapping[str, Any]], seq: int = 0, prev_hash: str = GENESIS) -> int | None:
    """The seq of the first event that does not follow from the one before it, or None when the chain holds.

    `seq` and `prev_hash` are those of the event that the first one must follow.
    """
    for number, event in enumerate(events, seq + 1):
        if not follows(event, number, prev_hash):
            return number
        prev_hash = event["hash"]
    return None


def events(db: sqlite3.Connection, after: int | None = None) -> Iterator[dict[str, Any]]:
    """Every event in order, or those with a greater number than `after`; `body` is its exact text."""
    where, start = ("", ()) if after is None else ("WHERE seq > ?", (after,))
    for values in db.execute(f"SELECT {', '.join(EVENT)} FROM events {where} ORDER BY seq", start):
        yield dict(zip(EVENT, values, strict=True))


def verify(db: sqlite3.Connection, anchor: str | None = None, version: int | None = None) -> list[Finding]:
    """Everything that does not hold, first seq first, the file as a whole last; [] for a whole ledger.

    `anchor`: a hash noted elsewhere. `version`: that of an older schema, whose ledger it is.

    Checked are the schema, and if that is ours the file's structure, the chain, its head, every row of the audited
    tables against the events about it, and every text against its hash. A file that SQLite cannot read is a finding,
    not an error. All of it is seen as it is at one moment, whatever a writer adds meanwhile.
    """
    collects = gc.isenabled()
    gc.disable()  # many small objects that all stay: to look for garbage among them would take a third of the time
    try:
        db.execute("BEGIN")
        contents = _merged if is_merged(db) else _contents
        found = structure(db, version) or [*_damage(db), *contents(db, anchor)]
    except (sqlite3.Error, ValueError) as error:
        found = [Finding(0, f"the file is damaged: {error}")]
    finally:
        if db.in_transaction:
            db.rollback()
        if collects:
            gc.enable()
    return sorted(found, key=lambda finding: (finding.seq == 0, finding.seq))


def _damage(db: sqlite3.Connection) -> Iterator[Finding]:
    for (line,) in db.execute("PRAGMA integrity_check(3)"):
        if line != "ok":
            yield Finding(0, f"the file is damaged: {' '.join(line.split())}")


def _merged(db: sqlite3.Connection, anchor: str | None) -> Iterator[Finding]:
    from agent.ledger.merged_verify import merged_contents

    return merged_contents(db, anchor)


def _contents(db: sqlite3.Connection, anchor: str | None) -> Iterator[Finding]:
    replayed = replay(events(db), anchor)
    folded, seq = replayed.folded, replayed.seq
    if replayed.broken:
        yield replayed.broken
        return
    head = db.execute("SELECT seq, hash FROM head").fetchall()
    if head != [(seq, replayed.head)]:
        yield Finding(seq + 1, f"the chain ends at event {seq}, which is not the head that was noted")
        return
    if not replayed.anchored:
        yield Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")
    for table in AUDITED:
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [name for name, *_ in cursor.description]
        rows = (dict(zip(names, values, strict=True)) for values in cursor)
        yield from compare(table, rows, defaults(db, table), folded, seq)
    yield from left_over(folded)
    yield from _blobs(db, folded, seq)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the events of one chain say up to its end, event `seq` with the hash `head`; `anchored`: whether one has the
    hash that was noted elsewhere; `broken`: where the chain does not hold."""

    folded: Folded
    seq: int
    head: str
    anchored: bool
    broken: Finding | None = None


def replay(chain: Iterable[Mapping[str, Any]], anchor: str | None = None) -> Replayed:
    """Follows a chain link by link from its first event, and folds what its events say into rows."""
    folded, prev, seq, anchored = Folded(), GENESIS, 0, anchor is None
    for event in chain:
        seq += 1
        if event["seq"] != seq:
            return Replayed(folded, seq, prev, anchored, Finding(seq, f"event {seq} is missing"))
        try:
            if holds := follows(event, seq, prev):
                folded.add(seq, event["run_id"], event["body"])
        except (ValueError, KeyError, TypeError, RecursionError):
            holds = False
        if not holds:
            broken = Finding(seq, f"event {seq} does not follow from the one before it")
            return Replayed(folded, seq, prev, anchored, broken)
        prev = event["hash"]
        anchored = anchored or anchor == prev
    return Replayed(folded, seq, prev, anchored)


def defaults(db: sqlite3.Connection, table: str) -> dict[str, Any]:
    """By column of a table what it holds where no event names it."""
    return {
        name: value if value is None else value.strip("'") if "'" in value else int(value)
        for _, name, _, _, value, _ in db.execute(f"PRAGMA table_info({table})")
    }


def compare(
    table: str, rows: Iterable[dict[str, Any]], defaults: Mapping[str, Any], folded: Folded, last: int
) -> Iterator[Finding]:
    """Compares each row with what the events say of it, and takes it out of `folded.rows`. `last`: the last event."""
    for row in rows:
        place = (table, *(row[column] for column in AUDITED[table]))
        known = folded.rows.pop(place, None)
        name = ", ".join(map(str, place[1:]))
        if known is None:
            yield Finding(last + 1, f"no event tells of a row of {table}: {name}")
            continue
        if table == "calls" and known["state"] == "reserved" and row["state"] == "sent":
            row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
        if (said := {**defaults, **known}) != row:
            wrong = [column for column in row | said if said.get(column, ...) != row.get(column, ...)]
            seq = folded.seqs[place]
            yield Finding(seq, f"a row of {table} is not what event {seq} says ({', '.join(wrong)}): {name}")


def left_over(folded: Folded) -> Iterator[Finding]:
    """The rows that events tell of and that were not compared: they are not there."""
    for place in folded.rows:
        yield Finding(folded.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}")


def _blobs(db: sqlite3.Connection, folded: Folded, last: int) -> Iterator[Finding]:
    there = set()
    for digest, body in db.execute("SELECT hash, body FROM blobs"):
        there.add(digest)
        if not isinstance(body, str) or sha256(body) != digest:
            yield Finding(folded.texts.get(digest, last + 1), f"a text is not what its hash says: {digest}")
        elif digest in folded.erased:
            yield Finding(folded.texts.get(digest, last + 1), f"a text that was erased is back: {digest}")
        elif digest not in folded.texts:
            yield Finding(last + 1, f"no event tells of a text: {digest}")
    for digest, seq in folded.texts.items():
        if digest not in there and digest not in folded.erased:
            yield Finding(seq, f"a text is missing: {digest}")
