"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A folder to write into: when the block ends, its files are synced and then moved into `folder` (made if need be).

    A block that fails leaves `folder` as it was. Raises OSError when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        beside = Path(name)
        yield beside
        files = [path for path in beside.rglob("*") if path.is_file()]
        for path in files:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        for path in files:
            target = folder / path.relative_to(beside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


@contextmanager
def new_file(path: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """A file to write, where the user wants it: whole or not at all, and through a link into the file that it means.

    What is there and no regular file, such as a pipe, is written straight into. `private`: for its owner only, also
    where an open one was there; otherwise that one's mode stays. Raises OSError when the disk refuses.
    """
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
