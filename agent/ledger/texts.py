"""Full-text search over runs, and finding what an erasure must remove. Reads only.

The index over prompts, reasons of proposals and replies is built in memory for each search, so that no erased text
stays in it. `Ledger.erase` removes texts; names, reasons and error texts in rows and events stay, and are listed.
"""

from __future__ import annotations

import html
import json
import re
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.query import REPLY, TEXT_EVENTS, History, Row
from agent.safe_text import whole_characters

MOST_TEXTS = 2_000_000
MOST_CHARS = 500_000_000  # size limit of an index, which takes about three times its characters in memory
MARK = "**"  # surrounds each word found
SNIPPET_WORDS = 24
COLUMNS = ("what", "run", "trial", "candidate_id", "row", "split", "score")  # metadata of an indexed text
DEPTH = 5  # of nested JSON strings
KINDS = (
    ("request", "calls", "request_hash"),
    ("request", "calls", "prefix_hash"),
    ("reply", "calls", "response_hash"),
    ("instruction", "candidates", "instruction_hash"),
    ("prompt", "candidates", "template_hash"),
    ("example", "examples", "body_hash"),
    ("outcome", "outcomes", "body_hash"),
    ("result", "runs", "result_hash"),
)


# -- full-text search -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextHit:
    """A text that contains the words. `what`: prompt, reason or reply.

    `trial` is None if never tried; `row` and `split` are "" without a row. `score`: of the row, else of the trial on
    dev, 0 to 1. `snippet`: the matching part with words marked; untrusted, as all texts are.
    """

    what: str
    run: str
    trial: int | None
    candidate_id: str
    row: str
    split: str
    score: float | None
    snippet: str


@dataclass(frozen=True, slots=True)
class Found:
    """`hits` are the best of `matches` among `texts`."""

    texts: int
    matches: int
    hits: tuple[TextHit, ...]


def search(history: History, words: str, run_id: str = "", limit: int = 50) -> Found:
    """Search texts with an FTS5 query, best match (bm25) first.

    An empty `run_id` searches all runs. Raises InputError.
    """
    if not words.strip():
        raise InputError("--search: no search words; give some")
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, {' UNINDEXED, '.join(COLUMNS)} UNINDEXED)")
        names = ("text", *COLUMNS)
        put = f"INSERT INTO texts ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
        index.executemany(put, _bounded(_texts(history, run_id)))
        (texts,) = index.execute("SELECT COUNT(*) FROM texts").fetchone()
        try:
            (matches,) = index.execute("SELECT COUNT(*) FROM texts WHERE texts MATCH ?", (words,)).fetchone()
            hits = index.execute(
                f"SELECT {', '.join(COLUMNS)}, snippet(texts, 0, ?, ?, '…', ?) "
                "FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?",
                (MARK, MARK, SNIPPET_WORDS, words, limit),
            )
            return Found(texts, matches, tuple(TextHit(*hit) for hit in hits))
        except sqlite3.OperationalError as error:
            plain = " ".join('"' + word.replace('"', '""') + '"' for word in words.split())
            raise InputError(
                f"--search {words}: not a full-text query ({error}); for plain words use {plain}"
            ) from error


def _bounded(texts: Iterator[Row]) -> Iterator[Row]:
    chars = 0
    for number, text in enumerate(texts, 1):
        chars += len(text["text"])
        if number > MOST_TEXTS or chars > MOST_CHARS:
            most = f"more than {MOST_TEXTS:,} texts or {MOST_CHARS:,} characters, which an index in memory takes"
            raise InputError(f"--search: there are {most}; name one run: `optimize history --search WORDS RUN`")
        yield text


_OF_RUN = "? IN ('', run_id)"


def _texts(history: History, run_id: str) -> Iterator[Row]:
    trials = {
        (row["run_id"], row["candidate_id"]): row
        for row in history.each(f"SELECT run_id, candidate_id, number, mean FROM trials WHERE {_OF_RUN}", run_id)
    }

    def text(what: str, found: Row, text: str, row: str = "", split: str = "", **own: Any) -> Row:
        trial = trials.get((found["run_id"], found["candidate_id"]), {"number": None, "mean": None})
        return {
            "what": what,
            "run": found["run_id"],
            "trial": trial["number"],
            "candidate_id": found["candidate_id"],
            "row": row,
            "split": split,
            "score": own.get("score", trial["mean"]),
            "text": whole_characters(text),
        }

    for found in history.each(
        "SELECT p.run_id, p.candidate_id, p.reason, p.rejected, c.instruction, c.template FROM proposals p "
        f"JOIN prompts c ON c.id = p.candidate_id WHERE {_OF_RUN} ORDER BY p.rowid",
        run_id,
    ):
        messages = json.loads(found["template"] or "[]")
        prompt = "\n\n".join(message["content"] for message in messages)
        yield text("prompt", found, prompt or found["instruction"] or "")
        yield text("reason", found, " - ".join(filter(None, (found["reason"], found["rejected"]))))
    for found in history.each(
        "SELECT e.run_id, json_extract(e.body, '$.candidate_id') AS candidate_id, b.body FROM events e "
        "JOIN blobs b ON b.hash = json_extract(e.body, '$.tool_texts_hash') "
        f"WHERE e.kind = '{TEXT_EVENTS['tool_texts']}' AND {_OF_RUN} ORDER BY e.seq",
        run_id,
    ):
        texts = json.loads(found["body"])
        said = [*texts["descriptions"].values(), *(each for of in texts["arguments"].values() for each in of.values())]
        yield text("prompt", found, "\n".join(said))
    for found in history.each(
        f"SELECT o.run_id, o.candidate_id, o.example_id, o.split, o.value, {REPLY} AS reply FROM outcomes o "
        f"WHERE {_OF_RUN} ORDER BY o.rowid",
        run_id,
    ):
        if found["reply"] is not None:
            reply = json.loads(found["reply"])["text"]
            yield text("reply", found, reply, found["example_id"], found["split"], score=found["value"])


# -- erasure ----------------------------------------------------------------------------------------------------------


def texts_with(db: sqlite3.Connection, needle: str) -> list[str]:
    """Return the hashes of texts that contain `needle`."""
    return [digest for digest, body in db.execute("SELECT hash, body FROM blobs ORDER BY rowid") if holds(body, needle)]


def holds(text: str, needle: str, depth: int = DEPTH) -> bool:
    """Return whether `text` contains `needle`, also with JSON escapes."""
    if needle in text:
        return True
    if not depth or "\\" not in text:  # without an escape there is nothing to decode
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
    """Count texts by kind; a text of two kinds counts for the first."""
    left, found = set(hashes), Counter[str]()
    for word, table, column in KINDS:
        named = left & {digest for (digest,) in db.execute(f"SELECT DISTINCT {column} FROM {table}")}
        found[word] += len(named)
        left -= named
    found["other text"] += len(left)
    return +found


def events_with(db: sqlite3.Connection, needle: str) -> list[int]:
    """Return the events that contain `needle` in their body, which the chain keeps."""
    return [seq for seq, body in db.execute("SELECT seq, body FROM events ORDER BY seq") if holds(body, needle)]


def files_with(folder: Path, needle: str) -> list[Path]:
    """Find files that contain `needle`.

    Zip files, JSON escapes and the visible text of HTML pages are searched as well.
    """
    written = {needle}
    for _ in range(2):  # JSON, and JSON inside of JSON
        written |= {json.dumps(form, ensure_ascii=ascii_)[1:-1] for form in written for ascii_ in (True, False)}
    forms = {form.encode("utf-8", "surrogatepass") for form in written}
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _file_holds(path, needle, forms)]


def _file_holds(path: Path, needle: str, forms: set[bytes]) -> bool:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                return any(form in zipped.read(name) for name in zipped.namelist() for form in forms)
        data = path.read_bytes()
    except (OSError, zipfile.BadZipFile, RuntimeError):
        return False
    if path.suffix == ".html" and needle in html.unescape(re.sub(r"<[^<>]*>", "", data.decode("utf-8", "replace"))):
        return True
    return any(form in data for form in forms)
