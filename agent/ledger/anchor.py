"""The end of the chain at one moment: what is noted elsewhere, so that a ledger that was made anew shows.

Knows the events and nothing of what they say.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger.chain import GENESIS
from agent.ledger.connect import reader, schema_of
from agent.ledger.origin import utc_now
from agent.ledger.schema import STEPS
from agent.ledger.verify import Finding, structure, verify

HASH = re.compile("[0-9a-f]{64}")
_NOTED = [re.compile(rf'\b{name}"?\s*[=:]\s*"([0-9a-f]{{64}})"') for name in ("ledger_head", "hash")]


@contextmanager
def unchecked(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, to a file of which nothing is known but that it is no other version's.

    Raises LedgerError for one that is, and when SQLite cannot read on.
    """
    try:
        with closing(reader(path)) as db:
            db.isolation_level = None
            _require_version(db, path)
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: not a readable ledger ({error}); name another file with --db") from error


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """The same, and it sees the ledger as it is at its first question, whatever a writer adds meanwhile."""
    with unchecked(path) as db:
        db.execute("BEGIN")
        yield db


def _require_version(db: sqlite3.Connection, path: Path) -> None:
    try:
        version = schema_of(db)
    except sqlite3.Error:  # damaged: whoever reads on says how
        return
    if version > len(STEPS):
        raise LedgerError(f"{path}: written by a newer version (schema {version}); upgrade, or use another --db")
    if 0 < version < len(STEPS):
        raise LedgerError(
            f"{path}: written by an older version (schema {version}); `optimize runs` updates it and keeps a copy"
        )


def head_of(db: sqlite3.Connection) -> tuple[int, str]:
    """Number and hash of the last event."""
    found = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(found[0]), str(found[1])) if found else (0, GENESIS)


def checked(db: sqlite3.Connection, anchor: str | None = None) -> tuple[int, str, list[Finding]]:
    """What `verify` finds, behind number and hash of the last event that it covers at least (0 and "" where they cannot
    be read)."""
    try:
        events, head = (0, "") if structure(db) else head_of(db)
    except sqlite3.Error:
        events, head = 0, ""
    return events, head, verify(db, anchor)


def anchor(db: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """Where the chain ends now: seq, hash, utc and the ledger's path."""
    seq, digest = head_of(db)
    return {"seq": seq, "hash": digest, "utc": utc_now(), "ledger": str(path)}


def noted_hash(word: str) -> str:
    """The hash that `word` is or that the file of this name notes: an anchor, a result of --json, a released prompt.

    Raises InputError when it is neither.
    """
    if HASH.fullmatch(word):
        return word
    try:
        text = Path(word).read_text("utf-8")
    except (OSError, ValueError):
        raise InputError(
            f"{word}: neither a hash (64 hex digits) nor a readable file; give what `optimize audit anchor` printed"
        ) from None
    for pattern in _NOTED:
        if found := pattern.search(text):
            return found[1]
    raise InputError(f"{word}: notes no head of a ledger; give what `optimize audit anchor` wrote, or a release")
