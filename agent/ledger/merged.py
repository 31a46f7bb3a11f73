"""A merged ledger: the chains of several ledgers in one file that is only read.

How such a file is recognized, and how its rows are those of its sources.

The tables are those of a ledger, so that whatever reads one reads this. Four more say what came from where:
`merged_chains` and `merged_segments` describe each chain, `merged_sources` each file, `merged_homes` the chain whose
rows of a run or of a candidate are in the file.

Each chain numbers its events and calls from 1; in the file both are numbered through. A copy of a ledger that was
continued shares its first events with the original: they are in the file once. So a chain is a list of segments, each
with what is added to its own numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.ledger.chain import EVENT, Finding, Place, Replayed, compare, compare_texts, left_over, replay
from agent.ledger.schema import defaults, stored_texts

TABLES = {
    "merged_chains": "CREATE TABLE merged_chains (number INTEGER PRIMARY KEY, ledger TEXT NOT NULL, events INTEGER NOT "
    "NULL, head TEXT NOT NULL)",
    "merged_segments": "CREATE TABLE merged_segments (chain INTEGER NOT NULL, after INTEGER NOT NULL, upto INTEGER NOT "
    "NULL, seq_offset INTEGER NOT NULL, first_call INTEGER NOT NULL, call_offset INTEGER NOT NULL, PRIMARY KEY (chain, "
    "after))",
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
    """One chain of a merged ledger. `ledger`: hash of its first event; `name`: the source that has all of it."""

    number: int
    ledger: str
    name: str
    events: int
    head: str
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
        for mine, its in zip(self.segments, other.segments, strict=False):
            if (mine.after, mine.seq_offset) != (its.after, its.seq_offset):
                break
            common = min(mine.upto, its.upto)
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


def chains(db: sqlite3.Connection) -> dict[int, Chain]:
    """All chains of a merged ledger by their number, those before that others were continued from."""
    names = dict(db.execute("SELECT chain, name FROM merged_sources ORDER BY events, name DESC"))
    segments: dict[int, tuple[Segment, ...]] = {}
    asked = "SELECT chain, after, upto, seq_offset, first_call, call_offset FROM merged_segments ORDER BY chain, after"
    for chain, *numbers in db.execute(asked):
        segments[chain] = (*segments.get(chain, ()), Segment(*numbers))
    return {
        number: Chain(number, ledger, names.get(number, f"chain {number}"), events, head, segments[number])
        for number, ledger, events, head in db.execute(
            "SELECT number, ledger, events, head FROM merged_chains ORDER BY number"
        )
    }


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


# -- is it what its sources were? --------------------------------------------------------------------------------------

Homes = dict[tuple[str, str], int]


def merged_contents(db: sqlite3.Connection, anchor: str | None) -> Iterator[Finding]:
    """What does not hold; the numbers are those of the file's events, the words have those of the chain."""
    if wrong := changed_tables(db):
        yield Finding(0, f"the tables of the merge are not as made: {', '.join(wrong)}")
        return
    try:
        found = chains(db)
    except (KeyError, ValueError, TypeError) as error:
        yield Finding(0, f"merged_chains names a chain without segments: {error}")
        return
    yield from _numbers(db, found)
    homes: Homes = {(kind, name): chain for kind, name, chain in db.execute("SELECT * FROM merged_homes")}
    yield from _homes(db, found, homes)
    named: dict[str, int] = {}
    erased: set[str] = set()
    ends: dict[str, dict[int, int]] = {}  # by run, the number of its last event in each chain
    first: dict[str, int] = {}  # by candidate, the first chain that has it
    anchored = anchor is None
    for chain in found.values():
        last: dict[str, int] = {}
        replayed = replay(_noting(chain_events(db, chain), last), anchor)
        anchored = anchored or replayed.anchored
        findings = list(_chain(db, chain, replayed, homes, first, last))
        for finding in findings:
            yield Finding(chain.seq_here(finding.seq), f"{chain.name}: {finding.what}")
        for run_id, seq in last.items():
            ends.setdefault(run_id, {})[chain.number] = seq
        named = {digest: chain.seq_here(seq) for digest, seq in replayed.folded.texts.items()} | named
        erased |= replayed.folded.erased
    if not anchored:
        yield Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")
    yield from _run_homes(found, homes, ends, first)
    yield from compare_texts(stored_texts(db), named, erased, 0)


def chain_events(db: sqlite3.Connection, chain: Chain) -> Iterator[dict[str, Any]]:
    """The events of one chain in order, with the numbers that they have there."""
    for part in chain.segments:
        for values in db.execute(
            f"SELECT {', '.join(EVENT)} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq",
            (part.after + part.seq_offset, part.upto + part.seq_offset),
        ):
            event = dict(zip(EVENT, values, strict=True))
            event["seq"] -= part.seq_offset
            yield event


def _noting(events: Iterator[dict[str, Any]], last: dict[str, int]) -> Iterator[dict[str, Any]]:
    for event in events:
        if event["run_id"]:
            last[event["run_id"]] = event["seq"]
        yield event


def _numbers(db: sqlite3.Connection, found: Mapping[int, Chain]) -> Iterator[Finding]:
    """The events are those of the chains and no others, and each source ends where it says."""
    end = 0
    for chain in found.values():
        own = chain.segments[-1]
        if own.after + own.seq_offset != end:
            yield Finding(end + 1, f"{chain.name}: its events do not begin behind those of the chain before it")
        end = own.upto + own.seq_offset
    last = db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0]
    head = db.execute("SELECT seq FROM head").fetchall()
    if last != end or head != [(end,)]:
        yield Finding(0, f"the chains have {end} events, the file {last}, its head names {head}")
    hash_of = "SELECT hash FROM events WHERE seq = ?"
    for name, number, events, hash_ in db.execute("SELECT name, chain, events, head FROM merged_sources"):
        seq = found[number].seq_here(events) if number in found else 0
        if db.execute(hash_of, (seq,)).fetchone() != (hash_,):
            yield Finding(seq, f"{name}: event {events} is not the head that was noted of this source")
    for chain in found.values():
        ends = (chain.ledger, 1), (chain.head, chain.events)
        if any(db.execute(hash_of, (chain.seq_here(seq),)).fetchone() != (hash_,) for hash_, seq in ends):
            yield Finding(0, f"{chain.name}: its first or last event is not the one that was noted")


def _homes(db: sqlite3.Connection, found: Mapping[int, Chain], homes: Homes) -> Iterator[Finding]:
    """Every row belongs to a chain that there is; else it would be compared with nothing."""
    for (kind, name), number in homes.items():
        if number not in found:
            yield Finding(0, f"{kind} {name} is of chain {number}, which is not there")
    for table, (kind, column) in HOME.items():
        known = "SELECT name FROM merged_homes WHERE kind = ?"
        for (name,) in db.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN ({known})", (kind,)):
            yield Finding(0, f"no chain has the {kind} of rows of {table}: {name}")
    for (count,) in db.execute("SELECT COUNT(*) FROM owner HAVING COUNT(*) > 0"):
        yield Finding(0, f"no event tells of a row of owner: {count}")


def _chain(
    db: sqlite3.Connection, chain: Chain, replayed: Replayed, homes: Homes, first: dict[str, int], last: dict[str, int]
) -> Iterator[Finding]:
    if replayed.broken or (replayed.seq, replayed.head) != (chain.events, chain.head):
        yield replayed.broken or Finding(replayed.seq, f"the chain ends at event {replayed.seq}, not at its head")
        return
    folded = replayed.folded
    for place, row in folded.rows.items():
        if place[0] == "candidates":
            first.setdefault(place[1], chain.number)
        elif place[0] in ("runs", "proposals", "trials", "outcomes", "calls"):
            last.setdefault(_name(place, row), 0)
    elsewhere = [place for place, row in folded.rows.items() if homes.get(_home(place, row)) != chain.number]
    for place in elsewhere:
        del folded.rows[place]
    for table in HOME:
        yield from compare(table, own_rows(db, table, chain), folded.rows, folded, replayed.seq, defaults(db, table))
    yield from left_over(folded.rows, folded)


def _home(place: Place, row: Mapping[str, Any]) -> tuple[str, str]:
    kind = HOME.get(place[0], ("owner", ""))[0]
    return kind, _name(place, row)


def _name(place: Place, row: Mapping[str, Any]) -> str:
    return str(row["run_id"] if place[0] == "calls" else place[1])


def _run_homes(
    found: Mapping[int, Chain], homes: Homes, ends: Mapping[str, Mapping[int, int]], first: Mapping[str, int]
) -> Iterator[Finding]:
    """A run is of a chain that has all that any chain has of it, a candidate of the first that has it."""
    for name, number in first.items():
        if homes.get(("candidate", name)) != number:
            yield Finding(0, f"{found[number].name}: candidate {name} is not here as this chain has it")
    for run_id, seqs in ends.items():
        home = found.get(homes.get(("run", run_id), 0))
        for number, seq in seqs.items():
            if home is None or home.number not in seqs or seq > found[number].shared(home):
                here = found[number]
                yield Finding(here.seq_here(seq), f"{here.name}: the run {run_id} is not here as this chain has it")
