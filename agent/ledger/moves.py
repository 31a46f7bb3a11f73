"""What the chain says of released labels. Reads; knows nothing of the files that hold the same (`promotion.py`).

Each move is an event of the kind `label_moved`: its body is the line of the name's history, with the hash of that line,
and with `release_hash` where the text of the version was kept.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

LABEL_MOVED = "label_moved"


def label_moves(db: sqlite3.Connection, name: str) -> list[dict[str, Any]]:
    """The bodies of all moves of the labels of `name`, in the order of the chain."""
    found = db.execute(
        "SELECT body FROM events WHERE kind = ? AND json_extract(body, '$.name') = ? ORDER BY seq", (LABEL_MOVED, name)
    )
    return [json.loads(body) for (body,) in found]


def moved_names(db: sqlite3.Connection) -> list[str]:
    """Every name whose labels were moved."""
    found = db.execute(
        "SELECT DISTINCT json_extract(body, '$.name') FROM events WHERE kind = ? ORDER BY 1", (LABEL_MOVED,)
    )
    return [name for (name,) in found]


def text_of(db: sqlite3.Connection, digest: str) -> str | None:
    """A payload text by its hash; None when it was erased or never written."""
    found = db.execute("SELECT body FROM blobs WHERE hash = ?", (digest,)).fetchone()
    return str(found[0]) if found else None
