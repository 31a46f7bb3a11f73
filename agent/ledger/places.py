"""Where the files beside a ledger lie: SQLite's log, our lock, our seal, runs' folders. Knows names, no content."""

from __future__ import annotations

import re
from pathlib import Path

from agent.errors import InputError

NAME = re.compile(r"\w[\w.-]*")


def beside(path: Path, suffix: str) -> Path:
    """The file of this suffix beside the ledger itself, where `path` is a link to it."""
    real = path.resolve() if path.is_symlink() else path
    return real.with_name(real.name + suffix)


def run_folder(folder: Path, run_id: str) -> Path:
    """Where what is written about a run lies, in the ledger's folder. Raises InputError for an id that is a path: a
    ledger from elsewhere does not say where to write."""
    if not NAME.fullmatch(run_id):
        raise InputError(f"{run_id}: this cannot be the name of a folder, so nothing can be kept for this run")
    return folder / run_id
