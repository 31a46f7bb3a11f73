"""The tables of ledger.db as numbered steps: a step is only ever added, never changed. And is a file's schema that?

`calls` holds one row per attempt or cache hit: reserved -> sent -> ok | error | unknown, or cached. Payload texts lie
in `blobs` by SHA-256, and rows name them in columns that end in `_hash`: a text can be erased while the history around
it stays. `events` is a hash chain that describes every row of the tables in `AUDITED`; `head` holds its last link.

The steps are SQL and not calls of sqlite-utils, which takes them in `connect.migrate`: SQLite keeps the words of each
CREATE, and `structure` compares them word by word, also with ledgers that were written before. The words of a table
that sqlite-utils makes are its version's; triggers, partial indexes and DROP COLUMN without a copy it has none.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

from agent.ledger.bundle_verify import KEYS

AUDITED = KEYS
"""Each table that the chain describes, with the columns of its primary key."""
SQLITES_OWN = ("pragma_", "json_each", "json_tree")
"""Begin the names of tables that SQLite makes up when they are asked; one in the file would answer instead."""

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, task TEXT NOT NULL, folder TEXT NOT NULL, status TEXT NOT NULL, model TEXT NOT NULL,
        proposer TEXT NOT NULL, seed INTEGER NOT NULL, started_utc TEXT NOT NULL, ended_utc TEXT, tool TEXT NOT NULL,
        python TEXT NOT NULL, sqlite TEXT NOT NULL, hashes TEXT NOT NULL, budget TEXT NOT NULL, plan TEXT, result TEXT,
        tags TEXT NOT NULL DEFAULT '{}'
    );
    CREATE TABLE candidates (
        id TEXT PRIMARY KEY, technique TEXT NOT NULL, format TEXT NOT NULL, role TEXT NOT NULL,
        instruction TEXT NOT NULL, n_demos INTEGER NOT NULL, template TEXT NOT NULL
    );
    CREATE TABLE demos (
        candidate_id TEXT NOT NULL REFERENCES candidates(id), position INTEGER NOT NULL, example_id TEXT NOT NULL,
        inputs TEXT NOT NULL, outputs TEXT NOT NULL, rationale TEXT NOT NULL, source TEXT NOT NULL,
        PRIMARY KEY (candidate_id, position)
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
        example_id TEXT NOT NULL, value REAL, reply TEXT NOT NULL, fields TEXT NOT NULL, error TEXT NOT NULL,
        scores TEXT NOT NULL, call_key TEXT NOT NULL, PRIMARY KEY (run_id, split, candidate_id, example_id)
    );
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(id), role TEXT NOT NULL, model TEXT NOT NULL,
        call_key TEXT NOT NULL, candidate_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
        finish TEXT, prompt_tokens INTEGER NOT NULL DEFAULT 0, cached_prompt_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,
        reserved_usd REAL NOT NULL DEFAULT 0, latency_s REAL, error_class TEXT, error TEXT, sent_utc TEXT NOT NULL,
        request_hash TEXT NOT NULL, response_hash TEXT
    );
    CREATE INDEX calls_by_key ON calls(call_key, state);
    CREATE INDEX calls_by_run ON calls(run_id, role, state);
    CREATE TABLE blobs (hash TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, utc TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        prev_hash TEXT NOT NULL, hash TEXT NOT NULL
    );
    CREATE TRIGGER events_append_only_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_append_only_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_in_sequence BEFORE INSERT ON events
        WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
        BEGIN SELECT RAISE(ABORT, 'events have no gaps'); END;
    """,
    """
    ALTER TABLE runs ADD COLUMN parent TEXT;
    ALTER TABLE runs ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN origin TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE runs ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE runs ADD COLUMN prices TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN result_hash TEXT;
    INSERT OR IGNORE INTO blobs SELECT sha256(result), result FROM runs WHERE result IS NOT NULL;
    UPDATE runs SET result_hash = sha256(result) WHERE result IS NOT NULL;
    ALTER TABLE runs DROP COLUMN result;

    ALTER TABLE candidates ADD COLUMN instruction_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE candidates ADD COLUMN template_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(instruction), instruction FROM candidates;
    INSERT OR IGNORE INTO blobs SELECT sha256(template), template FROM candidates;
    UPDATE candidates SET instruction_hash = sha256(instruction), template_hash = sha256(template);
    ALTER TABLE candidates DROP COLUMN instruction;
    ALTER TABLE candidates DROP COLUMN template;

    ALTER TABLE demos ADD COLUMN body_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(body), body FROM (SELECT json_object(
        'inputs', json(inputs), 'outputs', json(outputs), 'rationale', rationale) AS body FROM demos);
    UPDATE demos SET body_hash = sha256(json_object(
        'inputs', json(inputs), 'outputs', json(outputs), 'rationale', rationale));
    ALTER TABLE demos DROP COLUMN inputs;
    ALTER TABLE demos DROP COLUMN outputs;
    ALTER TABLE demos DROP COLUMN rationale;

    ALTER TABLE outcomes ADD COLUMN body_hash TEXT NOT NULL DEFAULT '';
    INSERT OR IGNORE INTO blobs SELECT sha256(body), body FROM (SELECT json_object(
        'fields', json(fields), 'error', error, 'scores', json(scores)) AS body FROM outcomes);
    UPDATE outcomes SET body_hash = sha256(json_object(
        'fields', json(fields), 'error', error, 'scores', json(scores)));
    ALTER TABLE outcomes DROP COLUMN reply;
    ALTER TABLE outcomes DROP COLUMN fields;
    ALTER TABLE outcomes DROP COLUMN error;
    ALTER TABLE outcomes DROP COLUMN scores;

    ALTER TABLE calls ADD COLUMN prefix_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE calls ADD COLUMN reserved_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN served_model TEXT;
    ALTER TABLE calls ADD COLUMN http_status INTEGER;
    ALTER TABLE calls ADD COLUMN retry_after REAL;
    CREATE INDEX calls_by_candidate ON calls(run_id, candidate_id);
    CREATE INDEX calls_open ON calls(id) WHERE state IN ('reserved', 'sent');

    CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
    INSERT INTO head SELECT 1, COALESCE(MAX(seq), 0),
        COALESCE((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), printf('%064d', 0)) FROM events;
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY CHECK (id = 1), host TEXT NOT NULL, pid INTEGER NOT NULL, boot_id TEXT NOT NULL,
        since_utc TEXT NOT NULL
    );
    CREATE VIEW prompts AS
        SELECT c.*, i.body AS instruction, t.body AS template FROM candidates c
        LEFT JOIN blobs i ON i.hash = c.instruction_hash LEFT JOIN blobs t ON t.hash = c.template_hash;
    """,
    "ALTER TABLE calls ADD COLUMN written_prompt_tokens INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE runs ADD COLUMN error TEXT NOT NULL DEFAULT '';",
    "CREATE INDEX events_by_kind ON events(kind);",
)


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
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.create_function("sha256", 1, sha256, deterministic=True)
        for step in STEPS[:version]:
            fresh.executescript(step)
        return _objects(fresh)


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
