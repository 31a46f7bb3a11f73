"""Takes whole chains out of ledgers into one file that is only read: a merged ledger (`optimize ledger merge`), or a
bundle that checks itself (`optimize audit export`). What such a file holds is in `verify.py`.

A copy adds nothing to the ledger that it is a copy of; one that went on by itself adds what came after. A run that
is in several sources is taken from the one that has most of it, and refused where each has something that the other
has not. Rows go from file to file inside SQLite: what is held in memory is one source, while it is verified. The same
sources give the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from agent.errors import InputError, LedgerError
from agent.ledger import chain
from agent.ledger import verify as checks
from agent.ledger.anchors import head_of, unchecked
from agent.ledger.chain import belonging, expected_objects, replay, texts_in
from agent.ledger.connect import address_to_read, create, is_there, owner_of
from agent.ledger.files import break_seal, is_held, log_path, set_seal
from agent.ledger.verify import ALIAS_MOVED, CHAINS, LEDGER, OWNER_OF, is_merged, verify
from agent.safe_file import new_file

CACHE_KIB = 128_000
README = """A bundle of a ledger: what was asked, answered, scored and decided, in the order in which it happened.

    python THIS.zip                   checks this zip as it is; a folder where it was unpacked is checked likewise
    ... --anchor HASH                 also asks whether a head that was noted elsewhere is in the chain

It needs nothing but Python 3.11 or later. It ends with 0 and "whole: ...", with the run that the bundle is of and how
much it holds of it, or names the first event that does not hold.

ledger.db        an SQLite file. `events` is the whole chain: `body` is the text that `hash` covers, together with the
                 hash before it; the other tables are what the events add up to{part}; `blobs` are prompts, requests and
                 replies by their SHA-256. A text that was erased is not here, and an event says who erased it and why
agent/ledger/    the two files that check it, as the program has them

Who rewrites all of it can also rewrite the hashes: a head that was noted elsewhere shows that too. Releases and reports
hold one, `optimize audit anchor` prints one.
"""
MAIN = """import sys
from pathlib import Path

from agent.ledger.verify import main

sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
"""


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
        LedgerError: one is in use or not whole, or a run is in two of them in two ways; all of it at once.
    """
    output = Path(output)
    parts, sourced = plan(verified(_distinct([Path(path) for path in paths], output, force)))
    with _new_ledger(output) as new:
        write_container(new, parts)
        with closing(sqlite3.connect(new)) as db:
            ask = "SELECT (SELECT seq FROM head), (SELECT COUNT(*) FROM runs), (SELECT COUNT(*) FROM calls)"
            events, runs, calls = db.execute(ask).fetchone()
    named = tuple((source.name, part.number, source.events, source.head) for source, part in sourced)
    return Merged(output, len(parts), events, runs, calls, named)


def _distinct(paths: Sequence[Path], output: Path, force: bool) -> dict[Path, str]:
    """The files with the names that they get: as much of their paths as tells them apart."""
    files = dict.fromkeys(Path(os.path.realpath(path)) for path in paths)
    if missing := [str(path) for path in paths if not is_there(path)]:
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


@dataclass(frozen=True, slots=True)
class Source:
    """A ledger as it is at one moment: `runs` says how many events it has of each run, with number and hash of the
    last."""

    path: Path
    name: str
    ledger: str
    began: str
    events: int
    head: str
    last_call: int
    runs: dict[str, tuple[int, int, str]]

    @staticmethod
    def of(db: sqlite3.Connection, path: Path, name: str) -> Source:
        events, head = head_of(db)
        if not events:
            raise LedgerError(f"{path}: an empty ledger; leave it out")
        began, ledger = db.execute("SELECT utc, hash FROM events WHERE seq = 1").fetchone()
        (last_call,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM calls").fetchone()
        last = "SELECT run_id, COUNT(*), MAX(seq) FROM events WHERE run_id <> '' AND kind <> ? GROUP BY run_id"
        runs = {
            run_id: (count, seq, str(db.execute(HASH_OF, (seq,)).fetchone()[0]))
            for run_id, count, seq in db.execute(last, (ALIAS_MOVED,)).fetchall()
        }
        return Source(path, name, ledger, began, events, head, int(last_call), runs)


@dataclass(slots=True)
class ChainPart:
    """A chain that the container will have, and what is taken from its source: the events after `shared`, and what
    belongs to `runs`."""

    number: int
    source: Source
    parent: int = 0
    shared: int = 0
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
    return sorted(found, key=lambda each: (each.began, each.ledger, -each.events, each.head, each.name))


def _source(path: Path, name: str) -> Source:
    if is_held(path):
        raise LedgerError(f"{path}: in use by {owner_of(path)}; wait for it, or merge a copy")
    with unchecked(path) as db:
        if findings := verify(db):
            raise LedgerError(f"{path}: not whole: {findings[0]}; `optimize audit verify --db {path}` lists all")
        if is_merged(db):
            raise LedgerError(f"{path}: a merged ledger; name the ledgers that it was made of")
        return Source.of(db, path, name)


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
                if db.execute(HASH_OF, (seq,)).fetchone() != (digest,):
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


def write_container(new: Path, parts: Sequence[ChainPart], only: str = "") -> None:
    """Write the chains into an empty file; with `only`, no rows and texts but those of this run."""
    indexes = {name: sql for (kind, name), (_, sql) in expected_objects().items() if kind == "index" and sql}
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        create(db)
        for sql in (*(f"DROP INDEX {name}" for name in indexes), CHAINS):
            db.execute(sql)
    erased: set[str] = set()
    for part in parts:
        with _beside(part.source, new) as db:
            erased |= _erased(db)
    last_seq = last_call = 0
    for part in parts:
        source = part.source
        with _beside(source, new) as db:
            _copy(db, part, last_seq - part.shared, last_call, only)
            texts = _texts_of(db, only) if only else None
            where = "NOT IN" if texts is None else "IN"
            db.execute(
                "INSERT OR IGNORE INTO team.blobs SELECT hash, body FROM main.blobs "
                f"WHERE hash {where} (SELECT value FROM json_each(?)) ORDER BY hash",
                (json.dumps(sorted(erased if texts is None else texts)),),
            )
        last_seq, last_call = last_seq + source.events - part.shared, last_call + source.last_call
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _tune(db, "main")
        db.execute("BEGIN")
        for sql in indexes.values():
            db.execute(sql)
        db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (last_seq, parts[-1].source.head))
        db.execute("COMMIT")


def _tune(db: sqlite3.Connection, name: str) -> None:
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        db.execute(f"PRAGMA {name}.{setting}").fetchone()


@contextmanager
def _beside(source: Source, new: Path) -> Iterator[sqlite3.Connection]:
    """The source to read, as it was when it was looked at, and the new file as `team` to write."""
    with closing(sqlite3.connect(address_to_read(source.path), uri=True, isolation_level=None)) as db:
        db.execute("ATTACH ? AS team", (str(new),))
        _tune(db, "team")
        db.execute("BEGIN")
        if head_of(db) != (source.events, source.head):
            raise LedgerError(f"{source.path}: was written to meanwhile; give the command again")
        yield db
        db.execute("COMMIT")


def _erased(db: sqlite3.Connection) -> set[str]:
    """Texts that were taken out of a source: another may hold them still, and the container does not."""
    said = "SELECT DISTINCT e.value FROM events, json_each(body, '$.erased') e WHERE kind = 'texts_erased'"
    return {digest for (digest,) in db.execute(f"{said} AND e.value NOT IN (SELECT hash FROM main.blobs)")}


def _texts_of(db: sqlite3.Connection, run_id: str) -> set[str]:
    folded = replay(checks.events(db)).folded
    return texts_in(folded, belonging(folded, {run_id}, with_answers=True), run_id)


def _copy(db: sqlite3.Connection, part: ChainPart, seq_offset: int, call_offset: int, only: str) -> None:
    source = part.source
    row = (part.number, source.name, source.ledger, source.events, source.head, part.parent, part.shared)
    db.execute(
        "INSERT INTO team.merged_chains VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, seq_offset, call_offset, only)
    )
    db.execute(
        "INSERT INTO team.events SELECT seq + ?, run_id, utc, kind, body, prev_hash, hash FROM main.events "
        "WHERE seq > ? ORDER BY seq",
        (seq_offset, part.shared),
    )
    db.execute("CREATE TEMP TABLE taken (id TEXT PRIMARY KEY)")
    db.executemany("INSERT INTO temp.taken VALUES (?)", ((run_id,) for run_id in ([only] if only else part.runs)))
    taken = "IN (SELECT id FROM temp.taken)"
    tried = " UNION ".join(
        f"SELECT candidate_id FROM main.{table} WHERE run_id {taken}" for table in ("proposals", "trials")
    )
    for table, column in OWNER_OF.items():
        where = f"{column} {taken}"
        if table in ("demos", "candidates"):  # in this order: those of the chains before are known by their candidates
            where = f"{column} IN ({tried}) AND {column} NOT IN (SELECT id FROM team.candidates)"
        elif table == "calls" and only:
            where += f" OR (state = 'ok' AND call_key IN (SELECT call_key FROM main.calls WHERE run_id {taken}))"
        names = [name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})")]
        found = [f"id + {call_offset}" if (table, name) == ("calls", "id") else name for name in names]
        db.execute(
            f"INSERT INTO team.{table} ({', '.join(names)}) SELECT {', '.join(found)} FROM main.{table} "
            f"WHERE {where} ORDER BY rowid"
        )


# -- exports ----------------------------------------------------------------------------------------------------------


def write_jsonl(db: sqlite3.Connection, path: Path, force: bool) -> int:
    """Every event as one JSON object a line, its body parsed. Returns how many. Raises InputError if it exists."""
    seq = 0
    with new_export(path, force) as file:
        for event in checks.events(db):
            seq = event["seq"]
            line = json.dumps({**event, "body": json.loads(event["body"])})  # in ASCII: nothing can break the line
            file.write(f"{line}\n".encode())
    return seq


def write_bundle(db: sqlite3.Connection, output: Path, force: bool, run_id: str = "") -> tuple[int, int, str]:
    """The self-verifying zip; with `run_id` the whole chain, but only this run's rows and texts. Returns the number of
    its events and texts, and the head. Raises InputError if the file exists."""
    near = output.parent if output.is_file() or not output.exists() else None  # not next to a device
    with new_export(output, force) as file, tempfile.TemporaryDirectory(prefix=".new-", dir=near) as folder:
        copy, new = Path(folder) / "copy.db", Path(folder) / LEDGER
        with closing(sqlite3.connect(copy)) as snapshot:
            db.backup(snapshot)
        with unchecked(copy) as snapshot:
            source = Source.of(snapshot, copy, "")
        write_container(new, [ChainPart(1, source, runs=[*source.runs])], run_id)
        with closing(sqlite3.connect(new)) as made:
            (texts,) = made.execute("SELECT COUNT(*) FROM blobs").fetchone()
        scripts = [Path(str(each.__file__)) for each in (chain, checks)]
        members = {
            "README.txt": README.format(part=f", for the run {run_id} only" if run_id else "").encode(),
            "__main__.py": MAIN.encode(),
            "agent/__init__.py": b"",
            "agent/ledger/__init__.py": b"",
            **{f"agent/ledger/{script.name}": script.read_bytes() for script in scripts},
        }
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in members.items():
                zipped.writestr(_member(name), data)
            with zipped.open(_member(LEDGER), "w", force_zip64=True) as member, new.open("rb") as container:
                shutil.copyfileobj(container, member, 1 << 20)
    return source.events, int(texts), source.head


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # its date is 1980: the bundle says only what the ledger says
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100600 << 16
    return info


@contextmanager
def new_export(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file for its owner only, made whole or not at all. Raises InputError when it is there or cannot be made."""
    if not force and (path.exists() or path.is_symlink()):
        raise InputError(f"{path}: is there already; choose another name, or add --force")
    try:
        with new_file(path, private=True) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place with -o") from error
