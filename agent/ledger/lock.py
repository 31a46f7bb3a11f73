"""One writer a ledger: a lock beside the file that the kernel frees when its holder dies. Knows no SQL."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from agent.errors import LedgerError
from agent.ledger.places import beside

TRIES = 5
BETWEEN = 0.02  # seconds between two of them


def boot_id() -> str:
    """What tells one start of this machine from the next ("" where the kernel does not say)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def host() -> str:
    return socket.gethostname()


class Lock:
    """`flock` on `<ledger>.lock`, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = beside(path, ".lock")
        self._file: int | None = None

    def take(self) -> bool:
        """False when another process holds it."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                taken = _lock(file)
            except OSError as error:
                os.close(file)
                raise LedgerError(
                    f"{self.path}: this file system cannot lock ({error}); put the ledger on another"
                ) from error
            if taken and _is_at(file, self.path):
                self._file = file
                return True
            os.close(file)
            if not taken:
                return False

    def stat(self) -> os.stat_result:
        """Of the file that is locked."""
        assert self._file is not None
        return os.fstat(self._file)

    def is_mine(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is the one at `path`: a lock on one that was deleted meanwhile keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: int) -> bool:
    """Tried for a moment, because whoever looks (`is_held`) has the lock for an instant."""
    for _ in range(TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(BETWEEN)
    return False


def is_held(path: Path) -> bool:
    """Whether a writer has the ledger open now. Changes nothing."""
    try:
        file = os.open(beside(path, ".lock"), os.O_RDONLY | os.O_CLOEXEC)  # it may lie where nothing can be written
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look must not see each other
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(file)
    return False
