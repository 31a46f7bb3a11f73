"""Taking texts out of the ledger for good: which they are, and where else they stand."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.anchors import snapshot
from agent.ledger.files import is_held, log_is_empty, log_path
from agent.ledger.store import Ledger
from agent.ledger.texts import events_with, files_with, kinds_of, older_copies, texts_with
from agent.run.auditing import whole_head
from agent.run.locations import open_history


@dataclass(frozen=True, slots=True)
class Erasing:
    """What is to go: `texts` by their hashes, how many there are of each of `kinds`, and the `events` that hold the
    text in their own words and stay."""

    db: Path
    containing: str | None
    texts: tuple[str, ...]
    kinds: Mapping[str, int]
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """What came of it: `left` says where the text still stands, a line each; `head` is the end of the chain."""

    plan: Erasing
    left: tuple[str, ...]
    head: str

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize audit erase --json`."""
        plan = self.plan
        return {
            "erased": list(plan.texts),
            "kinds": dict(plan.kinds),
            "events": list(plan.events),
            "left": list(self.left),
            "head": self.head,
        }


def erasing(hashes: Sequence[str], containing: str | None, actor: str, reason: str, db: Path) -> Erasing:
    """Finds what is to go; changes nothing.

    Args:
        hashes: texts by their SHA-256.
        containing: every text that holds it, also where JSON writes it otherwise.
        actor: who wants it.
        reason: why.
        db: the ledger.

    Raises:
        InputError: nothing is named, or actor or reason is empty or holds the very text.
    """
    if not hashes and not containing:
        raise InputError("name what goes: --hash H (repeatable) or --containing TEXT")
    for option, words in (("--actor", actor), ("--reason", reason)):
        if not words.strip():
            raise InputError(f"{option} is empty; the ledger must say who erased and why")
        if containing and containing in words:
            raise InputError(f"{option} holds the very text that is to go, and would stay; say it without it")
    open_history(db).close()
    with snapshot(db) as connection:
        found = _named(connection, hashes, containing, db)
        kinds = kinds_of(connection, found)
        kept = events_with(connection, containing) if containing else []
    return Erasing(db, containing, tuple(found), kinds, tuple(kept))


def erase(plan: Erasing, actor: str, reason: str) -> Erased:
    """Takes the texts out; the chain keeps their hashes, and who asked and why."""
    db = plan.db
    if plan.texts or not (
        log_is_empty(db) or is_held(db)
    ):  # what an earlier try erased may wait there to leave the file
        with closing(Ledger(db)) as ledger:
            ledger.erase(list(plan.texts), actor, reason)
    return Erased(plan, tuple(_left(db, plan.containing, plan.events)), whole_head(db))


def _named(db: sqlite3.Connection, hashes: Sequence[str], containing: str | None, path: Path) -> list[str]:
    """The texts that are meant, each once. Raises InputError for a hash that is none of them."""
    for digest in hashes:
        if not db.execute("SELECT 1 FROM blobs WHERE hash = ?", (digest,)).fetchone():
            raise InputError(f"{digest}: no text of this hash in {path}; `optimize audit show` prints hashes")
    return list(dict.fromkeys([*hashes, *(texts_with(db, containing) if containing else ())]))


def _left(db: Path, containing: str | None, kept: Sequence[int]) -> list[str]:
    """Where the text, or what was erased, can still be found, a line each."""
    lines = []
    if kept:
        shown = ", ".join(map(str, kept[:20])) + (" ..." if len(kept) > 20 else "")
        lines.append(f"in the words of {len(kept)} events and their rows, which the chain covers: {shown}")
    if not log_is_empty(db):
        lines.append(f"{log_path(db)}: another process reads the ledger; end it, and run `optimize audit erase` again")
    copies = older_copies(db)
    lines += [f"{copy}: the ledger as it was before an update; delete it" for copy in copies]
    if containing:
        named = {*copies, db} if kept else {*copies}
        lines += [f"{path}: holds the text" for path in files_with(db.parent, containing) if path not in named]
    else:
        lines += [f"{path}: a bundle made before; delete it" for path in sorted(db.parent.glob("*.zip"))]
        lines += [f"{path}: a report made before; make it anew" for path in sorted(db.parent.glob("*/report.html"))]
    return lines
