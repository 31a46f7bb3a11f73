"""The open ledger file: its lock, its chain, and the only way anything is written to it. Knows no run.

Each record is written together with its event, in one transaction, through the one writer. All text passes `_clean`:
keys are removed, and lone surrogates, which SQLite cannot hold, become escapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.errors import LedgerBusy, LedgerError
from agent.ledger.chain import AUDITED, link, sha256
from agent.ledger.connect import (
    BUSY_MS,
    NeedsWriter,
    create,
    head_of,
    is_there,
    owner_of,
    reader,
    require_file,
    require_whole,
    schema_of,
    unfinished,
    writer,
)
from agent.ledger.files import Lock, break_seal, set_seal
from agent.ledger.provenance import boot_id, utc_now
from agent.ledger.writer import Entry, Statement, Watch, Writer
from agent.redact import mask, rare_secrets_in
from agent.types import canonical

NOTHING: Mapping[str, Any] = MappingProxyType({})
KNOWN_TEXTS = 10_000  # remembered hashes of texts written by this process


class LedgerFile:
    """One open ledger file, locked against a second writer.

    Raises LedgerError for a file that is no ledger, damaged or in use, and from any later call once the disk has
    refused something or the files were replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reported = False  # whether the writer's error was raised
        self._repeated: Counter[tuple[str, str]] = Counter()
        self._texts: dict[str, None] = {}
        self._together: list[Statement] | None = None
        self._known: set[str] = set()  # ids of candidates in the file
        self._secrets = rare_secrets_in(os.environ)
        require_file(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
            if not self._lock.take():
                raise LedgerBusy(f"{path}: in use by {owner_of(path)}; wait for it, or name another file with --db")
            with contextlib.ExitStack() as undo:
                undo.callback(self._lock.release)
                self._open(undo)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{path}: not a usable ledger ({error}); name another file with --db") from error

    def _open(self, undo: contextlib.ExitStack) -> None:
        if unfinished(self.path):
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_MS / 1000)) as db:
                db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # SQLite rolls it back
        if is_there(self.path):
            with contextlib.suppress(NeedsWriter):
                require_whole(self.path, ours=True)
        self._watch = Watch(self.path, self._lock)
        undo.callback(self._watch.close)
        self._connection = writer(self.path)
        undo.callback(self._connection.close)
        if not schema_of(self._connection):
            break_seal(self.path)
            create(self._connection)
        self.db = reader(self.path)
        self._seq, self._head = head_of(self.db)
        self._next_call = int(self.db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM calls").fetchone()[0])
        self._watch.begin()
        self._writer = Writer(self._connection, self.path, self._watch)
        undo.callback(self.close)
        self._recover()

    def _recover(self) -> None:
        self.event("", "ledger_opened", {"host": socket.gethostname(), "pid": os.getpid(), "boot_id": boot_id()})
        for number, run_id, usd in self.db.execute(
            "SELECT id, run_id, reserved_usd FROM calls WHERE state IN ('reserved', 'sent')"
        ).fetchall():
            found = {"state": "unknown", "error_class": "killed", "cost_usd": usd}
            self._set(run_id, "call_found_open", "calls", (number,), found)
        for (run_id,) in self.db.execute("SELECT id FROM runs WHERE status = 'running'").fetchall():
            self._set(run_id, "run_found_open", "runs", (run_id,), {"status": "killed"})
        self.flush()

    def close(self) -> None:
        """Write pending records, copy the log, seal the file and release the lock.

        Raises an error that was not raised before.
        """
        if not self._lock.is_mine():
            return
        self._writer.close()
        with contextlib.suppress(sqlite3.Error, OSError):  # without its seal the file is verified on next opening
            if not self._watch.change(self.path):
                self.db.close()  # the last writable connection to close copies the log
            try:
                self._seal()
            except LedgerError as error:
                self._writer.error = error
        self.db.close()
        self._watch.close()
        self._lock.release()
        if self._writer.error is not None and not self._reported:
            raise self._refusal(self._writer.error)

    def _seal(self) -> None:
        whole = self._writer.error is None
        with contextlib.closing(self._connection):
            if whole:
                self._watch.require()
                break_seal(self.path)
                self._connection.execute("PRAGMA busy_timeout = 1000")
                try:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # also while somebody reads
                finally:
                    self._watch.note_content()
                self._watch.require()
        if whole:
            set_seal(self.path, self._watch.file)

    async def commit(self) -> None:
        """Wait until everything recorded so far is on the disk."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._entry((), waiter)
        try:
            await waiter
        except Exception as error:
            raise self._refusal(error) from error

    def flush(self) -> None:
        """Commit outside an event loop."""
        self._writer.flush()
        if self._writer.error is not None:
            raise self._refusal(self._writer.error)

    # -- the one write ------------------------------------------------------------------------------------------------

    def head(self) -> str:
        """Return the hash of the chain's last event."""
        return self._head

    def _entry(self, statements: Sequence[Statement], waiter: asyncio.Future[None] | None = None) -> None:
        self._writer.put(Entry(statements, (self._seq, self._head), waiter))

    def id(self) -> str:
        """Return the hash of the first event, which only copies share."""
        return str(self.db.execute("SELECT hash FROM events WHERE seq = 1").fetchone()[0])

    def event(self, run_id: str, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> str:
        """Record a fact and return the new head. `texts` are payloads, named in the body as `<name>_hash`."""
        self._record(run_id, kind, body, texts={f"{name}_hash": text for name, text in (texts or {}).items()})
        return self._head

    def has_event(self, run_id: str, kind: str, body: Mapping[str, Any]) -> bool:
        """Return whether the chain contains this fact."""
        event = (run_id, kind, self._clean(canonical(body)))
        found = self.db.execute("SELECT 1 FROM events WHERE run_id = ? AND kind = ? AND body = ?", event)
        return found.fetchone() is not None

    def _put(
        self, run_id: str, kind: str, table: str, row: Mapping[str, Any], texts: Mapping[str, str] = NOTHING
    ) -> None:
        self._record(run_id, kind, {"insert": table, "row": row}, "row", texts)

    def _set(
        self,
        run_id: str,
        kind: str,
        table: str,
        key: tuple[Any, ...],
        changes: Mapping[str, Any],
        texts: Mapping[str, str] = NOTHING,
    ) -> None:
        self._record(run_id, kind, {"update": table, "key": list(key), "set": changes}, "set", texts)

    def _record(
        self,
        run_id: str,
        kind: str,
        fact: Mapping[str, Any],
        row_in: str = "",
        texts: Mapping[str, str] = NOTHING,
        statements: Sequence[Statement] = (),
    ) -> None:
        """Append an event with the statements that make it true.

        `row_in`: the key of `fact` that holds its row. `texts`: payloads by column.
        """
        if self._writer.error is not None:
            raise self._refusal(self._writer.error)
        statements = [*statements]
        hashes = {column: self._text(text, statements) for column, text in texts.items()}
        if row_in:
            values = {**fact[row_in], **hashes}
            row = {column: self._clean(value) if isinstance(value, str) else value for column, value in values.items()}
            fact, names = {**fact, row_in: row}, tuple(row)
            sql = _insert_sql(fact["insert"], names) if row_in == "row" else _update_sql(fact["update"], names)
            statements.append((sql, (*row.values(), *fact.get("key", ()))))
        else:
            fact = {**fact, **hashes}
        body = self._clean(canonical(fact))
        if self._repeated.get((kind, body), 0):  # repeated by a resumed run: already recorded
            self._repeated[kind, body] -= 1
            self._texts.clear()  # its texts were not written now and may be erased
            return
        self._seq += 1
        event = {"seq": self._seq, "run_id": run_id, "utc": utc_now(), "kind": kind, "body": body}
        prev, self._head = self._head, link(self._head, event)
        statements.append((_EVENT, (*event.values(), prev, self._head)))
        if self._together is not None:
            self._together += statements
        else:
            self._entry(statements)

    @contextlib.contextmanager
    def _as_one(self) -> Iterator[None]:
        self._together = []
        try:
            yield
        finally:
            statements, self._together = self._together, None
            if statements:
                self._entry(statements)

    def _text(self, text: str, statements: list[Statement]) -> str:
        text = self._clean(text)
        digest = str(sha256(text))
        if digest not in self._texts:
            if len(self._texts) >= KNOWN_TEXTS:
                del self._texts[next(iter(self._texts))]
            self._texts[digest] = None
            statements.append(("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, text)))
        return digest

    def _clean(self, text: str) -> str:
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return mask(text, self._secrets)

    def _refusal(self, error: Exception) -> LedgerError:
        self._reported = True
        if isinstance(error, LedgerError):
            return LedgerError(str(error))  # a new one for each waiter
        return LedgerError(
            f"{self.path}: the ledger cannot be written ({error}); free or repair the disk; settled calls are safe"
        )


_EVENT = "INSERT INTO events (seq, run_id, utc, kind, body, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"


@lru_cache(maxsize=64)
def _insert_sql(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


@lru_cache(maxsize=64)
def _update_sql(table: str, columns: tuple[str, ...]) -> str:
    key = " AND ".join(f"{column} = ?" for column in AUDITED[table])
    return f"UPDATE {table} SET {', '.join(f'{column} = ?' for column in columns)} WHERE {key}"
