"""Opening ledger files: connection settings, and refusal of damaged files and other versions."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agent.errors import InputError, LedgerError
from agent.ledger.chain import GENESIS, SCHEMA, VERSION, structure
from agent.ledger.files import (
    is_held,
    log_is_damaged,
    log_is_empty,
    log_path,
    read_only,
    seal_holds,
    seal_path,
    sibling,
)
from agent.ledger.verify import is_merged, verify
from agent.options.shared import LEDGER as LEDGER

BUSY_MS = 30_000
WRITING = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "recursive_triggers = ON",
    "wal_autocheckpoint = 0",  # the writer copies the log itself, around the seal
    "cache_size = -32000",
)
NO_LEDGER = "a database, but no ledger; name another file with --db"
NO_FILES = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
RESCUE = "restore a copy, or recover it: `sqlite3 FILE .recover | sqlite3 NEW.db`, `optimize audit verify --db NEW.db`"
"""How to recover a damaged file, for error messages."""


class NeedsWriter(LedgerError):
    """A kill left the file half made; opening it for writing completes it."""


def require_file(db: Path) -> None:
    """Raise InputError for a folder, including "" and "."."""
    if db.is_dir():
        raise InputError(f"{db}: a folder; name a file in it with --db, such as {db / 'ledger.db'}")


def ledger_option(db: Path) -> str:
    """Return the command-line option that selects this ledger; "" for the default one."""
    return "" if db == LEDGER else f" --db {shlex.quote(str(db))}"


def refuse_merged(db: sqlite3.Connection, path: Path, why: str = "it is only read") -> None:
    """Raise LedgerError for a merged ledger."""
    if is_merged(db):
        raise LedgerError(f"{path}: a merged ledger: {why}; name the ledger of the run with --db")


def _is_emptied(path: Path) -> bool:
    if not os.path.exists(path):
        return not log_is_empty(path)
    if not os.path.isfile(path) or os.path.getsize(path):
        return False
    return seal_path(path).exists() or not log_is_empty(path)


def is_there(path: Path) -> bool:
    """Return whether a ledger exists, whole or damaged. A new empty file does not count, an emptied ledger does."""
    return _is_emptied(path) or (os.path.isfile(path) and os.path.getsize(path) > 0)


def address_to_read(path: Path) -> str:
    """Return SQLite's address for reading. Raises LedgerError for an emptied file: SQLite would discard its log."""
    if _is_emptied(path):
        raise LedgerError(
            f"{path}: the ledger is {'empty' if os.path.exists(path) else 'gone'}, but its companion files are there; "
            f"nothing was changed; restore a copy, move {log_path(path).name} away to start over, or name another "
            "file with --db"
        )
    address = read_only(path)
    if not os.access(log_path(path).parent, os.W_OK) and log_is_empty(path) and not is_held(path):
        address += "&immutable=1"
    return address


def reader(path: Path) -> sqlite3.Connection:
    """Open a read-only connection. LedgerError as above, and for a log that SQLite cannot read in place."""
    db = sqlite3.connect(address_to_read(path), uri=True, timeout=BUSY_MS / 1000)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    try:
        db.execute("PRAGMA schema_version")
    except sqlite3.Error as error:  # later reads report the damage
        if error.sqlite_errorcode & 0xFF in NO_FILES:
            db.close()
            raise LedgerError(
                f"{path}: SQLite cannot create its files next to it ({error}); free space, or copy it with its -wal "
                "file to a writable folder and name it with --db"
            ) from error
    return db


def writer(path: Path) -> sqlite3.Connection:
    """Open a connection whose commits are on the disk when they return."""
    if not path.exists():
        path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    for setting in WRITING:
        db.execute(f"PRAGMA {setting}")
    return db


def unfinished(path: Path) -> bool:
    """Return whether the first change was killed halfway and left a rollback journal."""
    return sibling(path, "-journal").exists()


def schema_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _require_version(db: sqlite3.Connection, path: Path) -> int:
    version = schema_of(db)
    if version not in (0, VERSION):
        if not {"runs", "calls", "events"} <= {name for (name,) in db.execute("SELECT name FROM sqlite_master")}:
            raise LedgerError(f"{path}: {NO_LEDGER}")
        raise LedgerError(
            f"{path}: written by another version of Promptassay (schema {version}, this one has {VERSION}); open it "
            "with that version, or name another file with --db"
        )
    return version


FRESH_NS = 100_000_000  # a change so soon after another may leave the same time of change
_VERIFIED = set[str]()
"""The states of files that this process found whole."""


def _state(path: Path) -> str | None:
    """Return place, size and times of a ledger and its log. None: too new to tell a change."""
    found = [each.stat() for each in (path, log_path(path)) if each.exists() and each.stat().st_size]
    if any(each.st_mtime_ns > time.time_ns() - FRESH_NS for each in found):
        return None
    # without the time of change of the inode, which SQLite moves when it opens a log
    return "\n".join(f"{each.st_dev} {each.st_ino} {each.st_size} {each.st_mtime_ns}" for each in found)


def require_whole(path: Path, ours: bool = False, by_chain: bool = False) -> None:
    """Verify a ledger; raise LedgerError naming the first bad event.

    Without a log a matching seal is enough, unless `by_chain`: who can write the file can write a seal. A file that
    another process has open (not `ours`) is not verified, nor one that this process has just verified: a command opens
    it to read and then to write.
    """
    state = _state(path)
    if unfinished(path) and not ours:
        raise NeedsWriter(f"{path}: a killed process left it half made; opening it for writing undoes that")
    held = is_held(path) and not ours
    sealed = held or seal_holds(path)  # before SQLite opens it: closing a file releases its locks
    with readable(path):
        db = reader(path)
    with readable(path, f", or {RESCUE}"), closing(db):
        version = _require_version(db, path)
        if not held and not log_is_empty(path) and log_is_damaged(path, db):
            raise LedgerError(
                f"{log_path(path)}: the log of a killed run is damaged, and SQLite cannot read later records; "
                f"nothing was changed; {RESCUE}"
            )
        if not version:
            if db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise LedgerError(f"{path}: {NO_LEDGER}")
            raise NeedsWriter(f"{path}: a killed process left it half made; opening it for writing completes it")
        found = structure(db)
        if ours and not found:
            refuse_merged(db, path)
        by_seal = sealed and not by_chain and (held or log_is_empty(path))
        if not found and not by_seal and (by_chain or state not in _VERIFIED):
            found = verify(db)
        if found:
            raise LedgerError(
                f"{path}: the ledger was altered: {found[0]}; nothing was changed; "
                f"`optimize audit verify{ledger_option(path)}` lists all; {RESCUE}"
            )
        if state is not None and not by_seal:
            _VERIFIED.add(state)


def owner_of(path: Path) -> str:
    """Describe the holder of the lock, by the event it wrote."""
    opened = "SELECT body, utc FROM events WHERE kind = 'ledger_opened' ORDER BY seq DESC LIMIT 1"
    try:
        with closing(reader(path)) as db:
            body, utc = ("", "") if structure(db) else db.execute(opened).fetchone()
        owner = json.loads(body)
        return f"process {owner['pid']} on {owner['host']} since {utc[:19]} UTC"
    except (sqlite3.Error, LedgerError, ValueError, TypeError, KeyError):
        return "another process"


@contextmanager
def unchecked(path: Path, as_one: bool = False) -> Iterator[sqlite3.Connection]:
    """Open an unverified file of this version read-only, `as_one` snapshot. Raises LedgerError."""
    with readable(path), closing(reader(path)) as db:
        db.isolation_level = None
        with suppress(sqlite3.Error):  # damaged: later reads report how
            _require_version(db, path)
        if as_one:
            db.execute("BEGIN")
        yield db


@contextmanager
def readable(path: Path, or_else: str = "") -> Iterator[None]:
    """Translate SQLite's read errors to LedgerError."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: not a readable ledger ({error}); name another file with --db{or_else}") from error


def head_of(db: sqlite3.Connection) -> tuple[int, str]:
    """Return number and hash of the last event."""
    found = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(found[0]), str(found[1])) if found else (0, GENESIS)


def create(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file, in one transaction."""
    try:
        connection.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
