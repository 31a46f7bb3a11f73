"""The tables of ledger.db, and is a file's schema that?

`calls` holds one row per attempt or cache hit: reserved -> sent -> ok | error | unknown, or cached. Payload texts lie
in `blobs` by SHA-256, and rows name them in columns that end in `_hash`: a text can be erased while the history around
it stays. `events` is a hash chain that describes every row of the tables in `AUDITED`; `head` holds its last link.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from typing import Any

from agent.ledger.chain import KEYS, Finding

AUDITED = KEYS
"""Each table that the chain describes, with the columns of its primary key."""
SQLITES_OWN = ("pragma_", "json_each", "json_tree")
"""Begin the names of tables that SQLite makes up when they are asked; one in the file would answer instead."""
VERSION = 5
"""`user_version` of a ledger; a file with another one is refused."""
SCHEMA = """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, task TEXT NOT NULL, folder TEXT NOT NULL, status TEXT NOT NULL, model TEXT NOT NULL,
        proposer TEXT NOT NULL, seed INTEGER NOT NULL, started_utc TEXT NOT NULL, ended_utc TEXT, tool TEXT NOT NULL,
        python TEXT NOT NULL, sqlite TEXT NOT NULL, hashes TEXT NOT NULL, budget TEXT NOT NULL, plan TEXT,
        tags TEXT NOT NULL DEFAULT '{}', parent TEXT, seconds REAL NOT NULL DEFAULT 0,
        origin TEXT NOT NULL DEFAULT '{}', options TEXT NOT NULL DEFAULT '{}', prices TEXT NOT NULL DEFAULT '',
        result_hash TEXT, error TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE candidates (
        id TEXT PRIMARY KEY, technique TEXT NOT NULL, format TEXT NOT NULL, role TEXT NOT NULL,
        n_examples INTEGER NOT NULL, instruction_hash TEXT NOT NULL DEFAULT '', template_hash TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE demos (
        candidate_id TEXT NOT NULL REFERENCES candidates(id), position INTEGER NOT NULL, example_id TEXT NOT NULL,
        source TEXT NOT NULL, body_hash TEXT NOT NULL DEFAULT '', PRIMARY KEY (candidate_id, position)
    );
    CREATE TABLE proposals (
        run_id TEXT NOT NULL REFERENCES runs(id), round INTEGER NOT NULL, candidate_id TEXT NOT NULL,
        parent_id TEXT, operator TEXT NOT NULL, reason TEXT NOT NULL, rejected TEXT NOT NULL,
        PRIMARY KEY (run_id, candidate_id)
    );
    CREATE TABLE trials (
        run_id TEXT NOT NULL REFERENCES runs(id), number INTEGER NOT NULL, round INTEGER NOT NULL,
        candidate_id TEXT NOT NULL REFERENCES candidates(id), state TEXT NOT NULL, n INTEGER NOT NULL, mean REAL,
        low REAL, high REAL, reason TEXT NOT NULL, PRIMARY KEY (run_id, number)
    );
    CREATE TABLE outcomes (
        run_id TEXT NOT NULL REFERENCES runs(id), split TEXT NOT NULL, candidate_id TEXT NOT NULL,
        example_id TEXT NOT NULL, value REAL, call_key TEXT NOT NULL, body_hash TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (run_id, split, candidate_id, example_id)
    );
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(id), role TEXT NOT NULL, model TEXT NOT NULL,
        call_key TEXT NOT NULL, candidate_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
        finish TEXT, prompt_tokens INTEGER NOT NULL DEFAULT 0, cached_prompt_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,
        reserved_usd REAL NOT NULL DEFAULT 0, latency_s REAL, error_class TEXT, error TEXT, sent_utc TEXT NOT NULL,
        request_hash TEXT NOT NULL, response_hash TEXT, prefix_hash TEXT NOT NULL DEFAULT '',
        reserved_tokens INTEGER NOT NULL DEFAULT 0, served_model TEXT, http_status INTEGER, retry_after REAL,
        written_prompt_tokens INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX calls_by_key ON calls(call_key, state);
    CREATE INDEX calls_by_run ON calls(run_id, role, state);
    CREATE INDEX calls_by_candidate ON calls(run_id, candidate_id);
    CREATE INDEX calls_open ON calls(id) WHERE state IN ('reserved', 'sent');
    CREATE TABLE blobs (hash TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, utc TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        prev_hash TEXT NOT NULL, hash TEXT NOT NULL
    );
    CREATE INDEX events_by_kind ON events(kind);
    CREATE TRIGGER events_append_only_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_append_only_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_in_sequence BEFORE INSERT ON events
        WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
        BEGIN SELECT RAISE(ABORT, 'events have no gaps'); END;
    CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
    INSERT INTO head VALUES (1, 0, printf('%064d', 0));
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY CHECK (id = 1), host TEXT NOT NULL, pid INTEGER NOT NULL, boot_id TEXT NOT NULL,
        since_utc TEXT NOT NULL
    );
    CREATE VIEW prompts AS
        SELECT c.*, i.body AS instruction, t.body AS template FROM candidates c
        LEFT JOIN blobs i ON i.hash = c.instruction_hash LEFT JOIN blobs t ON t.hash = c.template_hash;
"""
"""Plain SQL, because `structure` compares the words that SQLite keeps of it."""


def sha256(text: str | None) -> str | None:
    """SHA-256 (hex) of a text."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache
def expected_objects() -> dict[tuple[str, str], tuple[str, str]]:
    """Tables, indexes, triggers and views of the schema: (type, name) -> table, SQL."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        return _objects(fresh)


def _objects(db: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return {(kind, name): (table, _one_line(sql or "")) for kind, name, table, sql in rows}


def _one_line(sql: str) -> str:
    """The words of a statement, whatever its line breaks."""
    return re.sub(r" ?([(),]) ?", r"\1 ", " ".join(sql.split()))


def defaults(db: sqlite3.Connection, table: str) -> dict[str, Any]:
    """By column of a table what it holds where no event names it."""
    return {
        name: value if value is None else value.strip("'") if "'" in value else int(value)
        for _, name, _, _, value, _ in db.execute(f"PRAGMA table_info({table})")
    }


def stored_texts(db: sqlite3.Connection) -> Iterator[tuple[str, bool]]:
    """The hash of each payload text, and whether the text has it."""
    for digest, body in db.execute("SELECT hash, body FROM blobs"):
        yield digest, isinstance(body, str) and sha256(body) == digest


def _stands_apart(db: sqlite3.Connection, kind: str, name: str, table: str, sql: str, ours: set[str]) -> bool:
    """Whether an object that is not ours has nothing to do with our tables."""
    if kind == "index":
        return table not in ours
    if not sql.startswith("CREATE TABLE ") or name.lower().startswith(SQLITES_OWN):
        return False
    quoted = name.replace('"', '""')
    return all(row[2].lower() not in ours for row in db.execute(f'PRAGMA foreign_key_list("{quoted}")'))


def structure(db: sqlite3.Connection) -> list[Finding]:
    """Find where the schema differs from ours. Asks nothing but SQLite's own list of it, and takes a millisecond.

    To be looked at before anything is read from a file that may be of another's making, as a view in place of a table,
    or an expression in an index, is code that may never end; and before anything is written, as an index or a trigger
    more may refuse what was paid for.

    Other tables may stand next to ours, with their indexes: no write of ours touches them. What hangs on our
    tables may not: an index, a trigger, a foreign key. Views and virtual tables (full-text search) are refused as well:
    there is less to tell apart, and they can stand in another file, with ATTACH.
    """
    if (found := db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
        return [Finding(0, f"the schema has version {found}, not {VERSION}")]
    there, expected = _objects(db), expected_objects()
    ours = {name for kind, name in expected if kind == "table"}
    wrong = []
    for (kind, name), (table, sql) in sorted(there.items()):
        if (kind, name) not in expected and not _stands_apart(db, kind, name, table, sql, ours):
            wrong.append(f"{kind} {name} was added{f' to {table}' if table != name else ''}")
    for each, made in expected.items():
        if there.get(each) != made:
            wrong.append(f"{' '.join(each)} is {'not as made' if each in there else 'missing'}")
    return [Finding(0, f"the schema was changed: {what}") for what in wrong]
