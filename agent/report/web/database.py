"""The ledger for Datasette's own pages: a connection for each question, closed at once, that can do nothing but read.

SQLite itself refuses to write (`mode=ro`), and its authorizer refuses whatever is no reading.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ledger.connect import reader

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
PRAGMAS = {
    "database_list",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "schema_version",
    "table_info",
    "table_xinfo",
    "compile_options",
}
LONGEST = 64 << 20  # bytes of a value that a question may make
NO_FUNCTIONS = {"load_extension", "fts3_tokenizer"}


def may(action: int, first: str | None, second: str | None, *_: Any) -> int:
    """SQLite's question whether a statement may do this."""
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in PRAGMAS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and second in NO_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY


def read_only(datasette: Any, path: Path) -> Any:
    """A Datasette Database over the file. It holds no connection between two questions, so that a writer's log can be
    emptied at any time."""
    from datasette.database import Database

    class Ledger(Database):  # type: ignore[misc]
        def connect(self, write: bool = False) -> sqlite3.Connection:
            if write:
                raise sqlite3.OperationalError("the ledger is only read here")
            connection = reader(path)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            return connection

        async def execute(self, *args: Any, **options: Any) -> Any:
            """A question with a mistake in it is answered on the page; Datasette would print it, escapes and all."""
            return await super().execute(*args, **{**options, "log_sql_errors": False})

        async def execute_fn(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
            def ask() -> Any:
                connection = self.connect()
                try:
                    self.ds._prepare_connection(connection, self.name)
                    connection.set_authorizer(may)
                    return fn(connection)
                finally:
                    connection.close()

            return await asyncio.get_running_loop().run_in_executor(self.ds.executor, ask)

        async def execute_write_fn(self, fn: Any, block: bool = True) -> Any:
            return self.connect(write=True)

    return Ledger(datasette, path=str(path), is_mutable=True)
