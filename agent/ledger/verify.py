"""Is a ledger what it says? Finds damage and tampering, and names the first event that no longer holds. Reads only.

Tamper-evident, not tamper-proof: who rewrites the whole file can rewrite the chain. A head hash noted elsewhere (every
release and report has it, `optimize audit anchor` prints it) shows that too.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from typing import Any

from agent.ledger.chain import EVENT, Finding, compare, compare_texts, left_over, replay
from agent.ledger.merged import is_merged, merged_contents
from agent.ledger.schema import AUDITED, defaults, stored_texts, structure


def events(db: sqlite3.Connection, after: int | None = None) -> Iterator[dict[str, Any]]:
    """Every event in order, or those with a greater number than `after`; `body` is its exact text."""
    where, start = ("", ()) if after is None else ("WHERE seq > ?", (after,))
    for values in db.execute(f"SELECT {', '.join(EVENT)} FROM events {where} ORDER BY seq", start):
        yield dict(zip(EVENT, values, strict=True))


def verify(db: sqlite3.Connection, anchor: str | None = None) -> list[Finding]:
    """Everything that does not hold, first seq first, the file as a whole last; [] for a whole ledger.

    `anchor`: a hash noted elsewhere.

    Checked are the schema, and if that is ours the file's structure, the chain, its head, every row of the audited
    tables against the events about it, and every text against its hash. A file that SQLite cannot read is a finding,
    not an error. All of it is seen as it is at one moment, whatever a writer adds meanwhile.
    """
    collects = gc.isenabled()
    gc.disable()  # many small objects that all stay: to look for garbage among them would take a third of the time
    try:
        db.execute("BEGIN")
        contents = merged_contents if is_merged(db) else _contents
        found = structure(db) or [*_damage(db), *contents(db, anchor)]
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
    yield from replayed.lacks(anchor)
    for table in AUDITED:
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [name for name, *_ in cursor.description]
        rows = (dict(zip(names, values, strict=True)) for values in cursor)
        yield from compare(table, rows, folded.rows, folded, seq, defaults(db, table))
    yield from left_over(folded.rows, folded)
    yield from compare_texts(stored_texts(db), folded.texts, folded.erased, seq + 1)
