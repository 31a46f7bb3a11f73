"""Where the files beside a ledger lie: SQLite's log, our lock, our seal. Knows names, no content."""

from __future__ import annotations

from pathlib import Path


def beside(path: Path, suffix: str) -> Path:
    """The file of this suffix beside the ledger itself, where `path` is a link to it."""
    real = path.resolve() if path.is_symlink() else path
    return real.with_name(real.name + suffix)
