"""Is the ledger what its chain says? Finds damage and tampering, and names the first event that no longer holds.

Reads only. Knows the tables as `schema` has them, and nothing of runs or scores.
"""

from __future__ import annotations

import gc
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.ledger.chain import EVENT, GENESIS, Folded, follows
from agent.ledger.schema import AUDITED, STEPS

SQLITES_OWN = ("pragma_", "json_each", "json_tree")
"""Begin the names of tables that SQLite makes up when they are asked; one in the file would answer instead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: `seq` is the event that says otherwise (0: the file as a whole)."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.what}" if self.seq else self.what


def sha256(text: str | None) -> str | None:
    """SHA-256 (hex) of a text; the SQL function of the schema's steps."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache
def expected_objects(version: int | None = None) -> dict[tuple[str, str], tuple[str, str]]:
    """Tables, indexes, triggers and views as the steps up to `version` make them (None: all): (type, name) -> table,
    SQL."""
    with _as_made(version) as fresh:
        return _objects(fresh)


def _defaults() -> dict[str, dict[str, Any]]:
    """By audited table, what a column holds that no event tells of. The file under test is not asked."""
    with _as_made() as fresh:
        return {
            table: {
                name: value if value is None else value.strip("'") if "'" in value else int(value)
                for _, name, _, _, value, _ in fresh.execute(f"PRAGMA table_info({table})")
            }
            for table in AUDITED
        }


@contextmanager
def _as_made(version: int | None = None) -> Iterator[sqlite3.Connection]:
    """An empty ledger in memory."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.create_function("sha256", 1, sha256, deterministic=True)
        for step in STEPS[:version]:
            fresh.executescript(step)
        yield fresh


def _objects(db: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return {(kind, name): (table, sql or "") for kind, name, table, sql in rows}


def _stands_apart(db: sqlite3.Connection, kind: str, name: str, table: str, sql: str, ours: set[str]) -> bool:
    """Whether an object that is not ours has nothing to do with our tables."""
    if kind == "index":
        return table not in ours
    if not sql.startswith("CREATE TABLE ") or name.lower().startswith(SQLITES_OWN):
        return False
    quoted = name.replace('"', '""')
    return all(row[2].lower() not in ours for row in db.execute(f'PRAGMA foreign_key_list("{quoted}")'))


def structure(db: sqlite3.Connection, version: int | None = None) -> list[Finding]:
    """Where the schema is not the one that `version` made (None: this one). Asks nothing but SQLite's own list of it,
    and takes a millisecond.

    To be looked at before anything is read from a file that may be of another's making, as a view in place of a table,
    or an expression in an index, is code that may never end; and before anything is written, as an index or a trigger
    more may refuse what was paid for.

    Tables of one's own may stand beside ours, with their indexes: no write of ours touches them. What hangs on our
    tables may not: an index, a trigger, a foreign key. Views and virtual tables (full-text search) are refused as well:
    there is less to tell apart, and they can stand in a file of one's own, with ATTACH.
    """
    if (found := db.execute("PRAGMA user_version").fetchone()[0]) != (version or len(STEPS)):
        return [Finding(0, f"the schema has version {found}, not {version or len(STEPS)}")]
    there, expected = _objects(db), expected_objects(version)
    ours = {name for kind, name in expected if kind == "table"}
    wrong = []
    for (kind, name), (table, sql) in sorted(there.items()):
        if (kind, name) not in expected and not _stands_apart(db, kind, name, table, sql, ours):
            wrong.append(f"{kind} {name} was added{f' to {table}' if table != name else ''}")
    for each, made in expected.items():
        if there.get(each) != made:
            wrong.append(f"{' '.join(each)} is {'not as made' if each in there else 'missing'}")
    return [Finding(0, f"the schema was changed: {what}") for what in wrong]


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
        found = structure(db, version) or [*_damage(db), *_contents(db, anchor)]
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
    folded, prev, seq, anchored = Folded(), GENESIS, 0, anchor is None
    for values in db.execute(f"SELECT {', '.join(EVENT)} FROM events ORDER BY seq"):
        event = dict(zip(EVENT, values, strict=True))
        seq += 1
        if event["seq"] != seq:
            yield Finding(seq, f"event {seq} is missing")
            return
        try:
            if holds := follows(event, seq, prev):
                folded.add(seq, event["body"])
        except (ValueError, KeyError, TypeError, RecursionError):
            holds = False
        if not holds:
            yield Finding(seq, f"event {seq} does not follow from the one before it")
            return
        prev = event["hash"]
        anchored = anchored or anchor == prev
    head = db.execute("SELECT seq, hash FROM head").fetchall()
    if head != [(seq, prev)]:
        yield Finding(seq + 1, f"the chain ends at event {seq}, which is not the head that was noted")
        return
    if not anchored:
        yield Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")
    defaults = _defaults()
    for table in AUDITED:
        yield from _table(db, table, defaults[table], folded, seq)
    for place in folded.rows:
        yield Finding(folded.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}")
    yield from _blobs(db, folded, seq)


def _table(
    db: sqlite3.Connection, table: str, defaults: Mapping[str, Any], folded: Folded, last: int
) -> Iterator[Finding]:
    """Compares each row with what the events say of it, and takes it out of `folded.rows`."""
    cursor = db.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in cursor.description]
    untold = {name: value for name, value in defaults.items() if name in columns}  # an older schema has fewer
    for values in cursor:
        row = dict(zip(columns, values, strict=True))
        place = (table, *(row[column] for column in AUDITED[table]))
        told = folded.rows.pop(place, None)
        name = ", ".join(map(str, place[1:]))
        if told is None:
            yield Finding(last + 1, f"no event tells of a row of {table}: {name}")
            continue
        if table == "calls" and told["state"] == "reserved" and row["state"] == "sent":
            row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
        if (said := untold | told) != row:
            wrong = [column for column in row | said if said.get(column, ...) != row.get(column, ...)]
            seq = folded.seqs[place]
            yield Finding(seq, f"a row of {table} is not what event {seq} says ({', '.join(wrong)}): {name}")


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
