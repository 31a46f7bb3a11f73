"""The ledger to read, whatever version wrote it."""

from __future__ import annotations

from pathlib import Path

from agent.ledger.connect import NeedsWriter
from agent.ledger.query import History


def history_of(path: Path, by_chain: bool = False) -> History:
    """One of an older version is brought up to date first, and a copy of it kept. Raises LedgerError."""
    try:
        return History(path, by_chain=by_chain)
    except NeedsWriter:
        from agent.ledger.store import Ledger

        Ledger(path).close()
        return History(path, by_chain=by_chain)
