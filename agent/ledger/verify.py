"""Detect damage and tampering in a ledger, naming the first event that no longer holds. Reads only.

Tamper-evident, not tamper-proof: who rewrites the whole file can rewrite the chain. A head hash noted elsewhere (in
every release and report, or from `optimize audit anchor`) reveals that too.

A ledger has one chain. A container has the chains of several ledgers in the same tables and is read-only: a merged
ledger, or the content of a bundle. A continued copy of a ledger shares its first events with the original; they are
stored once. Each chain numbers its events and calls from 1; in the file both are numbered consecutively. `main` checks
the bundle that contains a copy of this file.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent.ledger.chain import AUDITED, EVENT, OWNER_OF, Finding, Folded, Row, sha256, structure

CHAINS = (
    "CREATE TABLE merged_chains (number INTEGER PRIMARY KEY, name TEXT NOT NULL, ledger TEXT NOT NULL, events INTEGER "
    "NOT NULL, head TEXT NOT NULL, parent INTEGER NOT NULL, shared INTEGER NOT NULL, seq_offset INTEGER NOT NULL, "
    "call_offset INTEGER NOT NULL, only TEXT NOT NULL)"
)
ALIAS_MOVED = "alias_moved"
"""Kind of the event about an alias: every ledger of a folder has it, also for other ledgers' runs."""
LEDGER = "ledger.db"  # the container in a bundle
FIRST, LAST = -(2**63), 2**62  # below and above any event number, also of events added by hand


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain: its source's `name` ("" in a writable ledger), and `ledger`, the hash of its first event.

    Its first `shared` events are those of `parent`; later events and its calls are numbered higher in the file by an
    offset. `only`: the run whose rows and texts are included; "": all.
    """

    number: int
    name: str
    ledger: str
    events: int
    head: str
    parent: Chain | None = None
    shared: int = 0
    seq_offset: int = 0
    call_offset: int = 0
    only: str = ""

    @property
    def start(self) -> int:
        """The number in the file before its first event that is not shared."""
        return self.shared + self.seq_offset

    def seq_here(self, seq: int) -> int:
        """Return the number of an event in the file."""
        return self.parent.seq_here(seq) if self.parent and seq <= self.shared else seq + self.seq_offset

    def shared_with(self, other: Chain) -> int:
        """Return how many events of an earlier chain this one contains."""
        if self.number == other.number:
            return self.events
        return min(self.shared, self.parent.shared_with(other)) if self.parent else 0

    def here(self, finding: Finding) -> Finding:
        """Return a finding with its event's number in the file."""
        return Finding(self.seq_here(finding.seq), f"{self.name}: {finding.what}") if self.name else finding


def is_merged(db: sqlite3.Connection) -> bool:
    """Return whether the file claims to be a container; its schema is checked by `structure`."""
    found = db.execute("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'merged_chains'")
    return found.fetchone() is not None


def chains(db: sqlite3.Connection) -> dict[int, Chain]:
    """Return all chains of a ledger by number, parents first."""
    found: dict[int, Chain] = {}
    if not is_merged(db):
        (events, head), *more = [tuple(row) for row in db.execute("SELECT seq, hash FROM head")] or [(-1, "")]
        first = db.execute("SELECT hash FROM events WHERE seq = 1").fetchone()
        return {1: Chain(1, "", first[0] if first else "", -1 if more else events, head)}
    for number, name, ledger, events, head, parent, *rest in db.execute("SELECT * FROM merged_chains ORDER BY number"):
        found[number] = Chain(number, name, ledger, events, head, found.get(parent), *rest)
    return found


def home_of(db: sqlite3.Connection, run_id: str) -> Chain:
    """Return the chain that has the rows of a run."""
    last = "SELECT COALESCE(MAX(seq), 1) FROM events WHERE run_id = ? AND kind <> ?"
    first, *more = chains(db).values()
    if not more:  # the query below reads every event
        return first
    (seq,) = db.execute(last, (run_id, ALIAS_MOVED)).fetchone()
    return next((chain for chain in reversed(more) if seq > chain.start), first)


def events(db: sqlite3.Connection, after: int = FIRST, upto: int = LAST) -> Iterator[Row]:
    """Yield events numbered above `after` up to `upto`; `body` is the exact text."""
    asked = f"SELECT {', '.join(EVENT)} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq"
    for values in db.execute(asked, (after, upto)):
        yield dict(zip(EVENT, values, strict=True))


def chain_events(db: sqlite3.Connection, chain: Chain, upto: int) -> Iterator[Row]:
    """Yield the events of one chain up to number `upto`, numbered as in that chain."""
    if chain.parent:
        yield from chain_events(db, chain.parent, min(upto, chain.shared))
    for event in events(db, chain.start or FIRST, upto + chain.seq_offset):
        event["seq"] -= chain.seq_offset
        yield event


# -- verification -----------------------------------------------------------------------------------------------------


def verify(db: sqlite3.Connection, anchor: str | None = None) -> list[Finding]:
    """Return violations in order of seq, those of the whole file last. `anchor`: a hash recorded elsewhere."""
    collects = gc.isenabled()
    gc.disable()  # many small live objects: garbage collection would take a third of the time
    try:
        db.execute("BEGIN")
        if not (found := structure(db)):
            damage = [line for (line,) in db.execute("PRAGMA integrity_check(3)") if line != "ok"]
            found = [Finding(0, f"the file is damaged: {' '.join(line.split())}") for line in damage]
            found += _contents(db, anchor)
    except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
        found = [Finding(0, f"the file is damaged: {error}")]
    finally:
        if db.in_transaction:
            db.rollback()
        if collects:
            gc.enable()
    return sorted(found, key=lambda finding: (finding.seq == 0, finding.seq))


def _contents(db: sqlite3.Connection, anchor: str | None) -> Iterator[Finding]:
    (made,) = db.execute("SELECT MAX(sql) FROM main.sqlite_master WHERE name = 'merged_chains'").fetchone()
    if made not in (None, CHAINS):
        yield Finding(0, "the tables of the merge are not as made: merged_chains")
        return
    merged, found = made is not None, chains(db)
    if merged and (wrong := _numbering(db, found)):
        yield Finding(0, wrong)
        return
    ends = _ends(db, found) if merged else {}
    named: dict[str, int] = {}
    erased: set[str] = set()
    candidates: set[str] = set()  # of earlier chains
    anchored, seq = anchor is None, 0
    for chain in found.values():
        folded = Folded.of(chain_events(db, chain, chain.events if merged else LAST), anchor)
        seq, broken = folded.seq, folded.broken
        if broken is None and (seq, folded.head) != (chain.events, chain.head):
            broken = Finding(seq + 1, f"the chain ends at event {seq}, which is not the recorded head")
        if broken is not None:
            yield chain.here(broken)
            return
        anchored = anchored or folded.anchored
        said, texts, mine = folded.rows, folded.texts, set[str]()
        if merged:
            if chain.only and ("runs", chain.only) not in folded.rows:
                yield Finding(0, f"no event starts the bundle's run: {chain.only}")
            runs = {chain.only} if chain.only else {run for run, last in ends.items() if max(last) == chain.number}
            places = folded.belonging(runs, bool(chain.only))
            places = {p for p in places if p[0] not in ("candidates", "examples") or p[1] not in candidates}
            said = {place: folded.rows[place] for place in places}
            if chain.only:
                texts = {digest: texts[digest] for digest in folded.texts_in(places, chain.only)}
            mine = {place[1] for place in places if place[0] == "candidates"}
            candidates |= mine
            mine |= runs
        tables = ((table, _rows(db, table, chain, mine if len(found) > 1 else None)) for table in AUDITED)
        for finding in folded.compare(tables, said):
            yield chain.here(finding)
        named = {digest: chain.seq_here(seq) for digest, seq in texts.items()} | named
        erased |= folded.erased
    if not anchored:
        yield Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")
    if merged:
        yield from _homeless(db, found, ends, candidates)
    yield from _texts(db, named, erased, 0 if merged else seq + 1)


def _rows(db: sqlite3.Connection, table: str, chain: Chain, owners: set[str] | None) -> Iterator[Row]:
    where = f"WHERE ? OR {OWNER_OF[table]} IN (SELECT value FROM json_each(?))"
    cursor = db.execute(f"SELECT * FROM {table} {where}", (owners is None, json.dumps(sorted(owners or ()))))
    names = [name for name, *_ in cursor.description]
    for each in cursor:
        row = dict(zip(names, each, strict=True))
        if chain.call_offset and table == "calls":
            row["id"] -= chain.call_offset
        yield row


def _texts(
    db: sqlite3.Connection, named: Mapping[str, int], erased: Collection[str], unnamed: int
) -> Iterator[Finding]:
    there = set()
    for digest, body in db.execute("SELECT hash, body FROM blobs"):
        there.add(digest)
        seq = named.get(digest, unnamed)
        if not isinstance(body, str) or sha256(body) != digest:
            yield Finding(seq, f"a text does not match its hash: {digest}")
        elif digest in erased:
            yield Finding(seq, f"an erased text is back: {digest}")
        elif digest not in named:
            yield Finding(seq, f"no event names a text: {digest}")
    for digest, seq in named.items():
        if digest not in there and digest not in erased:
            yield Finding(seq, f"a text is missing: {digest}")


def _numbering(db: sqlite3.Connection, found: Mapping[int, Chain]) -> str:
    end, head = 0, ""
    for number, (parent,) in zip(found, db.execute("SELECT parent FROM merged_chains ORDER BY number"), strict=True):
        chain = found[number]
        if chain.start != end or bool(parent) != bool(chain.parent) or chain.shared > chain.events:
            return f"{chain.name}: its events do not follow those of the previous chain"
        if not 0 <= chain.shared <= (chain.parent.events if chain.parent else 0):
            return f"{chain.name}: shares more events than its parent chain has"
        of_first = "SELECT COUNT(*) FROM events WHERE seq = ? AND hash = ?"
        if not db.execute(of_first, (chain.seq_here(1), chain.ledger)).fetchone()[0]:
            return f"{chain.name}: its first event is not the recorded one"
        end, head = chain.events + chain.seq_offset, chain.head
    (last,) = db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()
    noted = [tuple(row) for row in db.execute("SELECT seq, hash FROM head")]
    whole = last == end and noted == [(end, head)]
    return "" if whole else f"the chains have {end} events, the file {last}, its head is {noted}"


def _ends(db: sqlite3.Connection, found: Mapping[int, Chain]) -> dict[str, dict[int, int]]:
    own = "seq > ? AND seq <= ? AND run_id <> '' AND kind <> ?"
    last = f"SELECT run_id, MAX(seq) FROM events WHERE {own} GROUP BY run_id"
    ends: dict[str, dict[int, int]] = {}
    for chain in found.values():
        for run_id, seq in db.execute(last, (chain.start, chain.events + chain.seq_offset, ALIAS_MOVED)):
            ends.setdefault(run_id, {})[chain.number] = seq - chain.seq_offset
    return ends


def _homeless(
    db: sqlite3.Connection, found: Mapping[int, Chain], ends: Mapping[str, Mapping[int, int]], candidates: set[str]
) -> Iterator[Finding]:
    for run_id, last in ends.items():
        home = found[max(last)]
        for chain in (found[number] for number, seq in last.items() if seq > home.shared_with(found[number])):
            yield Finding(
                chain.seq_here(last[chain.number]), f"{chain.name}: has another run {run_id} than {home.name}"
            )
    known = json.dumps(sorted(candidates | set(ends)))
    for table, column in OWNER_OF.items():
        asked = f"SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN (SELECT value FROM json_each(?))"
        for (name,) in db.execute(asked, (known,)):
            yield Finding(0, f"no chain has the rows of {table} of {name}")


# -- a bundle ----------------------------------------------------------------------------------------------------------


def verdict(db: sqlite3.Connection) -> str:
    """Summarize the content of a bundle in one line."""
    counts = {table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in (*OWNER_OF, "blobs")}
    counts["texts"] = counts.pop("blobs")
    chain = chains(db)[1]
    holds = ", ".join(f"{what} {count}" for what, count in counts.items())
    whose = f"the run {chain.only}" if chain.only else "all runs"
    return f"whole: {chain.events} events, head {chain.head}; of {whose}: {holds}"


def main(words: list[str], place: Path) -> int:
    """Verify a bundle, the one at `place` by default: zip file or unpacked folder."""
    anchor = None
    if "--anchor" in words:
        at = words.index("--anchor")
        anchor, words = "".join(words[at + 1 : at + 2]), words[:at] + words[at + 2 :]
    place = Path(words[0]) if words else place
    try:
        data = (place / LEDGER).read_bytes() if place.is_dir() else zipfile.ZipFile(place).read(LEDGER)
        with closing(sqlite3.connect(":memory:")) as db:
            db.deserialize(data)
            lines = [f"event {seq}: {what}" for seq, what in verify(db, anchor)]
            whole = not lines
            lines = lines or [verdict(db)]
    except (OSError, ValueError, KeyError, sqlite3.Error, zipfile.BadZipFile) as error:
        whole, lines = False, [f"event 0: not a readable bundle: {error}"]
    for line in lines:  # untrusted text: escape control characters
        print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line))
    return 0 if whole else 1
