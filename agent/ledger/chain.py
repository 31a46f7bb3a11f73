"""The tables of a ledger and its hash chain: what the events say, and whether schema, rows and texts are what they say.

A bundle holds copies of this file and of `verify.py`, so they need the standard library only.

`calls` holds one row per attempt or cache hit: reserved -> sent -> ok | error | unknown, or cached. Payload texts are
in `blobs` by SHA-256, and rows name them in columns that end in `_hash`: a text can be erased while the history around
it stays. `events` is a hash chain that describes every row of the tables in `AUDITED`; `head` holds its last link.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as it was put, also in place of an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

GENESIS = "0" * 64
AUDITED: Mapping[str, tuple[str, ...]] = {
    "runs": ("id",),
    "candidates": ("id",),
    "demos": ("candidate_id", "position"),
    "proposals": ("run_id", "candidate_id"),
    "trials": ("run_id", "number"),
    "outcomes": ("run_id", "split", "candidate_id", "example_id"),
    "calls": ("id",),
    "owner": ("id",),
}
"""Each table that the chain describes, with the columns of its primary key."""
EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")
"""The columns of an event."""

Place = tuple[Any, ...]
Row = dict[str, Any]


class Finding(NamedTuple):
    """Something that does not hold: `seq` is the event that says otherwise (0: the file as a whole)."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.what}" if self.seq else self.what


class Folded:
    """What the events say: `rows` by place with the seq of the last event about each in `seqs`; `texts`, the hashes
    of payload texts with the seq of the first event that names each; `erased`, those that were taken out; `facts`, the
    bodies of all other events, each with its run.
    """

    def __init__(self) -> None:
        self.rows: dict[Place, Row] = {}
        self.seqs: dict[Place, int] = {}
        self.texts: dict[str, int] = {}
        self.erased: set[str] = set()
        self.facts: list[tuple[str, Row]] = []

    def add(self, seq: int, run_id: str, body: str) -> None:
        """Takes one event. Raises ValueError, KeyError or TypeError when its body is not what an event can say."""
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError(f"not the body of an event: {body[:40]}")
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
        for digest in texts_of(row):
            self.texts.setdefault(digest, seq)
            self.erased.discard(digest)  # it came again after it was erased


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """The hashes of the payload texts that a row, or the body of a fact, names."""
    for column, value in row.items():
        if column[-5:] == "_hash" and value and isinstance(value, str):
            yield value


def belonging(folded: Folded, runs: Collection[str], with_answers: bool) -> set[Place]:
    """The places of these runs' rows, of the candidates that they proposed or tried, and of their examples; with
    `with_answers` also of the calls of other runs whose replies they took."""
    owners = ((place, row["id"] if place[0] == "runs" else row.get("run_id")) for place, row in folded.rows.items())
    found = {place for place, run_id in owners if run_id in runs}
    candidates = {folded.rows[place]["candidate_id"] for place in found if place[0] in ("proposals", "trials")}
    keys = {folded.rows[place]["call_key"] for place in found if place[0] == "calls"} if with_answers else set()
    for place, row in folded.rows.items():
        answers = place[0] == "calls" and row["state"] == "ok" and row["call_key"] in keys
        if answers or (place[0] in ("candidates", "demos") and place[1] in candidates):
            found.add(place)
    return found


def texts_in(folded: Folded, places: Iterable[Place], run_id: str) -> set[str]:
    """The hashes of the texts that these rows and the facts of a run name."""
    found = {digest for place in places for digest in texts_of(folded.rows[place])}
    return found | {digest for whose, fact in folded.facts if whose == run_id for digest in texts_of(fact)}


# -- the chain ---------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the events of one chain say up to its end, event `seq` with the hash `head`; `anchored`: whether one has the
    hash that was noted elsewhere; `broken`: where the chain does not hold."""

    folded: Folded
    seq: int
    head: str
    anchored: bool
    broken: Finding | None = None


def replay(chain: Iterable[Mapping[str, Any]], anchor: str | None = None, gaps: bool = False) -> Replayed:
    """Follow a chain link by link from its first event, and fold what its events say into rows.

    With `gaps`, events may be left out: one after a gap is proved by itself.
    """
    folded, prev, seq, anchored = Folded(), GENESIS, 0, anchor is None
    for event in chain:
        seq += 1
        wrong = ""
        try:
            if gaps and event["seq"] > seq:
                seq, prev = event["seq"], event["prev_hash"]
            if event["seq"] != seq:
                wrong = "is missing"
            elif follows(event, seq, prev):
                folded.add(seq, event["run_id"], event["body"])
            else:
                wrong = "does not follow from the one before it"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            wrong = "does not follow from the one before it"
        if wrong:
            return Replayed(folded, seq, prev, anchored, Finding(seq, f"event {seq} {wrong}"))
        prev = event["hash"]
        anchored = anchored or anchor == prev
    return Replayed(folded, seq, prev, anchored)


# -- rows and texts ----------------------------------------------------------------------------------------------------


Rows = Iterable[tuple[str, Iterable[Row], Mapping[str, Any]]]
"""Of each table its name, its rows, and by column what it holds where no event names it."""


def compare(tables: Rows, said: dict[Place, Row], folded: Folded, last: int) -> Iterator[Finding]:
    """Compare each row with what the events say of it, and find those of `said`, the rows that should be there, that
    are missing. `last` is the number of the last event."""
    for table, rows, empty in tables:
        for row in rows:
            place = (table, *(row.get(column) for column in AUDITED[table]))
            known = said.pop(place, None)
            name = ", ".join(map(str, place[1:]))
            if known is None:
                yield Finding(last + 1, f"no event tells of a row of {table}: {name}")
                continue
            if table == "calls" and known["state"] == "reserved" and row["state"] == "sent":
                row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
            if (full := {**empty, **known}) != row:
                wrong = ", ".join(column for column in row | full if full.get(column, ...) != row.get(column, ...))
                seq = folded.seqs[place]
                yield Finding(seq, f"a row of {table} is not what event {seq} says ({wrong}): {name}")
    for place in said:
        yield Finding(folded.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}")


def compare_texts(
    texts: Iterable[tuple[str, bool]], named: Mapping[str, int], erased: Collection[str], unnamed: int
) -> Iterator[Finding]:
    """Compare the texts that are there (hash, and whether the text has it) with those that events name.

    `named`: the event that names each; `unnamed`: the number of a finding about a text that no event names.
    """
    there = set()
    for digest, holds in texts:
        there.add(digest)
        seq = named.get(digest, unnamed)
        if not holds:
            yield Finding(seq, f"a text is not what its hash says: {digest}")
        elif digest in erased:
            yield Finding(seq, f"a text that was erased is back: {digest}")
        elif digest not in named:
            yield Finding(seq, f"no event tells of a text: {digest}")
    for digest, seq in named.items():
        if digest not in there and digest not in erased:
            yield Finding(seq, f"a text is missing: {digest}")


# -- the schema --------------------------------------------------------------------------------------------------------

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
