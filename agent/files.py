"""Files that are there whole or not at all, and the digest of one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex digits. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable. Raises OSError when the disk refuses."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are synced and moved into `folder` (made if need be) when the block ends.

    A block that fails leaves `folder` as it was. Raises OSError when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        beside = Path(name)
        yield beside
        files = {path: folder / path.relative_to(beside) for path in beside.rglob("*") if path.is_file()}
        for path in files:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        if taken := [target for target in files.values() if target.is_dir()]:  # before any file is moved
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(taken[0]))
        for path, target in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


@contextmanager
def new_file(path: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all, through links; a pipe or device is written straight into."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    with new_files(target.parent) as beside:
        new = beside / target.name
        new.touch(mode=0o600 if private else 0o666)
        with new.open("wb") as file:
            yield file
        if target.exists() and not private:
            shutil.copymode(target, new)
