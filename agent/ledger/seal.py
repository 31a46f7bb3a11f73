"""The seal: a digest of the ledger's main file, kept beside it. It tells in a moment that no byte of it has changed.

SQLite itself does not notice when a page's content is overwritten on disk. The main file changes only when the writer
copies its write-ahead log into it; the writer breaks the seal before that and sets it after, so it also holds after a
kill. A missing or broken seal is no verdict: the whole ledger is then checked the long way (`verify`).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from agent.ledger.places import beside

CHUNK = 1 << 20  # bytes


def seal_path(path: Path) -> Path:
    return beside(path, ".seal")


def digest(file: int) -> str:
    """CRC-32 of the open file and its size: against damage, not against forgery, which is what the chain is for."""
    found, size = 0, 0
    while part := os.pread(file, CHUNK, size):
        found = zlib.crc32(part, found)
        size += len(part)
    return f"{found:08x} {size}"


def holds(path: Path) -> bool:
    """Whether the seal is there and fits the file."""
    try:
        with path.open("rb") as file:
            return seal_path(path).read_text("ascii").strip() == digest(file.fileno())
    except (OSError, ValueError):
        return False


def set_seal(path: Path, main: int) -> None:
    """Writes the seal whole or not at all. `main` is the open file that is sealed, whatever lies at `path` by now."""
    part = seal_path(path).with_name(seal_path(path).name + ".part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, digest(main).encode())
        os.fsync(file)
    finally:
        os.close(file)
    part.replace(seal_path(path))


def break_seal(path: Path) -> None:
    seal_path(path).unlink(missing_ok=True)
    folder = os.open(seal_path(path).parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the seal must be gone before the file changes
    finally:
        os.close(folder)
