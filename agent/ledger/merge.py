"""Merges ledgers into one that is only read: `optimize ledger merge`. Each source is verified whole first; each chain
is kept, event by event, so that it can be proved afterwards (`merged.py`).

A copy adds nothing to the ledger that it is a copy of; one that went on by itself adds what came after. A run that
stands in several sources is taken from the one that has most of it, and refused where each has something that the other
has not. Rows go from file to file inside SQLite: what is held in memory is one source, while it is verified.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger.anchors import head_of, unchecked
from agent.ledger.connect import address_to_read, create, is_there, owner_of
from agent.ledger.files import break_seal, is_held, log_path, set_seal
from agent.ledger.merged import HOME, TABLES, Segment, is_merged
from agent.ledger.schema import expected_objects
from agent.ledger.verify import verify

CALLS_BEGIN = ("call_reserved", "call_cached")
CACHE_KIB = 128_000


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged: `chains` with their `events`, `runs` and `calls`; of each of `sources` its name, the chain that
    has it, its events and its head."""

    path: Path
    chains: int
    events: int
    runs: int
    calls: int
    sources: tuple[tuple[str, int, int, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize ledger merge --json`."""
        names = ("name", "chain", "events", "head")
        return {
            "ledger": str(self.path),
            **{name: getattr(self, name) for name in ("chains", "events", "runs", "calls")},
            "sources": [dict(zip(names, source, strict=True)) for source in self.sources],
        }


def merge_ledgers(paths: Sequence[str | Path], output: str | Path, force: bool = False) -> Merged:
    """Merges ledgers into one that is only read: the same sources give the same bytes, in any order.

    Args:
        paths: the ledgers, two or more.
        output: the file to write, whole or not at all.
        force: write over a merged ledger that is there.

    Raises:
        InputError: fewer than two, one of them is not there, or the output is there or is one of them.
        LedgerError: one is in use or not whole, or a run stands in two of them in two ways; all of it at once.
    """
    output = Path(output)
    parts, sourced = plan(verified(_distinct([Path(path) for path in paths], output, force)))
    with _new_ledger(output) as new:
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            create(db)
            for sql in (*(f"DROP INDEX {name}" for name in _indexes()), *TABLES.values()):
                db.execute(sql)
        erased: set[str] = set()
        for part in parts:
            with _beside(part.source, new) as db:
                erased |= _erased(db)
        last_seq = last_call = 0
        for part in parts:
            with _beside(part.source, new) as db:
                last_seq, last_call = _copy(db, part, parts, erased, last_seq, last_call)
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            counts = _finish(db, sourced, parts, last_seq)
    named = tuple((source.name, part.number, source.events, source.head) for source, part in sourced)
    return Merged(output, len(parts), last_seq, *counts, named)


def _distinct(paths: Sequence[Path], output: Path, force: bool) -> dict[Path, str]:
    """The files with the names that they get: as much of their paths as tells them apart."""
    files = dict.fromkeys(Path(os.path.realpath(path)) for path in paths)
    missing = [str(path) for path in paths if not is_there(path)]
    if missing:
        raise InputError("\n".join(f"{path}: no ledger here" for path in missing))
    if len(paths) < 2:
        raise InputError("name the ledgers to merge, two or more")
    if Path(os.path.realpath(output)) in files:
        raise InputError(f"{output}: is one of the ledgers to merge; choose another name with -o")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file with -o")
    if output.exists() and not force:
        raise InputError(f"{output}: is there already; choose another name, or add --force")
    if output.exists() and not _holds_merged(output):
        raise InputError(f"{output}: is there, and is no merged ledger; choose another name with -o")
    folder = os.path.commonpath([path.parent for path in files])
    return {path: path.relative_to(folder).as_posix() for path in files}


def _holds_merged(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(address_to_read(path), uri=True)) as db:
            return is_merged(db)
    except (sqlite3.Error, LedgerError):
        return False


# -- the plan: which chains there are, and from which of them each run is taken ----------------------------------------

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
                if found != (digest,):
                    faults.append(
                        f"{part.source.path}: the run {run_id} is another one than in {home.source.path}, from its "
                        f"event {seq} at the latest; merge one of the two"
                    )
    if faults:
        raise LedgerError("\n".join([*faults, "nothing was merged"]))


# -- the new file -----------------------------------------------------------------------------------------------------


@contextmanager
def _new_ledger(output: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `output`, sealed and for reading only, when the block ends."""
    target = Path(os.path.realpath(output))
    new = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        yield new
        with new.open("r+b") as file:
            os.fsync(file.fileno())
        new.chmod(0o400)
        break_seal(target)
        log_path(target).unlink(missing_ok=True)
        new.replace(target)
        with target.open("rb") as file:
            set_seal(target, file.fileno(), read_only=True)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{output}: cannot be written ({error}); nothing was merged") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def _beside(source: Source, new: Path) -> Iterator[sqlite3.Connection]:
    """The source to read, as it was verified, and the new file as `team` to write. All of it, or nothing, is kept."""
    with closing(sqlite3.connect(address_to_read(source.path), uri=True, isolation_level=None)) as db:
        db.execute("ATTACH ? AS team", (str(new),))
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            db.execute(f"PRAGMA team.{setting}").fetchone()
        db.execute("BEGIN")
        if head_of(db) != (source.events, source.head):
            raise LedgerError(f"{source.path}: was written to meanwhile; give the command again")
        yield db
        db.execute("COMMIT")


def _erased(db: sqlite3.Connection) -> set[str]:
    """Texts that were taken out of a source: another may hold them still, and the merged ledger does not."""
    said = "SELECT DISTINCT e.value FROM events, json_each(body, '$.erased') e WHERE kind = 'texts_erased'"
    return {digest for (digest,) in db.execute(f"{said} AND e.value NOT IN (SELECT hash FROM main.blobs)")}


def _copy(
    db: sqlite3.Connection,
    part: ChainPart,
    parts: Sequence[ChainPart],
    erased: Iterable[str],
    last_seq: int,
    last_call: int,
) -> tuple[int, int]:
    source = part.source
    begun = db.execute(
        "SELECT json_extract(body, '$.row.id') FROM main.events WHERE seq > ? AND kind IN (?, ?) AND "
        "json_extract(body, '$.insert') = 'calls' ORDER BY seq LIMIT 1",
        (part.shared, *CALLS_BEGIN),
    ).fetchone()
    first_call = int(begun[0]) if begun else source.last_call + 1
    own = Segment(part.shared, source.events, last_seq - part.shared, first_call, last_call - first_call + 1)
    before = [each for each in parts[part.parent - 1].segments if each.after < part.shared] if part.parent else []
    part.segments = (*(replace(each, upto=min(each.upto, part.shared)) for each in before), own)
    db.execute("CREATE TEMP TABLE taken (id TEXT PRIMARY KEY)")
    db.executemany("INSERT INTO temp.taken VALUES (?)", ((run_id,) for run_id in part.runs))
    db.execute("CREATE TEMP TABLE erased (hash TEXT PRIMARY KEY)")
    db.executemany("INSERT INTO temp.erased VALUES (?)", ((digest,) for digest in erased))
    db.execute(
        "INSERT INTO team.merged_chains VALUES (?, ?, ?, ?)", (part.number, source.ledger, source.events, source.head)
    )
    segments = [(part.number, *astuple(segment)) for segment in part.segments]
    db.executemany("INSERT INTO team.merged_segments VALUES (?, ?, ?, ?, ?, ?)", segments)
    homes = "INSERT INTO team.merged_homes SELECT ?, id, ? FROM"
    db.execute(f"{homes} temp.taken ORDER BY id", ("run", part.number))
    db.execute(
        f"{homes} main.candidates WHERE id NOT IN (SELECT id FROM team.candidates) ORDER BY rowid",
        ("candidate", part.number),
    )
    db.execute(
        "INSERT INTO team.events SELECT seq + ?, run_id, utc, kind, body, prev_hash, hash FROM main.events "
        "WHERE seq > ? ORDER BY seq",
        (own.seq_offset, part.shared),
    )
    for table, (kind, column) in HOME.items():
        names = [name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})")]
        values = [_call_number(part.segments) if (table, name) == ("calls", "id") else name for name in names]
        db.execute(
            f"INSERT INTO team.{table} ({', '.join(names)}) SELECT {', '.join(values)} FROM main.{table} "
            f"WHERE {column} IN (SELECT name FROM team.merged_homes WHERE kind = ? AND chain = ?) ORDER BY rowid",
            (kind, part.number),
        )
    db.execute(
        "INSERT OR IGNORE INTO team.blobs SELECT hash, body FROM main.blobs "
        "WHERE hash NOT IN (SELECT hash FROM temp.erased) ORDER BY hash"
    )
    return source.events + own.seq_offset, max(last_call, source.last_call + own.call_offset)


def _call_number(segments: Sequence[Segment]) -> str:
    cases = " ".join(f"WHEN id >= {part.first_call} THEN id + {part.call_offset}" for part in reversed(segments))
    return f"CASE {cases} ELSE id END"


def _finish(
    db: sqlite3.Connection, sourced: Sequence[tuple[Source, ChainPart]], parts: Sequence[ChainPart], last_seq: int
) -> tuple[int, int]:
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        db.execute(f"PRAGMA {setting}").fetchone()
    db.execute("BEGIN")
    for sql in _indexes().values():
        db.execute(sql)
    db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (last_seq, parts[-1].source.head))
    db.executemany(
        "INSERT INTO merged_sources VALUES (?, ?, ?, ?)",
        [(source.name, part.number, source.events, source.head) for source, part in sourced],
    )
    db.execute("COMMIT")
    (runs,), (calls,) = (db.execute(f"SELECT COUNT(*) FROM {table}").fetchone() for table in ("runs", "calls"))
    return int(runs), int(calls)


def _indexes() -> dict[str, str]:
    return {name: sql for (kind, name), (_, sql) in expected_objects().items() if kind == "index" and sql}
