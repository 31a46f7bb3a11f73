"""Saves what holds of a damaged ledger: the longest run of events that can be read and follow from one another.

The damaged file is only read, byte by byte, never opened as a database. The rows of the new file are those that the
events tell of, not those of the old tables; a text is kept when its hash is right, and those that are lost are named in
one last event, `recovered`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger import seal
from agent.ledger.chain import EVENT, GENESIS, Folded, link
from agent.ledger.connect import writer
from agent.ledger.lock import Lock, is_held
from agent.ledger.migrate import migrate
from agent.ledger.origin import utc_now
from agent.ledger.pages import Pages, Place
from agent.ledger.schema import AUDITED
from agent.ledger.verify import verify
from agent.types import canonical

_EVENT = f"INSERT INTO events ({', '.join(EVENT)}) VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class Recovered:
    """What was saved: `events` of at least `had`, `why` the next one was not, rows by table, how many `texts`, and the
    hashes of the texts that are lost. `head` is the hash of the new ledger's last event.
    """

    events: int = 0
    had: int = 0
    why: str = ""
    rows: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    lost: list[str] = field(default_factory=list)
    head: str = GENESIS


def recover(old: Path, new: Path) -> Recovered:
    """Writes what holds of `old` to a new ledger `new`, which passes `verify`, and tells what that is.

    Raises InputError when `new` exists; LedgerError when `old` is in use, or no event or row of it can be saved.
    """
    if new.exists() or new.is_symlink():
        raise InputError(f"{new}: is there already; name a new file with --to")
    if is_held(old):
        raise LedgerError(f"{old}: in use by another process; stop it first, then recover")
    try:
        pages = Pages(old)
    except OSError as error:
        raise LedgerError(f"{old}: cannot be read ({error.strerror}); restore a copy") from error
    lock = Lock(new)
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        if not lock.take():
            raise LedgerError(f"{new}: in use by another process; name another file with --to")
        return _write(pages, old, new)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{new}: cannot be written ({error}); name another file with --to") from error
    finally:
        lock.release()


def _write(pages: Pages, old: Path, new: Path) -> Recovered:
    try:
        with closing(writer(new)) as target:
            migrate(target)
            target.execute("BEGIN IMMEDIATE")
            found, folded = _events(pages, target)
            if not folded.rows:
                why = found.why or "its events, of an older version, tell of no rows"
                raise LedgerError(f"{old}: nothing of it can be saved ({why}); restore a copy")
            _rows(target, folded, found)
            _texts(pages, target, folded, found)
            _close(target, found, str(old))
            target.execute("COMMIT")
            if wrong := verify(target):
                raise LedgerError(f"{new}: does not hold: {wrong[0]}; restore a copy of {old}")
        with new.open("rb") as file:
            seal.set_seal(new, file.fileno())
    except BaseException:
        for path in (new, new.with_name(new.name + "-wal"), new.with_name(new.name + "-shm")):
            path.unlink(missing_ok=True)
        raise
    return found


def _events(pages: Pages, target: sqlite3.Connection) -> tuple[Recovered, Folded]:
    """Takes events over as long as each follows from the one before it."""
    found, folded = Recovered(), Folded()
    places: dict[int, list[Place]] = {}
    for seq, place in pages.rows(len(EVENT), numbered=True):
        places.setdefault(seq, []).append(place)
    while not found.why:
        seq = found.events + 1
        event = next((e for place in places.get(seq, ()) if (e := _event(pages, seq, place, found.head))), None)
        if event is not None:
            folded.add(seq, event["body"])
            target.execute(_EVENT, tuple(event.values()))
            found.events, found.head = seq, event["hash"]
        elif seq in places:
            found.why = f"event {seq} is damaged, or does not follow from the one before it"
        else:
            break
    found.had = max([*(seq for seq in places if seq <= found.events + len(places)), _noted(pages), found.events])
    if found.had > found.events and not found.why:
        found.why = f"event {found.events + 1} is lost"
    return found, folded


def _event(pages: Pages, seq: int, place: Place, head: str) -> dict[str, Any] | None:
    """The event at `place`, if it is whole and follows from `head`. Its number is the row's own and has no column."""
    try:
        _, *rest = pages.values(place)
        event = dict(zip(EVENT, (seq, *(str(value, "utf-8") for value in rest)), strict=True))
        holds = event["prev_hash"] == head and event["hash"] == link(head, event)
    except (ValueError, TypeError):
        return None
    return event if holds else None


def _noted(pages: Pages) -> int:
    """The number of the last event, as the ledger noted it; 0 when that is lost."""
    for _, place in pages.rows(3, numbered=True):
        try:
            _, seq, digest = pages.values(place)
        except ValueError:
            continue
        if isinstance(seq, int) and isinstance(digest, bytes) and len(digest) == 64:
            return seq
    return 0


def _rows(target: sqlite3.Connection, folded: Folded, found: Recovered) -> None:
    for table in AUDITED:  # runs and candidates come before the rows that refer to them
        for place, row in folded.rows.items():
            if place[0] == table:
                marks = ", ".join("?" * len(row))
                target.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
                found.rows[table] += 1


def _texts(pages: Pages, target: sqlite3.Connection, folded: Folded, found: Recovered) -> None:
    lost = {digest: None for digest in folded.texts if digest not in folded.erased}
    for _, place in pages.rows(2):
        try:
            _, body = pages.values(place)
            digest = hashlib.sha256(body).hexdigest()
        except (ValueError, TypeError):
            continue
        if digest in lost:
            del lost[digest]
            target.execute("INSERT INTO blobs VALUES (?, ?)", (digest, str(body, "utf-8")))
            found.texts += 1
    found.lost = list(lost)


def _close(target: sqlite3.Connection, found: Recovered, old: str) -> None:
    """One last event says what was lost, and the head is noted."""
    told: Mapping[str, Any] = {"from": old, "events": found.events, "had": found.had, "erased": found.lost}
    event = {"seq": found.events + 1, "run_id": "", "utc": utc_now(), "kind": "recovered", "body": canonical(told)}
    head = link(found.head, event)
    target.execute(_EVENT, (*event.values(), found.head, head))
    target.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (found.events + 1, head))
    found.head = head
