"""Are the files of an open ledger still the ones that lie at their places?

Whoever has a file open goes on writing to it after it was removed or another was moved over it, and nothing of that is
there afterwards; `flock` on a file that is gone keeps nobody out. So the main file, the lock and the log are compared
before and after each commit, and before the main file is written to. Knows no SQL.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import LedgerError
from agent.ledger.lock import Lock
from agent.ledger.log import log_path

UNKNOWN = "nothing more was sent or recorded; calls that were in flight are unknown and may have been paid for"


class Watch:
    """What an open ledger consists of. `file` is its main file, open for as long as the connection is: to close it
    earlier would give up the locks that SQLite has on it."""

    def __init__(self, path: Path, lock: Lock) -> None:
        """Before the connection is opened. Makes an empty file where there is none."""
        how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC  # to write: on overlayfs one opened to read stays the file below
        self.file = os.open(path, how, 0o600)
        self._path, self._lock = path, lock
        self._own: dict[Path, tuple[int, int]] = {}
        self._content = (0, 0)

    def begin(self) -> None:
        """When the connection is open and SQLite has made its log."""
        log = log_path(self._path)
        files = {self._path: os.fstat(self.file), self._lock.path: self._lock.stat(), log: os.stat(log)}
        self._own = {path: _identity(found) for path, found in files.items()}
        self.note_content()

    def note_content(self) -> None:
        """After the log was copied into the main file, which nobody else writes to."""
        self._content = _content(os.fstat(self.file))

    def require(self) -> None:
        """Raises LedgerError when one of the files is not the open one any more."""
        for path in self._own:
            if what := self._change(path):
                raise self._refusal(path, what)

    def has_main(self) -> bool:
        """Whether the main file is the open one, as its last writer left it."""
        return not self._change(self._path)

    def close(self) -> None:
        """After the connection was closed."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _change(self, path: Path) -> str:
        """What happened to it; "" for nothing."""
        try:
            there = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return "removed"
        if _identity(there) != self._own[path]:
            return "replaced by another file"
        changed = path == self._path and _content(there) != self._content
        return "written to by another program" if changed else ""

    def _refusal(self, path: Path, what: str) -> LedgerError:
        if path == self._path:
            how = "put the ledger back, or a copy of it with no -wal beside it"
        else:
            how = f"let no other process write to {self._path}, and leave what lies beside it"
        return LedgerError(f"{path}: was {what} while the ledger was in use; {UNKNOWN}; {how}; then go on")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _content(found: os.stat_result) -> tuple[int, int]:
    """Size and time of the last write."""
    return found.st_size, found.st_mtime_ns
