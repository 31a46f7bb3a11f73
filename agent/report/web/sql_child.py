"""One question in SQL, in a process of its own: SQLite stops at no limit of time or memory inside one of its functions,
but a process can be ended. Stands alone: run by its path with the standard library only, so that it starts at once.

It reads a question from stdin and prints the answer, both as JSON. The timer that kills it is its own, so it is not left
behind when the server dies.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import sys
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

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
NO_FUNCTIONS = {"load_extension", "fts3_tokenizer"}
LONGEST = 16 << 20  # bytes of a value that a question may make
MEMORY = 512 << 20  # bytes of address space
LARGEST = 32 << 20  # bytes of an answer


def may(action: int, first: str | None, second: str | None, *_: Any) -> int:
    """SQLite's question whether a statement may do this."""
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in PRAGMAS else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and second in NO_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY


def answer(question: Mapping[str, Any]) -> str:
    """`columns` (None where a statement has none) and at most `most` rows (None: all), or what was wrong with it."""
    try:
        connection = sqlite3.connect(question["address"], uri=True)
        connection.text_factory = lambda text: str(text, "utf-8", "replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        connection.execute("PRAGMA temp_store = MEMORY")  # what is sorted would fill the disk otherwise
        connection.set_authorizer(may)
        cursor = connection.execute(question["sql"], question["params"])
        rows = cursor.fetchall() if question["most"] is None else cursor.fetchmany(question["most"])
        columns = cursor.description and [column[0] for column in cursor.description]
        text = json.dumps({"columns": columns, "rows": rows}, default=_blob)
        if len(text) > LARGEST:
            raise sqlite3.OperationalError(f"the answer has more than {LARGEST >> 20} MB; ask for less of it")
        return text
    except MemoryError:
        return _wrong("OperationalError", f"it takes more than {MEMORY >> 20} MB of memory; ask for less at once")
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return _wrong(type(error).__name__, str(error))


def _blob(value: bytes) -> dict[str, str]:
    return {"base64": b64encode(value).decode()}


def _wrong(kind: str, what: str) -> str:
    return json.dumps({"error": kind, "what": what})


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process wherever it is
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
    print(answer(asked))
