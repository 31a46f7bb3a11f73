"""Companions of a ledger file: its lock, its seal, and SQLite's write-ahead log. Knows no table but `head`.

The lock admits one writer; the kernel frees it when its holder dies.

The seal is a digest of the main file and shows quickly that no byte of it changed: SQLite itself does not notice when a
page is overwritten on disk. The main file changes only when the writer copies the log into it; the writer breaks the
seal before that and sets it afterwards. Without a matching seal, and while a log holds more than the main file, the
whole ledger is verified (`verify`).

Each of our transactions updates the row of the table `head`, so each commit in the log writes its page. Format:
SQLite's "Database File Format", section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import time
import zlib
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from agent.errors import LedgerError
from agent.safe_file import new_file, sync_folder

TRIES = 5  # attempts to lock
BETWEEN = 0.02  # seconds between two attempts
CHUNK = 1 << 20  # bytes digested at once
HEADER, FRAME = 32, 24  # sizes in the log


def sibling(path: Path, suffix: str) -> Path:
    """Return the companion file with this suffix, next to the ledger that `path` links to."""
    real = path.resolve() if path.is_symlink() else path
    return real.with_name(real.name + suffix)


# -- the lock ---------------------------------------------------------------------------------------------------------


class Lock:
    """`flock` on `<ledger>.lock`, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = sibling(path, ".lock")
        self._file: int | None = None

    def take(self) -> bool:
        """Take the lock; return False if another process holds it."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                taken = _lock(file)
            except OSError as error:
                os.close(file)
                raise LedgerError(
                    f"{self.path}: this file system cannot lock ({error}); put the ledger on another"
                ) from error
            with contextlib.suppress(FileNotFoundError):  # a lock on a deleted file keeps nobody out
                if taken and os.path.samestat(os.fstat(file), os.stat(self.path)):
                    self._file = file
                    return True
            os.close(file)
            if not taken:
                return False

    def stat(self) -> os.stat_result:
        assert self._file is not None
        return os.fstat(self._file)

    def is_mine(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> bool:
    for _ in range(TRIES):  # `is_held` takes the lock for an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(BETWEEN)
    return False


def is_held(path: Path) -> bool:
    """Return whether a writer has the ledger open. Changes nothing."""
    try:
        file = os.open(sibling(path, ".lock"), os.O_RDONLY | os.O_CLOEXEC)  # its folder may be read-only
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two readers must not see each other
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(file)
    return False


# -- the seal ---------------------------------------------------------------------------------------------------------


def seal_path(path: Path) -> Path:
    return sibling(path, ".seal")


def digest(file: int) -> str:
    """Return CRC-32 and size of the open file: against damage, not against forgery."""
    found, size = 0, 0
    while part := os.pread(file, CHUNK, size):
        found = zlib.crc32(part, found)
        size += len(part)
    return f"{found:08x} {size}"


def seal_holds(path: Path) -> bool:
    """Return whether the seal exists and matches the file."""
    try:
        sealed, *kept = seal_path(path).read_text("ascii").splitlines()
        with path.open("rb") as file:
            return kept == [_untouched(file.fileno())] or sealed == digest(file.fileno())
    except (OSError, ValueError):
        return False


def _untouched(file: int) -> str:
    found = os.fstat(file)
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def set_seal(path: Path, main: int, read_only: bool = False) -> None:
    """Write the seal of the open file `main`. A `read_only` file is hashed again only after a change."""
    with new_file(seal_path(path), private=True) as file:
        file.write("\n".join([digest(main), *([_untouched(main)] if read_only else [])]).encode())


def break_seal(path: Path) -> None:
    seal_path(path).unlink(missing_ok=True)
    sync_folder(seal_path(path).parent)  # the seal must be gone before the file changes


# -- the log ----------------------------------------------------------------------------------------------------------


def log_path(path: Path) -> Path:
    return sibling(path, "-wal")


def log_is_empty(path: Path) -> bool:
    log = log_path(path)
    return not log.exists() or log.stat().st_size == 0


def read_only(path: Path) -> str:
    """Return SQLite's read-only address of a file."""
    return f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"


def log_is_damaged(path: Path, db: sqlite3.Connection) -> bool:
    """Return whether the log has commits that SQLite skips because of an earlier damaged frame.

    SQLite takes the first frame with a wrong checksum for the end. A power cut can leave one commit behind it, but not
    two. A commit is recognized by its last frame and by the page of `head`, which each of our commits writes once.
    """
    (size,) = db.execute("PRAGMA page_size").fetchone()
    log = log_path(path).read_bytes()
    starts = range(HEADER, len(log) - FRAME - size + 1, FRAME + size)
    frames: list[tuple[int, int, bytes]] = [
        (*struct.unpack_from(">II", log, start), log[start + 8 : start + 16]) for start in starts
    ]
    usual = Counter(salts for _, _, salts in frames).most_common(1)  # the header may be what is damaged
    db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    (read,) = struct.unpack_from("=I", sibling(path, "-shm").read_bytes(), 16)
    lost = [(page, commits) for page, commits, salts in frames[read:] if salts == usual[0][0]]
    head = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'head'").fetchone()
    return sum(commits > 0 for _, commits in lost) > 1 or sum((page,) == head for page, _ in lost) > 1
