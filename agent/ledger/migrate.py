"""Brings an older ledger up to date: step by step, in one transaction, after a copy of the old file was kept."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from agent.errors import LedgerError
from agent.ledger.chain import GENESIS, link
from agent.ledger.connect import reader
from agent.ledger.origin import utc_now
from agent.ledger.schema import AUDITED, STEPS
from agent.ledger.verify import structure
from agent.types import canonical


def keep_copy(path: Path) -> Path:
    """A copy of the ledger as it is, beside it: `<name>.schema<N>`. An older copy of that name stays."""
    with contextlib.closing(reader(path)) as old:
        copy = path.with_name(f"{path.name}.schema{old.execute('PRAGMA user_version').fetchone()[0]}")
        if not copy.exists():
            part = copy.with_name(f"{copy.name}.part")
            part.unlink(missing_ok=True)
            part.touch(mode=0o600)
            with contextlib.closing(sqlite3.connect(part)) as new:
                old.backup(new)
            part.replace(copy)  # whole or not at all
    return copy


def migrate(db: sqlite3.Connection) -> None:
    """Takes the steps that are missing. Rows that no event describes, from before events did, get one each.

    Raises LedgerError, and leaves all as it was, where the older schema was not the one that its steps had made.
    """
    db.execute("BEGIN EXCLUSIVE")
    try:
        done = db.execute("PRAGMA user_version").fetchone()[0]
        for step in STEPS[done:]:
            for statement in _statements(step):
                db.execute(statement)
        if done == 1:
            _adopt(db)
        db.execute(f"PRAGMA user_version = {len(STEPS)}")
        if changed := structure(db):
            raise LedgerError(f"{changed[0]}; nothing was changed; restore a copy, or name another file with --db")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.rollback()
        raise


def _statements(script: str) -> list[str]:
    found, held = [], ""
    for part in script.split(";"):
        held += part + ";"
        if sqlite3.complete_statement(held) and part.strip():
            found.append(held)
            held = ""
    return found


def _adopt(db: sqlite3.Connection) -> None:
    seq, head = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
    for table in AUDITED:
        cursor = db.execute(f"SELECT * FROM {table}")
        columns = [column[0] for column in cursor.description]
        for values in cursor.fetchall():
            row = dict(zip(columns, values, strict=True))
            seq += 1
            body = canonical({"insert": table, "row": row})
            event = {"seq": seq, "run_id": row.get("run_id", ""), "utc": utc_now(), "kind": "row_adopted", "body": body}
            prev, head = head, link(head, event)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*event.values(), prev, head))
    db.execute("UPDATE head SET seq = ?, hash = ?", (seq, head))
