"""SQLite's write-ahead log: is it whole, and from our own writer? Reads the file's bytes; knows its format only.

After a kill the log holds what was not yet copied into the sealed main file. Each transaction of ours moves the row of
the table `head`; one that does not write that page came from another program.
Format: SQLite's "Database File Format", section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from agent.ledger.chain import EVENT, first_break
from agent.ledger.places import beside

HEADER, FRAME = 32, 24


def log_path(path: Path) -> Path:
    return beside(path, "-wal")


def is_empty(path: Path) -> bool:
    log = log_path(path)
    return not log.exists() or log.stat().st_size == 0


def read_only(path: Path) -> str:
    """SQLite's address of a file that is not to be written."""
    return f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"


def is_damaged(path: Path, db: sqlite3.Connection) -> bool:
    """Whether commits lie in the log that SQLite does not read, because something before them is not as it was written.

    SQLite takes the first frame with a wrong checksum for the end of the log. A power cut can leave one commit behind
    it, but not two: each was on the disk before the next began. A commit shows by its last frame and by the page of
    `head`, which each of ours writes once; what was overwritten may have been one of these.
    """
    (size,) = db.execute("PRAGMA page_size").fetchone()
    frames = list(_frames(log_path(path).read_bytes(), size))
    usual = Counter(salts for _, _, salts in frames).most_common(1)  # the header may be what is damaged
    unread = frames[_frames_read(path, db) :]
    lost = [(page, commits) for page, commits, salts in unread if salts == usual[0][0]]
    head = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'head'").fetchone()
    return sum(commits > 0 for _, commits in lost) > 1 or sum((page,) == head for page, _ in lost) > 1


def _frames_read(path: Path, db: sqlite3.Connection) -> int:
    """How many frames of the log SQLite found good, from the index that it makes of it when it first reads."""
    db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    index = beside(path, "-shm").read_bytes()
    return int(struct.unpack_from("=I", index, 16)[0])


def is_ours(path: Path, db: sqlite3.Connection) -> bool:
    """Whether the log adds nothing to the main file but transactions of ours, with the events that follow its chain."""
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'head'").fetchone()
    return _every_transaction_writes(log_path(path).read_bytes(), page) and _chain_goes_on(path, db)


def _every_transaction_writes(log: bytes, page: int) -> bool:
    if len(log) < HEADER:
        return False
    (size,) = struct.unpack_from(">I", log, 8)
    written = False
    for number, commits, salts in _frames(log, size):
        if salts != log[16:24]:
            break  # left over from an earlier use of the file
        written = written or number == page
        if commits:
            if not written:
                return False
            written = False
    return True


def _frames(log: bytes, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Page number, pages in the file if the frame commits (else 0), and salts of each frame with a page of `size`."""
    for start in range(HEADER, len(log) - FRAME - size + 1, FRAME + size):
        yield (*struct.unpack_from(">II", log, start), log[start + 8 : start + 16])


def _chain_goes_on(path: Path, db: sqlite3.Connection) -> bool:
    """From the head in the main file, without the log, to the head with it."""
    main = sqlite3.connect(f"{read_only(path)}&immutable=1", uri=True)
    try:
        seq, prev = main.execute("SELECT seq, hash FROM head").fetchone()
    except (sqlite3.Error, TypeError):  # nothing was ever copied into it
        return False
    finally:
        main.close()
    rows = db.execute(f"SELECT {', '.join(EVENT)} FROM events WHERE seq > ? ORDER BY seq", (seq,)).fetchall()
    events = [dict(zip(EVENT, values, strict=True)) for values in rows]
    end = (events[-1]["seq"], events[-1]["hash"]) if events else (seq, prev)
    head: object = db.execute("SELECT seq, hash FROM head").fetchone()
    return first_break(events, seq, prev) is None and head == end
