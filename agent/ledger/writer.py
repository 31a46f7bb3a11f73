"""Group commit: statements run in order of arrival, and statements that arrive together share a commit.

Only the commit, which waits for the disk, runs in another thread. Statements that arrive meanwhile join the next one.

A process can write to an open file that was deleted or replaced, and lose all of it. So the main file, the lock and the
log are compared with those at their paths: before and after each commit, and before the main file is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.ledger.files import Lock, break_seal, log_path, set_seal

Statement = tuple[str, Sequence[Any]]

LINGER = 0.0005  # seconds that the first statement of a group waits for others
LOG_BYTES = 16_000_000  # size of the write-ahead log at which it is copied into the main file
UNKNOWN = "nothing more was sent or recorded; calls in flight have unknown outcomes and may have been paid for"


class Watch:
    """The files of an open ledger, watched for replacement."""

    def __init__(self, path: Path, lock: Lock) -> None:
        """Open the main file before the connection; create an empty one if needed."""
        how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC  # writable: on overlayfs a read-only handle stays on the lower file
        self.file = os.open(path, how, 0o600)  # until after the connection: closing it releases SQLite's locks on it
        self._path, self._lock = path, lock
        self._own: dict[Path, os.stat_result] = {}
        self._content = (0, 0)

    def begin(self) -> None:
        """Start watching, once the connection is open and SQLite has created its log."""
        log = log_path(self._path)
        self._own = {self._path: os.fstat(self.file), self._lock.path: self._lock.stat(), log: os.stat(log)}
        self.note_content()

    def note_content(self) -> None:
        """Record size and time of the main file after the log was copied into it."""
        self._content = _content(os.fstat(self.file))

    def require(self) -> None:
        """Raise LedgerError if a file is no longer the open one."""
        for path in self._own:
            if what := self.change(path):
                how = "restore the ledger, or a copy of it without its -wal file"
                if path != self._path:
                    how = f"keep other processes from writing to {self._path} and its companion files"
                raise LedgerError(f"{path}: was {what} while the ledger was in use; {UNKNOWN}; {how}; then resume")

    def close(self) -> None:
        """Close the file, after the connection."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def change(self, path: Path) -> str:
        """Describe how a file differs from the one its last writer left; "": unchanged."""
        try:
            there = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return "removed"
        if not os.path.samestat(there, self._own[path]):
            return "replaced by another file"
        changed = path == self._path and _content(there) != self._content
        return "written to by another program" if changed else ""


def _content(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Entry:
    """Statements of one transaction, the chain's head after them, and the waiting future."""

    statements: Sequence[Statement]
    head: tuple[int, str]
    waiter: asyncio.Future[None] | None = None


class Writer:
    """The writing connection, for one thread; after the first error it writes nothing and every waiter gets it."""

    def __init__(self, connection: sqlite3.Connection, path: Path, watch: Watch) -> None:
        self.error: Exception | None = None
        self._connection = connection
        self._watch = watch
        self._path = path
        self._log = log_path(path)
        self._log_limit = LOG_BYTES
        self._waiting: list[Entry] = []
        self._scheduled: asyncio.AbstractEventLoop | None = None
        self._committing: tuple[Sequence[Entry], Future[None]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    def put(self, entry: Entry) -> None:
        self._waiting.append(entry)
        with contextlib.suppress(RuntimeError):  # no loop here: `flush` will come
            loop = asyncio.get_running_loop()
            if self._scheduled is not loop:  # also during a commit: the loop that began it may be gone
                self._scheduled = loop
                loop.call_later(LINGER, self._start, loop)

    def flush(self) -> None:
        """Wait until everything is on the disk or refused (`error`)."""
        while self._committing is not None or self._waiting:
            if self._committing is None:
                self._write_group()
            if self._committing is not None:
                wait([self._committing[1]])
                self._land()

    def close(self) -> None:
        self.flush()
        self._thread.shutdown()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = None
        if self._committing is None and self._waiting:
            self._write_group()
        if self._committing is not None:
            self._committing[1].add_done_callback(lambda _: _call(loop, self._landed, loop))

    def _landed(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._committing is not None and self._committing[1].done():
            self._land()
            self._start(loop)

    def _write_group(self) -> None:
        group, self._waiting = self._waiting, []
        try:
            if self.error is None:
                self._write(group)
        except Exception as error:  # also a value that SQLite cannot hold: waiters must get the error
            self._refuse(error)
        if self.error is None:
            self._committing = (group, self._thread.submit(self._commit))
        else:
            self._wake(group)

    def _write(self, group: Sequence[Entry]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for entry in group:
            for sql, values in entry.statements:
                execute(sql, values)
        execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", group[-1].head)

    def _commit(self) -> None:
        self._watch.require()  # a lost lock must not admit two writers
        self._connection.execute("COMMIT")
        self._watch.require()  # what went into a deleted file is not on the disk
        if (size := self._log.stat().st_size) >= self._log_limit:
            self._log_limit = LOG_BYTES if self.copy_log() else size + LOG_BYTES

    def copy_log(self) -> bool:
        """Copy the log into the main file, not during a commit.

        Returns False if a reader keeps the log from being truncated.
        """
        self._watch.require()
        break_seal(self._path)
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self._watch.note_content()  # a write cut short by a full disk is ours, too
        self._connection.execute("PRAGMA busy_timeout = 30000")
        set_seal(self._path, self._watch.file)
        self._watch.require()
        return not busy

    def _land(self) -> None:
        assert self._committing is not None
        group, commit = self._committing
        self._committing = None
        if (error := commit.exception()) is not None:
            self._refuse(error if isinstance(error, Exception) else OSError(str(error)))
        self._wake(group)

    def _refuse(self, error: Exception) -> None:
        self.error = error
        try:
            self._watch.require()
        except Exception as lost:  # SQLite's error is only a consequence of it
            self.error = lost
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.rollback()

    def _wake(self, group: Sequence[Entry]) -> None:
        for entry in group:
            if entry.waiter is None or entry.waiter.done():
                continue
            if self.error is None:
                entry.waiter.set_result(None)
            else:
                entry.waiter.set_exception(self.error)


def _call(loop: asyncio.AbstractEventLoop, function: Any, *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: `flush` does the rest
        loop.call_soon_threadsafe(function, *arguments)
