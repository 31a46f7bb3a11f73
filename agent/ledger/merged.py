"""A merged ledger: the chains of several ledgers in one file that is only read.

How such a file is recognized, and how its rows are those of its sources.

The tables are those of a ledger, so that whatever reads one reads this. Three more say what came from where:
`merged_chains` has a row for each chain, `merged_sources` for each file, `merged_homes` the chain whose rows of a run
or of a candidate stand in the file.

Each chain numbers its events and calls from 1; in the file both are numbered through. A chain that went on from a copy
of another shares its first events (`parent`, `shared`): they stand in the file once. So a chain is a list of segments,
each with what is added to its own numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import LedgerError

TABLES = {
    "merged_chains": "CREATE TABLE merged_chains (number INTEGER PRIMARY KEY, ledger TEXT NOT NULL, parent INTEGER NOT "
    "NULL, shared INTEGER NOT NULL, events INTEGER NOT NULL, head TEXT NOT NULL, seq_offset INTEGER NOT NULL, "
    "first_call INTEGER NOT NULL, call_offset INTEGER NOT NULL)",
    "merged_sources": "CREATE TABLE merged_sources (name TEXT PRIMARY KEY, chain INTEGER NOT NULL, events INTEGER NOT "
    "NULL, head TEXT NOT NULL)",
    "merged_homes": "CREATE TABLE merged_homes (kind TEXT NOT NULL, name TEXT NOT NULL, chain INTEGER NOT NULL, "
    "PRIMARY KEY (kind, name))",
}
HOME = {
    "runs": ("run", "id"),
    "candidates": ("candidate", "id"),
    "demos": ("candidate", "candidate_id"),
    **dict.fromkeys(("proposals", "trials", "outcomes", "calls"), ("run", "run_id")),
}
"""By table, what its rows belong to, and the column that names it. (`owner` is of the open file, and left out.)"""


@dataclass(frozen=True, slots=True)
class Segment:
    """Events `after` < seq <= `upto` of a chain, and its calls from `first_call` on: what is added to their numbers."""

    after: int
    upto: int
    seq_offset: int
    first_call: int
    call_offset: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of a merged ledger. `ledger`: hash of its first event; `name`: the source that has all of it; `path`:
    its own number and those of the chains that it went on from, oldest first, with as many `segments`."""

    number: int
    ledger: str
    name: str
    events: int
    head: str
    path: tuple[int, ...]
    segments: tuple[Segment, ...]

    def seq_here(self, seq: int) -> int:
        """The number in the file of an event of the chain; 0 for one that it has not."""
        return next((seq + part.seq_offset for part in self.segments if part.after < seq <= part.upto), 0)

    def call_there(self, number: int) -> int:
        """The number in its own ledger of a call of the file."""
        for part in reversed(self.segments):
            if number >= part.first_call + part.call_offset:
                return number - part.call_offset
        return number

    def shared(self, other: Chain) -> int:
        """How many events the two have in common."""
        common = 0
        for mine, its, left, right in zip(self.path, other.path, self.segments, other.segments, strict=False):
            if mine != its:
                break
            common = min(left.upto, right.upto)
        return common


def is_merged(db: sqlite3.Connection) -> bool:
    """Whether the file says that it is a merged ledger; its schema is looked at apart (`structure`)."""
    found = db.execute("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'merged_chains'")
    return found.fetchone() is not None


def refuse_merged(db: sqlite3.Connection, path: Path, why: str = "it is only read") -> None:
    """Raises LedgerError for a merged ledger."""
    if is_merged(db):
        raise LedgerError(f"{path}: a merged ledger: {why}; name the ledger of the run with --db")


def changed_tables(db: sqlite3.Connection) -> list[str]:
    """Which of the tables of a merged ledger are not as made."""
    there = dict(db.execute("SELECT name, sql FROM main.sqlite_master WHERE name LIKE 'merged/_%' ESCAPE '/'"))
    return sorted(name for name in TABLES | there if there.get(name) != TABLES.get(name))


def segments_after(before: tuple[Segment, ...], shared: int, own: Segment) -> tuple[Segment, ...]:
    """The segments of a chain that shares `shared` events with the one that has those `before`."""
    kept = [part for part in before if part.after < shared]
    cut = [Segment(p.after, min(p.upto, shared), p.seq_offset, p.first_call, p.call_offset) for p in kept]
    return (*cut, own)


def chains(db: sqlite3.Connection) -> dict[int, Chain]:
    """All chains of a merged ledger by their number, those before that others went on from. Raises KeyError where one
    goes on from a chain that is not there."""
    names = dict(db.execute("SELECT chain, name FROM merged_sources ORDER BY events, name DESC"))
    found: dict[int, Chain] = {}
    for number, ledger, parent, shared, events, head, *offsets in db.execute(
        "SELECT number, ledger, parent, shared, events, head, seq_offset, first_call, call_offset FROM merged_chains "
        "ORDER BY number"
    ):
        own = Segment(shared, events, *offsets)
        segments = segments_after(found[parent].segments if parent else (), shared, own)
        path = (*(found[parent].path[: len(segments) - 1] if parent else ()), number)
        found[number] = Chain(number, ledger, names.get(number, f"chain {number}"), events, head, path, segments)
    return found


def home_of(db: sqlite3.Connection, run_id: str) -> Chain | None:
    """The chain of a run in a merged ledger; None in one that is not merged, or where the run is not known."""
    if not is_merged(db):
        return None
    found = db.execute("SELECT chain FROM merged_homes WHERE kind = 'run' AND name = ?", (run_id,)).fetchone()
    return chains(db).get(found[0]) if found else None


def ledger_ids(db: sqlite3.Connection) -> set[str]:
    """The hash of the first event of each chain in the file, merged or not."""
    asked = "SELECT ledger FROM merged_chains" if is_merged(db) else "SELECT hash FROM events WHERE seq = 1"
    return {ledger for (ledger,) in db.execute(asked)}


def own_rows(db: sqlite3.Connection, table: str, chain: Chain) -> Iterator[dict[str, Any]]:
    """The rows of a table that stand in the file as this chain has them, calls with their numbers there."""
    kind, column = HOME[table]
    cursor = db.execute(
        f"SELECT * FROM {table} WHERE {column} IN (SELECT name FROM merged_homes WHERE kind = ? AND chain = ?)",
        (kind, chain.number),
    )
    names = [name for name, *_ in cursor.description]
    for values in cursor:
        row = dict(zip(names, values, strict=True))
        if table == "calls":
            row["id"] = chain.call_there(row["id"])
        yield row
