"""Is a merged ledger what its sources were? Each chain is followed on its own, and each row compared with the events of
the chain that it is from. Reads only; holds the rows of one chain in memory at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from agent.ledger.merged import HOME, Chain, chains, changed_tables, own_rows
from agent.ledger.schema import Finding, sha256
from agent.ledger.verify import EVENT, Replayed, compare, defaults, left_over, replay

Homes = dict[tuple[str, str], int]


def merged_contents(db: sqlite3.Connection, anchor: str | None) -> Iterator[Finding]:
    """What does not hold; the numbers are those of the file's events, the words have those of the chain."""
    if wrong := changed_tables(db):
        yield Finding(0, f"the tables of the merge are not as made: {', '.join(wrong)}")
        return
    try:
        found = chains(db)
    except (KeyError, ValueError, TypeError) as error:
        yield Finding(0, f"merged_chains goes on from a chain that is not there: {error}")
        return
    yield from _numbers(db, found)
    homes: Homes = {(kind, name): chain for kind, name, chain in db.execute("SELECT * FROM merged_homes")}
    yield from _homes(db, found, homes)
    db.execute("CREATE TEMP TABLE named (hash TEXT PRIMARY KEY, seq INTEGER)")
    db.execute("CREATE TEMP TABLE erased (hash TEXT PRIMARY KEY)")
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
        texts = ((digest, chain.seq_here(seq)) for digest, seq in replayed.folded.texts.items())
        db.executemany("INSERT OR IGNORE INTO temp.named VALUES (?, ?)", texts)
        db.executemany("INSERT OR IGNORE INTO temp.erased VALUES (?)", ((each,) for each in replayed.folded.erased))
    if not anchored:
        yield Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")
    yield from _run_homes(found, homes, ends, first)
    yield from _texts(db)


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
        yield from compare(table, own_rows(db, table, chain), defaults(db, table), folded, replayed.seq)
    yield from left_over(folded)


def _home(place: tuple[Any, ...], row: Mapping[str, Any]) -> tuple[str, str]:
    """The key in `merged_homes` of the row at a place."""
    kind = HOME.get(place[0], ("owner", ""))[0]
    return kind, _name(place, row)


def _name(place: tuple[Any, ...], row: Mapping[str, Any]) -> str:
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


def _texts(db: sqlite3.Connection) -> Iterator[Finding]:
    for digest, body, seq, erased in db.execute(
        "SELECT b.hash, b.body, n.seq, e.hash FROM blobs b LEFT JOIN temp.named n ON n.hash = b.hash "
        "LEFT JOIN temp.erased e ON e.hash = b.hash"
    ):
        if not isinstance(body, str) or sha256(body) != digest:
            yield Finding(seq or 0, f"a text is not what its hash says: {digest}")
        elif erased:
            yield Finding(seq or 0, f"a text that was erased is back: {digest}")
        elif seq is None:
            yield Finding(0, f"no event tells of a text: {digest}")
    for digest, seq in db.execute(
        "SELECT hash, seq FROM temp.named WHERE hash NOT IN (SELECT hash FROM blobs) "
        "AND hash NOT IN (SELECT hash FROM temp.erased)"
    ):
        yield Finding(seq, f"a text is missing: {digest}")
