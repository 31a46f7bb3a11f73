"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
