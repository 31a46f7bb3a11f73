"""Where the ledger lies when none is named, and the words by which a command is given another."""

from __future__ import annotations

import shlex
from pathlib import Path

LEDGER = Path("runs/ledger.db")
"""Where it is looked for when none is named."""


def ledger_option(db: Path) -> str:
    """The words that a command needs to find the ledger, when it is not the usual one."""
    return "" if db == LEDGER else f" --db {shlex.quote(str(db))}"
