"""The tables of a ledger and its hash chain: the meaning of events, and how a file differs from the schema.

`calls` has one row per attempt or cache hit: reserved -> sent -> ok | error | unknown, or cached. Payload texts are in
`blobs` by SHA-256; rows refer to them in columns ending in `_hash`, so that a text can be erased while its history
stays. `events` is a hash chain describing every row of the tables in `AUDITED`; `head` holds its last link.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as written, replacing an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact. A bundle contains copies of this file and of `verify.py`: standard library only.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

GENESIS = "0" * 64
AUDITED: Mapping[str, tuple[str, ...]] = {
    "runs": ("id",),
    "examples": ("candidate_id", "position"),
    "candidates": ("id",),
    "proposals": ("run_id", "candidate_id"),
    "trials": ("run_id", "number"),
    "outcomes": ("run_id", "split", "candidate_id", "example_id"),
    "calls": ("id",),
}
"""Tables described by the chain, with the columns of their primary keys."""
OWNER_OF = {**{table: key[0] for table, key in AUDITED.items()}, "calls": "run_id"}
"""By table, the column of the run or candidate that owns a row."""
EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")  # the columns of an event
SQLITES_OWN = ("pragma_", "json_each", "json_tree")
"""Prefixes of tables that SQLite provides when queried; a table in the file would answer instead."""
VERSION = 6  # `user_version` of a ledger; other versions are refused
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
    CREATE TABLE examples (
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
    CREATE VIEW prompts AS
        SELECT c.*, i.body AS instruction, t.body AS template FROM candidates c
        LEFT JOIN blobs i ON i.hash = c.instruction_hash LEFT JOIN blobs t ON t.hash = c.template_hash;
"""
"""Plain SQL, because `structure` compares the text that SQLite stores."""
Place = tuple[Any, ...]
Row = dict[str, Any]


class Finding(NamedTuple):
    """A violation found: `seq` is the event that contradicts the file (0: the file as a whole)."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.what}" if self.seq else self.what


def sha256(text: str | None) -> str | None:
    """Return the SHA-256 (hex) of a text."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache
def expected_objects() -> dict[tuple[str, str], tuple[str, str]]:
    """Map (type, name) of the schema's tables, indexes, triggers and views to (table, SQL)."""
    with empty_ledger() as db:
        return _objects(db)


@lru_cache
def columns_of(table: str) -> dict[str, tuple[str, Any]]:
    """Map the columns of a table to their type and default value."""
    with empty_ledger() as db:
        return {
            name: (kind, value if value is None else value.strip("'") if "'" in value else int(value))
            for _, name, kind, _, value, _ in db.execute(f"PRAGMA table_info({table})")
        }


@contextmanager
def empty_ledger() -> Iterator[sqlite3.Connection]:
    """Open an empty ledger in memory."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        yield db


def _objects(db: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return {(kind, name): (table, _one_line(sql or "")) for kind, name, table, sql in rows}


def _one_line(sql: str) -> str:
    return re.sub(r" ?([(),]) ?", r"\1 ", " ".join(sql.split()))


def _stands_apart(db: sqlite3.Connection, kind: str, name: str, table: str, sql: str, ours: set[str]) -> bool:
    if kind == "index":
        return table not in ours
    if not sql.startswith("CREATE TABLE ") or name.lower().startswith(SQLITES_OWN):
        return False
    quoted = name.replace('"', '""')
    return all(row[2].lower() not in ours for row in db.execute(f'PRAGMA foreign_key_list("{quoted}")'))


def structure(db: sqlite3.Connection) -> list[Finding]:
    """List differences from the schema; call it before anything is read or written.

    A view in place of a table, or an expression in an index, may never end, and an added trigger may refuse paid
    replies. Other tables and their indexes are allowed; views, virtual tables and anything attached to our tables are
    not.
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


# -- the chain ---------------------------------------------------------------------------------------------------------


def link(prev_hash: str, event: Mapping[str, Any]) -> str:
    """Hash an event together with the previous hash (SHA-256, hex).

    Hashed is the canonical JSON (RFC 8785) of seq, run_id, utc, kind and body.
    """
    text = (
        f'{prev_hash}{{"body":{_quoted(event["body"])},"kind":{_quoted(event["kind"])},'
        f'"run_id":{_quoted(event["run_id"])},"seq":{event["seq"]},"utc":{_quoted(event["utc"])}}}'
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def follows(event: Mapping[str, Any], seq: int, prev_hash: str) -> bool:
    """Return whether `event` has number `seq` and links to the previous hash."""
    return bool(event["seq"] == seq and event["prev_hash"] == prev_hash and event["hash"] == link(prev_hash, event))


def _texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    for column, value in row.items():
        if column[-5:] == "_hash" and value and isinstance(value, str):
            yield value


class Folded:
    """State described by the events of a chain, up to event `seq` with the hash `head`.

    `seqs` has the last event about each of the `rows`, `texts` the first that names each hash. `erased`: texts taken
    out. `facts`: all other bodies, with their run. `broken`: where the chain does not hold. `anchored`: it contains a
    hash noted elsewhere.
    """

    def __init__(self) -> None:
        self.rows: dict[Place, Row] = {}
        self.seqs: dict[Place, int] = {}
        self.texts: dict[str, int] = {}
        self.erased: set[str] = set()
        self.facts: list[tuple[str, Row]] = []
        self.seq, self.head, self.anchored = 0, GENESIS, True
        self.broken: Finding | None = None

    @staticmethod
    def of(events: Iterable[Mapping[str, Any]], anchor: str | None = None, gaps: bool = False) -> Folded:
        """Verify a chain link by link until it breaks. With `gaps` only the links of each single event are verified."""
        found = Folded()
        found.anchored = anchor is None
        for event in events:
            found.seq += 1
            wrong = "does not follow from the one before it"
            try:
                if gaps and event["seq"] > found.seq:
                    found.seq, found.head = event["seq"], event["prev_hash"]
                if event["seq"] != found.seq:
                    wrong = "is missing"
                elif follows(event, found.seq, found.head):
                    found.add(found.seq, event["run_id"], event["body"])
                    wrong = ""
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass
            if wrong:
                found.broken = Finding(found.seq, f"event {found.seq} {wrong}")
                break
            found.head = event["hash"]
            found.anchored = found.anchored or anchor == found.head
        return found

    def add(self, seq: int, run_id: str, body: str) -> None:
        """Apply one event. Raises ValueError, KeyError or TypeError for a malformed body."""
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError(f"not a valid event body: {body[:40]}")
        row: Row = said
        if "insert" in said:
            row = said["row"]
            place = (said["insert"], *(row[column] for column in AUDITED[said["insert"]]))
            self.rows[place], self.seqs[place] = row, seq
        elif "update" in said:
            row = said["set"]
            place = (said["update"], *said["key"])
            self.rows[place], self.seqs[place] = self.rows[place] | row, seq
        else:
            self.facts.append((run_id, said))
            self.erased.update(said.get("erased", ()))
        for digest in _texts_of(row):
            self.texts.setdefault(digest, seq)
            self.erased.discard(digest)  # recorded again after it was erased

    def belonging(self, runs: Collection[str], with_answers: bool) -> set[Place]:
        """Return the rows of these runs, of their candidates and of their examples.

        `with_answers`: also of other runs' calls whose replies they used.
        """
        owners = {place: row.get(OWNER_OF[place[0]]) for place, row in self.rows.items()}
        found = {place for place, owner in owners.items() if owner in runs}
        candidates = {self.rows[place]["candidate_id"] for place in found if place[0] in ("proposals", "trials")}
        keys = {self.rows[place]["call_key"] for place in found if place[0] == "calls"} if with_answers else set()
        for place, row in self.rows.items():
            answers = place[0] == "calls" and row["state"] == "ok" and row["call_key"] in keys
            if answers or owners[place] in candidates:
                found.add(place)
        return found

    def texts_in(self, places: Iterable[Place], run_id: str) -> set[str]:
        """Return the hashes of the texts that these rows and a run's facts name."""
        found = {digest for place in places for digest in _texts_of(self.rows[place])}
        return found | {digest for whose, fact in self.facts if whose == run_id for digest in _texts_of(fact)}

    def compare(self, tables: Iterable[tuple[str, Iterable[Row]]], said: dict[Place, Row]) -> Iterator[Finding]:
        """Compare rows with the events, and find rows of `said` that are missing."""
        for table, rows in tables:
            empty = {name: value for name, (_, value) in columns_of(table).items()}
            for row in rows:
                place = (table, *(row.get(column) for column in AUDITED[table]))
                known = said.pop(place, None)
                name = ", ".join(map(str, place[1:]))
                if known is None:
                    yield Finding(self.seq + 1, f"no event describes a row of {table}: {name}")
                    continue
                if table == "calls" and known["state"] == "reserved" and row["state"] == "sent":
                    row["state"] = "reserved"  # sending is recorded without an event; the outcome has one
                if (full := {**empty, **known}) != row:
                    wrong = ", ".join(column for column in row | full if full.get(column, ...) != row.get(column, ...))
                    seq = self.seqs[place]
                    yield Finding(seq, f"a row of {table} is not what event {seq} says ({wrong}): {name}")
        for place in said:
            yield Finding(self.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}")
