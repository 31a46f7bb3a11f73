"""Somebody changes a finished ledger with a plain SQLite client: `verify` finds every change and names the event."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from agent.ledger.chain import AUDITED
from agent.ledger.verify import verify
from tests.chaos.harness import TINY, Campaign, Row

TAMPERS = 400
SHOWN = 20  # one in so many is shown to the command line as well
KEYS: Mapping[str, tuple[str, ...]] = {**AUDITED, "events": ("seq",), "blobs": ("hash",), "head": ("id",)}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the ledger: its columns, and its rows as they are."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def key(self) -> str:
        return " AND ".join(f"{column} IS ?" for column in KEYS[self.name])

    def key_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(row[self.columns.index(column)] for column in KEYS[self.name])


class Pointless(Exception):
    """This table has nothing to change in this way."""


def tampers(c: Campaign) -> Row:
    """Edits, deletions, exchanges, insertions and replacements on every table, with and without its triggers."""
    rng, broken, blocked, found, named = c.rng("tamper"), [], 0, 0, 0
    wanted = c.times(TAMPERS, 20)
    with c.provider() as server:
        folder = c.folder("tamper")
        ended = folder.run(server.url, *TINY).wait()
    if ended.code:
        raise RuntimeError(ended.err[-500:])
    with closing(sqlite3.connect(folder.ledger)) as db:
        tables = [_table(db, name) for name in KEYS]
        tables += [table for table in tables if table.name == "events"] * 3
    copy, done = folder.path / "tampered.db", 0
    while done < wanted:
        shutil.copyfile(folder.ledger, copy)
        table, act, drops = rng.choice(tables), rng.choice(list(ACTS)), rng.random() < 0.75
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # nobody needs this copy after a power cut
            try:
                seq = _tamper(db, table, ACTS[act], drops, rng)
            except Pointless:
                continue
            except sqlite3.Error:
                seq = -1
            if _table(db, table.name).rows == table.rows:  # refused, or the same value again
                blocked += seq == -1
                done += seq == -1
                continue
            done += 1
            what = f"{act} in {table.name}{', triggers dropped' if drops else ''}"
            findings = verify(db)
        if not findings:
            broken.append(f"not found: {what} (event {seq})")
            continue
        found += 1
        first = findings[0].seq
        if table.name == "events" and seq >= 0:
            named += first in (seq, seq + 1)
            broken += [f"{what}: event {seq} touched, {first} named"] if first not in (seq, seq + 1) else []
        if found % SHOWN == 0:
            shown = folder.start("runs", "--db", copy.name).wait()
            if shown.code not in (1, 2) or shown.out:
                broken.append(f"{what}: `optimize runs` shows it: exit {shown.code}")
    happened = f"{found} found, {blocked} prevented by the database; {named} of them in events, each named right"
    return Row("tampering", wanted, "all found or prevented, the first bad event named", happened, tuple(broken))


def _table(db: sqlite3.Connection, name: str) -> Table:
    cursor = db.execute(f"SELECT * FROM {name} ORDER BY {', '.join(KEYS[name])}")
    columns = tuple(column[0] for column in cursor.description)
    return Table(name, columns, tuple(tuple(row) for row in cursor))


def _tamper(
    db: sqlite3.Connection,
    table: Table,
    act: Callable[[sqlite3.Connection, Table, random.Random], int],
    drops: bool,
    rng: random.Random,
) -> int:
    """Changes `table`, if asked with its triggers out of the way and then put back. Returns the event touched, or 0."""
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers if drops else ():
        db.execute(f"DROP TRIGGER {name}")
    seq = act(db, table, rng)
    for _, sql in triggers if drops else ():
        db.execute(sql)
    return seq


def _edit(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """One value of one row becomes another."""
    row, column = rng.choice(table.rows), rng.choice(table.columns)
    value = _other(row[table.columns.index(column)], rng)
    _run(db, f"UPDATE {table.name} SET {column} = ? WHERE {table.key}", (value, *table.key_of(row)))
    return _seq(table, row)


def _retype(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """A text becomes the same bytes, which look alike."""
    row, column = rng.choice(table.rows), rng.choice(table.columns)
    _run(db, f"UPDATE {table.name} SET {column} = CAST({column} AS BLOB) WHERE {table.key}", table.key_of(row))
    return _seq(table, row)


def _delete(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    row = rng.choice(table.rows)
    _run(db, f"DELETE FROM {table.name} WHERE {table.key}", table.key_of(row))
    return _seq(table, row)


def _exchange(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """Two rows change places: each gets the other's contents under its own key."""
    if len(table.rows) < 2:
        raise Pointless
    one, two = sorted(rng.sample(range(len(table.rows)), 2))
    first, second = table.rows[one], table.rows[two]
    names = [name for name in table.columns if name not in KEYS[table.name]]
    if not names:
        raise Pointless
    sets = ", ".join(f"{name} = ?" for name in names)
    for target, source in ((first, second), (second, first)):
        values = [source[table.columns.index(name)] for name in names]
        _run(db, f"UPDATE {table.name} SET {sets} WHERE {table.key}", (*values, *table.key_of(target)))
    return _seq(table, first)


def _insert(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """A copy of a row under a key that is not there."""
    row = list(rng.choice(table.rows))
    for column in KEYS[table.name]:
        place = table.columns.index(column)
        numbers = [other[place] for other in table.rows if isinstance(other[place], int)]
        row[place] = max(numbers) + rng.randint(1, 3) if numbers else f"{row[place]}{rng.randint(0, 9)}"
    _run(db, f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(row))})", tuple(row))
    return max(other[0] for other in table.rows) if table.name == "events" else 0


def _replace(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """`INSERT OR REPLACE`, which no UPDATE trigger sees."""
    row, column = rng.choice(table.rows), rng.choice(table.columns)
    if column in KEYS[table.name]:
        column = table.columns[-1]
    changed = list(row)
    place = table.columns.index(column)
    changed[place] = _other(changed[place], rng)
    _run(db, f"INSERT OR REPLACE INTO {table.name} VALUES ({', '.join('?' * len(row))})", tuple(changed))
    return _seq(table, row)


def _relink(db: sqlite3.Connection, table: Table, rng: random.Random) -> int:
    """An event is rewritten together with its own hash; the one after it still tells."""
    from agent.ledger.chain import link

    events = list(table.rows[:-1]) if table.name == "events" else []
    if not events:
        raise Pointless
    event = dict(zip(table.columns, rng.choice(events), strict=True))
    event["body"] = re.sub(r"\d(?=\D*$)", lambda found: str((int(found[0]) + 1) % 10), event["body"], count=1)
    _run(
        db,
        "UPDATE events SET body = ?, hash = ? WHERE seq = ?",
        (event["body"], link(event["prev_hash"], event), event["seq"]),
    )
    return int(event["seq"])


ACTS: Mapping[str, Callable[[sqlite3.Connection, Table, random.Random], int]] = {
    "edit": _edit,
    "retype": _retype,
    "delete": _delete,
    "exchange": _exchange,
    "insert": _insert,
    "replace": _replace,
    "relink": _relink,
}


def _run(db: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> None:
    db.execute(sql, values)


def _seq(table: Table, row: tuple[Any, ...]) -> int:
    return int(row[0]) if table.name == "events" else 0


def _other(value: Any, rng: random.Random) -> Any:
    """Another value of the same kind."""
    if value is None:
        return rng.choice([0, "", "x"])
    if isinstance(value, float):
        return value + rng.choice([1e-6, -0.5, 1.0])
    if isinstance(value, int):
        return value + rng.choice([1, -1, 1000])
    if not value:
        return "x"
    place = rng.randrange(len(value))
    return rng.choice([value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :], value[:place], value + " "])
