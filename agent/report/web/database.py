"""The ledger for Datasette's own pages: a connection for each question, closed at once, that can do nothing but read.

SQLite itself refuses to write (`mode=ro`), and its authorizer refuses whatever is no reading. Whatever SQL there is goes
to a child process (`sql_child.py`), as only that can be stopped in time; Datasette's own questions about the schema stay.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.ledger.connect import address_to_read, reader
from agent.report.web import sql_child

STARTING = 10  # seconds that a child may take beside its question's, on a busy machine
TOLD = {kind.__name__: kind for kind in (*sqlite3.Error.__subclasses__(), *sqlite3.DatabaseError.__subclasses__())}
"""The errors of a question that are told by their names; any other is a ValueError."""


def read_only(datasette: Any, path: Path) -> Any:
    """A Datasette Database over the file. It holds no connection between two questions, so that a writer's log can be
    emptied at any time."""
    from datasette.database import Database, QueryInterrupted, Results

    at_once = asyncio.Semaphore(datasette.setting("num_sql_threads"))

    class Ledger(Database):  # type: ignore[misc]
        def connect(self, write: bool = False) -> sqlite3.Connection:
            if write:
                raise sqlite3.OperationalError("the ledger is only read here")
            return reader(path)

        async def execute(
            self,
            sql: str,
            params: Sequence[Any] | Mapping[str, Any] | None = None,
            truncate: bool = False,
            custom_time_limit: int | None = None,
            page_size: int | None = None,
            log_sql_errors: bool = True,
        ) -> Any:
            """Datasette's limits: of rows (where it would `truncate` them) and of milliseconds."""
            limit_ms = min(custom_time_limit or self.ds.sql_time_limit_ms, self.ds.sql_time_limit_ms)
            most = self.ds.max_returned_rows + (self.ds.max_returned_rows == (page_size or self.ds.page_size))
            question = {
                "address": address_to_read(path),
                "sql": sql,
                "params": params or {},
                "most": most + 1 if truncate else None,
                "seconds": limit_ms / 1000,
            }
            async with at_once:
                code, text = await _asked(question)
            if code == -signal.SIGALRM:
                raise QueryInterrupted(sqlite3.OperationalError("interrupted"), sql, params)
            if code != 0:
                raise sqlite3.OperationalError("the question ended the process that answers it; ask for less at once")
            rows, description = await asyncio.to_thread(_told, text)
            return Results(rows[:most], True, description) if truncate and len(rows) > most else Results(rows, False, description)

        async def execute_fn(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
            def ask() -> Any:
                with closing(self.connect()) as connection:
                    self.ds._prepare_connection(connection, self.name)
                    connection.set_authorizer(sql_child.may)
                    return fn(connection)

            return await asyncio.get_running_loop().run_in_executor(self.ds.executor, ask)

        async def execute_write_fn(self, fn: Any, block: bool = True) -> Any:
            return self.connect(write=True)

    return Ledger(datasette, path=str(path), is_mutable=True)


async def _asked(question: Mapping[str, Any]) -> tuple[int, bytes]:
    """Exit code of the child that was asked (negative: the signal that ended it), and what it said."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", sql_child.__file__),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
    )
    try:
        told = child.communicate(json.dumps(question).encode())
        text, _ = await asyncio.wait_for(told, question["seconds"] + STARTING)
    except TimeoutError:
        text = b""
    finally:  # also when the server is told to end
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return child.returncode, text


def _told(text: bytes) -> tuple[list[sqlite3.Row], Any]:
    """Rows as SQLite has them, and the cursor's description. Raises what went wrong in the child."""
    told = json.loads(text, object_hook=lambda found: b64decode(found["base64"]) if "base64" in found else found)
    if "error" in told:
        raise TOLD.get(told["error"], ValueError)(told["what"])
    if told["columns"] is None:
        return [], None
    names = ", ".join('NULL AS "' + name.replace('"', '""') + '"' for name in told["columns"])
    with closing(sqlite3.connect(":memory:")) as db:
        cursor = db.execute(f"SELECT {names}")  # a row takes its names from a cursor
        return [sqlite3.Row(cursor, tuple(row)) for row in told["rows"]], cursor.description
