"""Answer SQL questions in a child process: no time limit works inside SQLite, but a process can be stopped.

Imports only the standard library, as the child has nothing else.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from typing import Any

PLACE = __file__
"""The path of this file, for the child process."""
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
PRAGMAS = {"database_list", "schema_version", "compile_options", "table_info", "table_xinfo", "foreign_key_list"}
PRAGMAS |= {"index_list", "index_info", "index_xinfo"}
NO_FUNCTIONS = {"load_extension", "fts3_tokenizer"}
LONGEST = 16 << 20  # bytes of a value that a question may make
LARGEST = 32 << 20  # characters of an answer
MEMORY = 512 << 20  # bytes of address space of the whole process


def authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    """Decide whether a statement may do this: SQLite's authorizer."""
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in PRAGMAS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and second in NO_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY


def limit_memory() -> None:
    """Limit the address space of this process to MEMORY."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def answer(question: Mapping[str, Any]) -> str:
    """Return JSON: `columns` and at most `most` rows, or `error` and `what`.

    After `seconds` the kernel ends this process, so it never outlives a server that died.
    """
    signal.setitimer(signal.ITIMER_REAL, question["seconds"])
    try:
        with closing(sqlite3.connect(question["address"], uri=True)) as db:
            return _answer(db, question)
    except MemoryError:
        return json.dumps({"error": "OperationalError", "what": "it takes too much memory; ask for less at once"})
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return json.dumps({"error": type(error).__name__, "what": str(error)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(db: sqlite3.Connection, question: Mapping[str, Any]) -> str:
    db.text_factory = lambda text: str(text, "utf-8", "replace")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    db.execute("PRAGMA temp_store = MEMORY")  # what is sorted must not fill the disk
    db.set_authorizer(authorize)
    cursor = db.execute(question["sql"], question["params"])
    rows = cursor.fetchall() if question["most"] is None else cursor.fetchmany(question["most"])
    columns = cursor.description and [column[0] for column in cursor.description]
    text = json.dumps({"columns": columns, "rows": rows}, default=lambda value: {"base64": b64encode(value).decode()})
    if len(text) > LARGEST:
        raise sqlite3.OperationalError(f"the answer has more than {LARGEST >> 20} MB; ask for less at once")
    return text
