"""What merged ledgers are made of: which sources there are, whether they are whole, which chains they come to, and from
which of them each run is taken. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import LedgerError
from agent.ledger.anchors import head_of, unchecked
from agent.ledger.connect import owner_of
from agent.ledger.files import is_held
from agent.ledger.merged import Segment, is_merged
from agent.ledger.verify import verify

HASH_OF = "SELECT hash FROM events WHERE seq = ?"
Ends = dict[str, tuple[int, int, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """A ledger that was found whole: `key` its place in the order, `runs` how many events it has of each run, with
    number and hash of the last."""

    path: Path
    name: str
    ledger: str
    began: str
    events: int
    head: str
    last_call: int
    runs: Ends

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        return self.began, self.ledger, -self.events, self.head, self.name


@dataclass(slots=True)
class ChainPart:
    """A chain that the merged ledger will have, and what is taken from its source: the events after `shared`."""

    number: int
    source: Source
    parent: int = 0
    shared: int = 0
    segments: tuple[Segment, ...] = ()
    runs: list[str] = field(default_factory=list)


def verified(files: Mapping[Path, str]) -> list[Source]:
    found, faults = [], []
    for path, name in files.items():
        try:
            found.append(_source(path, name))
        except LedgerError as error:
            faults.append(str(error))
    if faults:
        raise LedgerError("\n".join([*faults, "nothing was merged"]))
    return sorted(found, key=lambda source: source.key)


def _source(path: Path, name: str) -> Source:
    if is_held(path):
        raise LedgerError(f"{path}: in use by {owner_of(path)}; wait for it, or merge a copy")
    with unchecked(path) as db:
        if findings := verify(db):
            raise LedgerError(f"{path}: not whole: {findings[0]}; `optimize audit verify --db {path}` lists all")
        if is_merged(db):
            raise LedgerError(f"{path}: a merged ledger; name the ledgers that it was made of")
        events, head = head_of(db)
        if not events:
            raise LedgerError(f"{path}: an empty ledger; leave it out")
        began = db.execute("SELECT utc, hash FROM events WHERE seq = 1").fetchone()
        (last_call,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM calls").fetchone()
        last = "SELECT run_id, COUNT(*), MAX(seq) FROM events WHERE run_id <> '' GROUP BY run_id"
        runs: Ends = {
            run_id: (count, seq, db.execute(HASH_OF, (seq,)).fetchone()[0])
            for run_id, count, seq in db.execute(last).fetchall()
        }
        for (run_id,) in db.execute("SELECT id FROM runs"):  # of a ledger of the first version, no event has the run
            runs.setdefault(run_id, (0, 0, ""))
        return Source(path, name, began[1], began[0], events, head, int(last_call), runs)


def plan(sources: Sequence[Source]) -> tuple[list[ChainPart], list[tuple[Source, ChainPart]]]:
    """The chains, and for each source the chain that has it: its own, or that of a ledger that went on from it."""
    parts: list[ChainPart] = []
    sourced = []
    for source in sources:
        shared, parent = 0, None
        for part in parts:
            if part.source.ledger == source.ledger and (common := _common(part.source, source)) > shared:
                shared, parent = common, part
        if parent is None or shared < source.events:
            parts.append(ChainPart(len(parts) + 1, source, parent.number if parent else 0, shared))
            parent = parts[-1]
        sourced.append((source, parent))
    _give_homes(parts, sources)
    return parts, sourced


def _common(one: Source, other: Source) -> int:
    """How many events two copies of one ledger have in common: a hash is that of all events up to its own."""
    low, high = 1, min(one.events, other.events)
    with unchecked(one.path) as left, unchecked(other.path) as right:
        while low < high:
            middle = (low + high + 1) // 2
            hashes = {db.execute(HASH_OF, (middle,)).fetchone() for db in (left, right)}
            low, high = (middle, high) if len(hashes) == 1 else (low, middle - 1)
    return low


def _give_homes(parts: Sequence[ChainPart], sources: Sequence[Source]) -> None:
    """Each run to the chain that has most of it. Raises LedgerError where another has something else of it."""
    faults = []
    for run_id in dict.fromkeys(run_id for source in sources for run_id in source.runs):
        having = [(part.source.runs[run_id], part) for part in parts if run_id in part.source.runs]
        _, home = max(having, key=lambda each: (each[0][0], -each[1].number))
        home.runs.append(run_id)
        with unchecked(home.source.path) as db:
            for (_, seq, digest), part in having:
                found = db.execute(HASH_OF, (seq,)).fetchone()
                if seq and found != (digest,):
                    faults.append(
                        f"{part.source.path}: the run {run_id} is another one than in {home.source.path}, from its "
                        f"event {seq} at the latest; merge one of the two"
                    )
    if faults:
        raise LedgerError("\n".join([*faults, "nothing was merged"]))
