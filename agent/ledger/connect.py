"""How a ledger file is opened: the connection's settings, the check that nothing is read from a damaged file, and the
migrations of sqlite-utils that bring an older file up to date (the steps of `schema.py`)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.ledger.bundle_verify import GENESIS
from agent.ledger.files import (
    beside,
    is_held,
    log_is_damaged,
    log_is_empty,
    log_is_ours,
    log_path,
    read_only,
    seal_holds,
    seal_path,
)
from agent.ledger.merged import refuse_merged
from agent.ledger.place import ledger_option
from agent.ledger.provenance import utc_now
from agent.ledger.schema import AUDITED, STEPS, Finding, sha256, structure
from agent.ledger.verify import link, verify
from agent.types import canonical

BUSY_MS = 30_000
NO_FILES = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
RESCUE = (
    "restore a copy, or save what can be read with `sqlite3 FILE .recover | sqlite3 NEW.db` and ask "
    "`optimize audit verify --db NEW.db` what is left"
)
"""What helps a damaged file; the words of an error."""


class NeedsWriter(LedgerError):
    """A file of an older version, or one that a kill left half made: opening it for writing brings it up to date."""


def is_emptied(path: Path) -> bool:
    """Whether nothing is left of a ledger but what lies beside it: the seal or the log of an empty file, the log of
    one that is gone. (A seal alone is what is left where somebody removed the ledger to begin anew.)"""
    if not os.path.exists(path):
        return not log_is_empty(path)
    if not os.path.isfile(path) or os.path.getsize(path):
        return False
    return seal_path(path).exists() or not log_is_empty(path)


def is_there(path: Path) -> bool:
    """Whether there is a ledger, whole or not. An empty file is none yet, unless it was emptied."""
    return is_emptied(path) or (os.path.isfile(path) and os.path.getsize(path) > 0)


def address_to_read(path: Path) -> str:
    """SQLite's address of the file for a connection that cannot write. LedgerError for a file that was emptied or is
    gone, as SQLite would throw its log away.

    To read, SQLite makes files beside the ledger. Where it cannot, and there is no log, the file is read as it lies.
    """
    if is_emptied(path):
        raise LedgerError(
            f"{path}: the file is {'empty' if os.path.exists(path) else 'gone'}, and what lies beside it tells of a "
            f"ledger; nothing was changed; restore a copy, move {log_path(path).name} away to begin anew, or name "
            "another file with --db"
        )
    address = read_only(path)
    if not os.access(log_path(path).parent, os.W_OK) and log_is_empty(path) and not is_held(path):
        address += "&immutable=1"
    return address


def reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. LedgerError as above, and for a log that SQLite cannot read where it lies."""
    db = sqlite3.connect(address_to_read(path), uri=True, timeout=BUSY_MS / 1000)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    try:
        db.execute("PRAGMA schema_version")
    except sqlite3.Error as error:  # whoever reads on says what is damaged
        if error.sqlite_errorcode & 0xFF in NO_FILES:
            db.close()
            raise LedgerError(
                f"{path}: cannot be read where it lies: SQLite makes files beside it, and cannot here ({error}); make "
                "room, or copy it with its -wal file to a folder that can be written, and name it with --db"
            ) from error
    return db


def writer(path: Path) -> sqlite3.Connection:
    """A connection that writes durably: each commit is on the disk before it returns."""
    if not path.exists():
        path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    db.create_function("sha256", 1, sha256, deterministic=True)
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        db.execute(f"PRAGMA {setting}")
    db.execute("PRAGMA recursive_triggers = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # the writer copies the log itself, around the seal
    db.execute("PRAGMA cache_size = -32000")
    return db


def unfinished(path: Path) -> bool:
    """Whether a kill left the rollback journal of a change that was not finished: the first, before there is a log."""
    return beside(path, "-journal").exists()


def undo_unfinished(path: Path) -> None:
    """Lets SQLite roll it back, which takes a connection that may write."""
    db = sqlite3.connect(path, timeout=BUSY_MS / 1000)
    db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    db.close()


def schema_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def require_whole(path: Path, ours: bool = False, by_chain: bool = False) -> None:
    """Raises LedgerError when a byte of the ledger is not as it was written, naming the first bad event.

    The seal answers at once, also after a kill; without one that fits, everything is checked. While a writer has the
    file open (unless it is `ours` to open) it changes underneath, and only SQLite's own checks apply. What is opened
    to write must have our schema, whatever the seal says. `by_chain`: who can write the file can write a seal, so
    everything is checked. NeedsWriter for an older version's file.
    """
    if unfinished(path) and not ours:
        raise NeedsWriter(f"{path}: a killed process left it half made; opening it for writing undoes that")
    try:
        db = reader(path)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: not a readable ledger ({error}); name another file with --db") from error
    try:
        version = schema_of(db)
        if version > len(STEPS):
            raise LedgerError(f"{path}: written by a newer version (schema {version}); upgrade, or use another --db")
        held = is_held(path) and not ours
        if not held and not log_is_empty(path) and log_is_damaged(path, db):
            raise LedgerError(
                f"{log_path(path)}: the log of a killed run is damaged, and what came after is lost to SQLite; "
                f"nothing was changed; {RESCUE}"
            )
        if version < len(STEPS):
            _require_old(path, db, version, held)
        if found := structure(db):
            raise _not_whole(path, found[0])
        if ours:
            refuse_merged(db, path)
        sealed = held or (seal_holds(path) and (log_is_empty(path) or log_is_ours(path, db)))
        if sealed and not by_chain:
            return
        if found := verify(db):
            raise _not_whole(path, found[0])
    except sqlite3.Error as error:
        raise LedgerError(
            f"{path}: not a readable ledger ({error}); name another file with --db, or {RESCUE}"
        ) from error
    finally:
        db.close()


def _not_whole(path: Path, finding: Finding) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger is not what was written: {finding}; nothing was changed; "
        f"`optimize audit verify{ledger_option(path)}` lists all; {RESCUE}"
    )


def _require_old(path: Path, db: sqlite3.Connection, version: int, held: bool) -> None:
    """Raises NeedsWriter for an older version's ledger. What is brought up to date is sealed: it must be whole before.
    Of the first version no chain covers the rows."""
    objects = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if objects if version == 0 else not {"runs", "calls", "events"} <= objects:
        raise LedgerError(f"{path}: a database, but no ledger; name another file with --db")
    if version and (found := structure(db, version)):
        raise _not_whole(path, found[0])
    if damage := [" ".join(line.split()) for (line,) in db.execute("PRAGMA integrity_check(1)") if line != "ok"]:
        raise LedgerError(f"{path}: the file is damaged ({damage[0]}); restore a copy, or name another file with --db")
    if version > 1 and not held and (found := verify(db, version=version)):
        raise _not_whole(path, found[0])
    raise NeedsWriter(f"{path}: written by an older version (schema {version}); opening it for writing updates it")


def owner_of(path: Path) -> str:
    """Who holds the lock, in words, from the row that the holder wrote."""
    try:
        with closing(reader(path)) as db:
            found = None if structure(db) else db.execute("SELECT host, pid, since_utc FROM owner").fetchone()
    except (sqlite3.Error, LedgerError):
        found = None
    return f"process {found[1]} on {found[0]} since {found[2][:19]} UTC" if found else "another process"


# -- new and older files ----------------------------------------------------------------------------------------------


def create(connection: sqlite3.Connection) -> None:
    """Makes the schema in an empty file, all steps at once; without sqlite-utils, whose import takes half a second."""
    try:
        steps = "".join(STEPS)
        connection.executescript(f"BEGIN EXCLUSIVE; {steps} PRAGMA user_version = {len(STEPS)}; COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def keep_copy(path: Path) -> Path:
    """A copy of the ledger as it is, beside it: `<name>.schema<N>`. An older copy of that name stays."""
    with closing(reader(path)) as old:
        copy = path.with_name(f"{path.name}.schema{schema_of(old)}")
        if not copy.exists():
            part = copy.with_name(f"{copy.name}.part")
            part.unlink(missing_ok=True)
            part.touch(mode=0o600)
            with closing(sqlite3.connect(part)) as new:
                old.backup(new)
            part.replace(copy)  # whole or not at all
    return copy


def migrate(connection: sqlite3.Connection) -> None:
    """Takes the steps that are missing. Rows that no event describes, from before events did, get one each.

    Raises LedgerError, and leaves all as it was, where the older schema was not the one that its steps had made.
    """
    from sqlite_utils import Database, Migrations

    db = Database(connection, execute_plugins=False)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        done = schema_of(connection)
        steps = Migrations("ledger")
        for number, sql in enumerate(STEPS[done:], done + 1):
            steps(name=f"schema {number}")(partial(Database.executescript, sql=sql))
        if done == 1:
            steps()(_adopt_rows)
        steps.apply(db)
        db[steps.migrations_table].drop()  # `user_version` says it, and a table of a ledger is described by events
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        if changed := structure(connection):
            raise LedgerError(f"{changed[0]}; nothing was changed; restore a copy, or name another file with --db")
        connection.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def _adopt_rows(db: Any) -> None:
    """Describes each row by an event: the first schema had none of rows. `db` is a Database of sqlite-utils."""
    seq, head = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
    for table in AUDITED:
        for row in list(db[table].rows):
            seq += 1
            body = canonical({"insert": table, "row": row})
            event = {"seq": seq, "run_id": row.get("run_id", ""), "utc": utc_now(), "kind": "row_adopted", "body": body}
            prev, head = head, link(head, event)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*event.values(), prev, head))
    db.execute("UPDATE head SET seq = ?, hash = ?", (seq, head))
