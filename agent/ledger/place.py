"""Where the ledger lies when none is named, and the words by which a command is given another."""

from __future__ import annotations

import shlex
from pathlib import Path

from agent.errors import InputError
from agent.options.shared import LEDGER as LEDGER


def require_file(db: Path) -> None:
    """Raises InputError for a folder, as "" and "." are."""
    if db.is_dir():
        raise InputError(f"{db}: a folder; name a file in it with --db, such as {db / 'ledger.db'}")


def ledger_option(db: Path) -> str:
    """The words that a command needs to find the ledger, when it is not the usual one."""
    return "" if db == LEDGER else f" --db {shlex.quote(str(db))}"
