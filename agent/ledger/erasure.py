"""Finds what must go when a person asks to be forgotten: which texts hold a word, what they are, what else holds it.

Reads only; `Ledger.erase` takes the texts out. Names, reasons and error texts stand in rows and events, which the chain
covers: these cannot go, and are told instead.
"""

from __future__ import annotations

import html
import json
import re
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

DEPTH = 5  # of texts that are JSON inside a JSON string
KINDS = (
    ("request", "calls", "request_hash"),
    ("request", "calls", "prefix_hash"),
    ("reply", "calls", "response_hash"),
    ("instruction", "candidates", "instruction_hash"),
    ("prompt", "candidates", "template_hash"),
    ("demo", "demos", "body_hash"),
    ("outcome", "outcomes", "body_hash"),
    ("result", "runs", "result_hash"),
)


def texts_with(db: sqlite3.Connection, needle: str) -> list[str]:
    """The hashes of the texts that hold `needle`: as they stand, or inside their JSON, at any depth of quoting."""
    return [digest for digest, body in db.execute("SELECT hash, body FROM blobs ORDER BY rowid") if holds(body, needle)]


def holds(text: str, needle: str, depth: int = DEPTH) -> bool:
    """Whether `needle` stands in `text`, also where JSON writes it with escapes."""
    if needle in text:
        return True
    if not depth or "\\" not in text:  # without an escape the text is what it says
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return any(holds(part, needle, depth - 1) for part in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case dict(table):
                waiting += [*table, *table.values()]
            case list(items):
                waiting += items


def kinds_of(db: sqlite3.Connection, hashes: Sequence[str]) -> Counter[str]:
    """What the texts are, as words with their number: a text that is two things counts for the first."""
    left, found = set(hashes), Counter[str]()
    for word, table, column in KINDS:
        named = left & {digest for (digest,) in db.execute(f"SELECT DISTINCT {column} FROM {table}")}
        found[word] += len(named)
        left -= named
    found["other text"] += len(left)
    return +found


def events_with(db: sqlite3.Connection, needle: str) -> list[int]:
    """The events that hold `needle` in their own words: the chain keeps these."""
    return [seq for seq, body in db.execute("SELECT seq, body FROM events ORDER BY seq") if holds(body, needle)]


def files_with(folder: Path, needle: str) -> list[Path]:
    """The files under `folder` that hold `needle`, as it is or as JSON writes it; zip files are looked into, and of
    pages what a reader sees."""
    forms = {form.encode("utf-8", "surrogatepass") for form in _forms(needle)}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        path for path in files if _file_holds(path, forms) or (path.suffix == ".html" and _page_holds(path, needle))
    ]


def _page_holds(path: Path, needle: str) -> bool:
    """Whether a reader of the page sees it, however it is escaped or cut by marks of what changed."""
    try:
        page = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return needle in html.unescape(re.sub(r"<[^>]*>", "", page))


def _forms(needle: str) -> Iterable[str]:
    forms = {needle}
    for _ in range(2):  # JSON, and JSON inside of JSON
        forms |= {json.dumps(form, ensure_ascii=ascii_)[1:-1] for form in forms for ascii_ in (True, False)}
    return forms


def _file_holds(path: Path, forms: set[bytes]) -> bool:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                return any(form in zipped.read(name) for name in zipped.namelist() for form in forms)
        data = path.read_bytes()
    except (OSError, zipfile.BadZipFile, RuntimeError):
        return False
    return any(form in data for form in forms)


def older_copies(path: Path) -> list[Path]:
    """The copies that were kept of the ledger when its schema changed."""
    return sorted(path.parent.glob(f"{path.name}.schema*"))
