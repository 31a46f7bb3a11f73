"""Several ledgers' chains in one read-only file: a merged ledger, or a bundle that verifies itself.

A copy of a ledger adds nothing to it; a copy that was continued adds its later events. A run found in several sources
is taken from the one with most of it, and refused if each has something the other lacks. Rows are copied inside SQLite.
The same sources give the same bytes. `verify.py` describes the file.
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
from agent.ledger import chain as chain_file
from agent.ledger import verify as verify_file
from agent.ledger.chain import OWNER_OF, Folded, columns_of, expected_objects
from agent.ledger.connect import address_to_read, create, head_of, is_there, owner_of, reader, unchecked
from agent.ledger.files import break_seal, is_held, log_path, set_seal
from agent.ledger.verify import ALIAS_MOVED, CHAINS, LEDGER, Chain, events, is_merged, verify
from agent.results.base import Result
from agent.safe_file import disk_errors, new_file

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


class SourceLedger(Result):
    """A merged ledger, and the chain that contains it."""

    name: str
    chain: int
    events: int
    head: str


class Merged(Result):
    """What a merge has made."""

    ledger: Path
    chains: int
    events: int
    runs: int
    calls: int
    sources: tuple[SourceLedger, ...]


def merge_ledgers(paths: Sequence[str | Path], output: str | Path, force: bool = False) -> Merged:
    """Merge ledgers into a read-only one, byte for byte the same in any order.

    `force` overwrites a merged ledger. Raises InputError and LedgerError.
    """
    output = Path(output)
    parts, sources = plan(verified(_distinct([Path(path) for path in paths], output, force)))
    with _new_ledger(output) as new:
        _write_container(new, parts)
        with closing(sqlite3.connect(new)) as db:
            ask = "SELECT (SELECT seq FROM head), (SELECT COUNT(*) FROM runs), (SELECT COUNT(*) FROM calls)"
            counts = dict(zip(("events", "runs", "calls"), db.execute(ask).fetchone(), strict=True))
    return Merged(ledger=output, chains=len(parts), sources=tuple(sources), **counts)


def _distinct(paths: Sequence[Path], output: Path, force: bool) -> dict[Path, str]:
    files = dict.fromkeys(Path(os.path.realpath(path)) for path in paths)
    if missing := [str(path) for path in paths if not is_there(path)]:
        raise InputError("\n".join(f"{path}: no ledger here" for path in missing))
    if len(paths) < 2:
        raise InputError("name the ledgers to merge, two or more")
    why = ""
    if Path(os.path.realpath(output)) in files:
        why = "is one of the ledgers to merge; choose another name with -o"
    elif output.is_dir():
        why = "is a folder; name a file with -o"
    elif output.exists() and not force:
        why = "already exists; choose another name, or add --force"
    elif output.exists():
        why = "exists and is not a merged ledger; choose another name with -o"
        with suppress(sqlite3.Error, LedgerError), closing(reader(output)) as db:
            why = "" if is_merged(db) else why
    if why:
        raise InputError(f"{output}: {why}")
    folder = os.path.commonpath([path.parent for path in files])
    return {path: path.relative_to(folder).as_posix() for path in files}


# -- the plan: which chains there are, and from which of them each run is taken ----------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot of a ledger; `runs` has each run's number of events, and number and hash of the last."""

    path: Path
    name: str
    ledger: str
    began: str
    events: int
    head: str
    last_call: int
    runs: dict[str, list[Any]]

    @staticmethod
    def of(db: sqlite3.Connection, path: Path, name: str) -> Source:
        count, head = head_of(db)
        if not count:
            raise LedgerError(f"{path}: an empty ledger; leave it out")
        began, ledger = db.execute("SELECT utc, hash FROM events WHERE seq = 1").fetchone()
        (last_call,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM calls").fetchone()
        of_runs = "SELECT run_id, COUNT(*), MAX(seq), hash FROM events WHERE run_id <> '' AND kind <> ? GROUP BY run_id"
        runs = {run_id: last for run_id, *last in db.execute(of_runs, (ALIAS_MOVED,))}
        return Source(path, name, ledger, began, count, head, int(last_call), runs)

    def chain(
        self, before: Sequence[ChainPart] = (), parent: Chain | None = None, shared: int = 0, only: str = ""
    ) -> Chain:
        """Return its chain in a container, after the chains of the parts `before`."""
        end = before[-1].chain.events + before[-1].chain.seq_offset if before else 0
        calls = sum(part.source.last_call for part in before)
        about = (len(before) + 1, self.name, self.ledger, self.events, self.head)
        return Chain(*about, parent, shared, end - shared, calls, only)


@dataclass(frozen=True, slots=True)
class ChainPart:
    """A chain of the container, its source, and the runs whose rows are taken from there."""

    chain: Chain
    source: Source
    runs: list[str] = field(default_factory=list)


def verified(files: Mapping[Path, str]) -> list[Source]:
    found, faults = list[Source](), list[str]()
    for path, name in files.items():
        try:
            found.append(_source(path, name))
        except LedgerError as error:
            faults.append(str(error))
    _refuse(faults)
    return sorted(found, key=lambda each: (each.began, each.ledger, -each.events, each.head, each.name))


def _refuse(faults: list[str]) -> None:
    if faults:
        raise LedgerError("\n".join([*faults, "nothing was merged"]))


def _source(path: Path, name: str) -> Source:
    if is_held(path):
        raise LedgerError(f"{path}: in use by {owner_of(path)}; wait for it, or merge a copy")
    with unchecked(path) as db:
        if findings := verify(db):
            raise LedgerError(f"{path}: not whole: {findings[0]}; `optimize audit verify --db {path}` lists all")
        if is_merged(db):
            raise LedgerError(f"{path}: a merged ledger; name the ledgers that it was made of")
        return Source.of(db, path, name)


def plan(sources: Sequence[Source]) -> tuple[list[ChainPart], list[SourceLedger]]:
    """Return the parts, and each source's chain: its own or a ledger's that continued it."""
    parts: list[ChainPart] = []
    merged = []
    for source in sources:
        shared, chain = 0, None
        for part in parts:
            if part.source.ledger != source.ledger:
                continue
            with unchecked(part.source.path) as db:
                db.execute("ATTACH ? AS other", (address_to_read(source.path),))
                both = "SELECT MAX(seq) FROM main.events JOIN other.events USING (seq, hash)"
                if (common := int(db.execute(both).fetchone()[0])) > shared:
                    shared, chain = common, part.chain
        if chain is None or shared < source.events:
            chain = source.chain(parts, chain, shared)
            parts.append(ChainPart(chain, source))
        counted = SourceLedger(name=source.name, chain=chain.number, events=source.events, head=source.head)
        merged.append(counted)
    _give_homes(parts, sources)
    return parts, merged


def _give_homes(parts: Sequence[ChainPart], sources: Sequence[Source]) -> None:
    faults = []
    for run_id in dict.fromkeys(run_id for source in sources for run_id in source.runs):
        having = [part for part in parts if run_id in part.source.runs]
        home = max(having, key=lambda part: (part.source.runs[run_id][0], -part.chain.number))
        home.runs.append(run_id)
        with unchecked(home.source.path) as db:
            for part in having:
                _, seq, digest = part.source.runs[run_id]
                if db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone() != (digest,):
                    faults.append(
                        f"{part.source.path}: the run {run_id} differs from the one in {home.source.path}, from its "
                        f"event {seq} at the latest; merge only one of them"
                    )
    _refuse(faults)


# -- the new file -----------------------------------------------------------------------------------------------------


@contextmanager
def _new_ledger(output: Path) -> Iterator[Path]:
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


def _write_container(new: Path, parts: Sequence[ChainPart]) -> None:
    indexes = {name: sql for (kind, name), (_, sql) in expected_objects().items() if kind == "index" and sql}
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        create(db)
        for sql in (*(f"DROP INDEX {name}" for name in indexes), CHAINS):
            db.execute(sql)
    said = "SELECT DISTINCT e.value FROM events, json_each(body, '$.erased') e WHERE kind = 'texts_erased'"
    erased: set[str] = set()  # another source may still have them, but the container must not
    for part in parts:
        with _beside(part.source, new) as db:
            gone = db.execute(f"{said} AND e.value NOT IN (SELECT hash FROM main.blobs)")
            erased.update(digest for (digest,) in gone)
    for part in parts:
        with _beside(part.source, new) as db:
            _copy(db, part)
            where, digests = "NOT IN", erased
            if part.chain.only:
                folded = Folded.of(events(db))
                where, digests = "IN", folded.texts_in(folded.belonging(part.runs, True), part.chain.only)
            db.execute(
                "INSERT OR IGNORE INTO team.blobs SELECT hash, body FROM main.blobs "
                f"WHERE hash {where} (SELECT value FROM json_each(?)) ORDER BY hash",
                (json.dumps(sorted(digests)),),
            )
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _tune(db, "main")
        db.execute("BEGIN")
        for sql in indexes.values():
            db.execute(sql)
        last = parts[-1].chain
        db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (last.events + last.seq_offset, last.head))
        db.execute("COMMIT")


def _tune(db: sqlite3.Connection, name: str) -> None:
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        db.execute(f"PRAGMA {name}.{setting}").fetchone()


@contextmanager
def _beside(source: Source, new: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(address_to_read(source.path), uri=True, isolation_level=None)) as db:
        db.execute("ATTACH ? AS team", (str(new),))
        _tune(db, "team")
        db.execute("BEGIN")
        if head_of(db) != (source.events, source.head):
            raise LedgerError(f"{source.path}: changed meanwhile; run the command again")
        yield db
        db.execute("COMMIT")


def _copy(db: sqlite3.Connection, part: ChainPart) -> None:
    chain = part.chain
    parent = chain.parent.number if chain.parent else 0
    about = (chain.number, chain.name, chain.ledger, chain.events, chain.head, parent, chain.shared)
    row = (*about, chain.seq_offset, chain.call_offset, chain.only)
    db.execute(f"INSERT INTO team.merged_chains VALUES ({', '.join('?' * len(row))})", row)
    db.execute(
        "INSERT INTO team.events SELECT seq + ?, run_id, utc, kind, body, prev_hash, hash FROM main.events "
        "WHERE seq > ? ORDER BY seq",
        (chain.seq_offset, chain.shared),
    )
    db.execute("CREATE TEMP TABLE taken (id TEXT PRIMARY KEY)")
    db.executemany("INSERT INTO temp.taken VALUES (?)", ((run_id,) for run_id in part.runs))
    taken = "IN (SELECT id FROM temp.taken)"
    tried = " UNION ".join(
        f"SELECT candidate_id FROM main.{table} WHERE run_id {taken}" for table in ("proposals", "trials")
    )
    for table, column in OWNER_OF.items():
        where = f"{column} {taken}"
        if table in ("examples", "candidates"):  # in this order: candidates identify those of earlier chains
            where = f"{column} IN ({tried}) AND {column} NOT IN (SELECT id FROM team.candidates)"
        elif table == "calls" and chain.only:
            where += f" OR (state = 'ok' AND call_key IN (SELECT call_key FROM main.calls WHERE run_id {taken}))"
        names = [*columns_of(table)]
        found = [f"id + {chain.call_offset}" if (table, name) == ("calls", "id") else name for name in names]
        db.execute(
            f"INSERT INTO team.{table} ({', '.join(names)}) SELECT {', '.join(found)} FROM main.{table} "
            f"WHERE {where} ORDER BY rowid"
        )


# -- exports ----------------------------------------------------------------------------------------------------------


def write_jsonl(db: sqlite3.Connection, path: Path, force: bool) -> int:
    """Write every event as a line of JSON, its body parsed; return their number. Raises InputError if `path` exists."""
    seq = 0
    with new_export(path, force) as file:
        for event in events(db):
            seq = event["seq"]
            line = json.dumps({**event, "body": json.loads(event["body"])})  # ASCII: nothing can break the line
            file.write(f"{line}\n".encode())
    return seq


def write_bundle(db: sqlite3.Connection, output: Path, force: bool, run_id: str = "") -> tuple[int, int, str]:
    """Write a self-verifying zip; return its events, texts and head.

    With `run_id` it holds only this run's rows and texts.
    """
    near = output.parent if output.is_file() or not output.exists() else None  # not next to a device
    with new_export(output, force) as file, tempfile.TemporaryDirectory(prefix=".new-", dir=near) as folder:
        copy, new = Path(folder) / "copy.db", Path(folder) / LEDGER
        with closing(sqlite3.connect(copy)) as snapshot:
            db.backup(snapshot)
        with unchecked(copy) as snapshot:
            source = Source.of(snapshot, copy, "")
        _write_container(new, [ChainPart(source.chain(only=run_id), source, [run_id] if run_id else [*source.runs])])
        with closing(sqlite3.connect(new)) as made:
            (texts,) = made.execute("SELECT COUNT(*) FROM blobs").fetchone()
        scripts = [Path(str(each.__file__)) for each in (chain_file, verify_file)]
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
    info = zipfile.ZipInfo(name)  # dated 1980: a bundle depends on the ledger alone
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100600 << 16
    return info


@contextmanager
def new_export(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """Create a file readable by its owner only, atomically. Raises InputError if it exists or cannot be made."""
    if not force and (path.exists() or path.is_symlink()):
        raise InputError(f"{path}: already exists; choose another name, or add --force")
    fix = "choose another place with -o"
    with disk_errors(f"{path}: cannot be written", fix, InputError), new_file(path, private=True) as file:
        yield file
