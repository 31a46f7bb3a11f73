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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.query import REPLY, TOOL_TEXTS, History, Row
from agent.safe_text import whole_characters

MOST_TEXTS = 2_000_000
MOST_CHARS = 500_000_000
"""Size limit of an index, which takes about three times its characters in memory."""
MARK = "**"
"""Surrounds each word found."""
SNIPPET_WORDS = 24
COLUMNS = ("what", "run", "trial", "candidate_id", "row", "split", "score")
"""Metadata of an indexed text."""
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
    """Search the texts of a run, or of all runs, with an FTS5 query; best (bm25) first, at most `limit`.

    Raises InputError for a bad query, and if there is too much text for an index.
    """
    if not words.strip():
        raise InputError("--search: no search words; give some")
    _require_few(history, run_id)
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


def _require_few(history: History, run_id: str) -> None:
    outcomes, proposals = (f"(SELECT COUNT(*) FROM {table} WHERE {_OF_RUN})" for table in ("outcomes", "proposals"))
    (counted,) = history.select(f"SELECT {outcomes} + 2 * {proposals} AS texts", run_id)
    if counted["texts"] > MOST_TEXTS:
        raise _too_much(f"{counted['texts']:,} texts, and an index in memory takes {MOST_TEXTS:,}")


def _bounded(texts: Iterator[Row]) -> Iterator[Row]:
    chars = 0
    for text in texts:
        chars += len(text["text"])
        if chars > MOST_CHARS:
            raise _too_much(f"more than {MOST_CHARS:,} characters, which an index in memory takes")
        yield text


def _too_much(what: str) -> InputError:
    return InputError(f"--search: there are {what}; name one run: `optimize history --search WORDS RUN`")


_OF_RUN = "(?1 = '' OR run_id = ?1)"


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
        yield text("prompt", found, _prompt(found))
        yield text("reason", found, " - ".join(filter(None, (found["reason"], found["rejected"]))))
    for found in history.each(
        "SELECT e.run_id, json_extract(e.body, '$.candidate_id') AS candidate_id, b.body FROM events e "
        "JOIN blobs b ON b.hash = json_extract(e.body, '$.tool_texts_hash') "
        f"WHERE e.kind = '{TOOL_TEXTS}' AND {_OF_RUN} ORDER BY e.seq",
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


def _prompt(candidate: Row) -> str:
    messages = json.loads(candidate["template"] or "[]")
    return "\n\n".join(message["content"] for message in messages) or candidate["instruction"] or ""


# -- erasure ----------------------------------------------------------------------------------------------------------


def texts_with(db: sqlite3.Connection, needle: str) -> list[str]:
    """Return the hashes of texts that contain `needle`, also inside quoted JSON at any depth."""
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
    """Find files under `folder` that contain `needle`, plain or JSON-escaped.

    Zip files are searched inside, and HTML pages by their visible text.
    """
    forms = {form.encode("utf-8", "surrogatepass") for form in _forms(needle)}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        path for path in files if _file_holds(path, forms) or (path.suffix == ".html" and _page_holds(path, needle))
    ]


def _page_holds(path: Path, needle: str) -> bool:
    try:
        page = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return needle in html.unescape(re.sub(r"<[^<>]*>", "", page))


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
