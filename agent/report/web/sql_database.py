"""The ledger for Datasette's pages: one short-lived read-only connection per query.

SQLite refuses to write (`mode=ro`), and its authorizer allows nothing but reading. SQL runs in child processes
(`safe_sql.py`) that can be stopped on a timeout; only column and key lookups of Datasette run here.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.ledger.connect import address_to_read, reader
from agent.report.web.only_datasette import Database, QueryInterrupted, Results
from agent.safe_sql import PLACE, authorize
from agent.worker import Worker

CHILD = r"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("safe_sql", opening)
safe_sql = module_from_spec(spec)
spec.loader.exec_module(safe_sql)
safe_sql.limit_memory()
answer(True, "")
for line in pipe_in:
    pipe_out.write(f"[{safe_sql.answer(json.loads(line))}, null]\n")
    pipe_out.flush()
"""
HARD_LIMIT = 10.0  # seconds after which a child is ended that has not ended itself
LATE = -signal.SIGALRM
"""Exit code of a child that ran out of time."""
ERRORS = {kind.__name__: kind for kind in (*sqlite3.Error.__subclasses__(), *sqlite3.DatabaseError.__subclasses__())}
"""Errors raised with their own class; others become ValueError."""


class LedgerDatabase(Database):  # type: ignore[misc]
    """The ledger's file as a Datasette database; `close` ends running queries.

    It holds no connection between two queries, so that a writer can checkpoint its log at any time.
    """

    def __init__(self, datasette: Any, path: Path) -> None:
        super().__init__(datasette, path=str(path), is_mutable=True)
        self._file, count = path, datasette.setting("num_sql_threads")
        self._workers = [Worker("the question", CHILD, PLACE, HARD_LIMIT) for _ in range(count)]
        self._idle, self._at_once = [*self._workers], asyncio.Semaphore(count)

    def connect(self, write: bool = False) -> sqlite3.Connection:
        if write:
            raise sqlite3.OperationalError("the ledger is only read here")
        return reader(self._file)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    async def execute(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        truncate: bool = False,
        custom_time_limit: int | None = None,
        page_size: int | None = None,
        log_sql_errors: bool = True,
    ) -> Any:
        # as in Datasette, which would also print errors with their escape sequences
        limit_ms = min(custom_time_limit or self.ds.sql_time_limit_ms, self.ds.sql_time_limit_ms)
        most = self.ds.max_returned_rows + (self.ds.max_returned_rows == (page_size or self.ds.page_size))
        question = {
            "address": address_to_read(self._file),
            "sql": sql,
            "params": params or {},
            "most": most + 1 if truncate else None,
            "seconds": limit_ms / 1000,
        }
        async with self._at_once:
            worker = self._idle.pop()
            try:
                reply, reason = await worker.ask(question)
            finally:
                self._idle.append(worker)
        if reply is None and worker.ended == LATE:
            raise QueryInterrupted(sqlite3.OperationalError("interrupted"), sql, params)
        if reply is None:
            raise sqlite3.OperationalError(reason)
        rows, description = _rows(reply)
        truncated = truncate and len(rows) > most
        return Results(rows[:most] if truncated else rows, truncated, description)

    async def execute_fn(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        def ask() -> Any:
            with closing(self.connect()) as connection:
                self.ds._prepare_connection(connection, self.name)
                connection.set_authorizer(authorize)
                return fn(connection)

        return await asyncio.get_running_loop().run_in_executor(self.ds.executor, ask)

    async def execute_write_fn(self, fn: Any, block: bool = True) -> Any:
        return self.connect(write=True)


def _rows(reply: Any) -> tuple[list[sqlite3.Row], Any]:
    if "error" in reply:
        raise ERRORS.get(reply["error"], ValueError)(reply["what"])
    if reply["columns"] is None:
        return [], None
    names = ", ".join('NULL AS "' + name.replace('"', '""') + '"' for name in reply["columns"])
    with closing(sqlite3.connect(":memory:")) as db:
        cursor = db.execute(f"SELECT {names}")  # a row takes its names from a cursor
        return [sqlite3.Row(cursor, tuple(map(_value, row))) for row in reply["rows"]], cursor.description


def _value(cell: Any) -> Any:
    return b64decode(cell["base64"]) if isinstance(cell, dict) else cell
