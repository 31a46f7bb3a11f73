"""Chain heads noted outside the ledger: they reveal a recreated ledger, or an older copy in its place.

An anchor is the number and hash of the last event at one moment, kept by the user. Witnesses are files written by the
ledger's runs: releases (`RUN/prompt.md`, versions in the registry), lines of `aliases.jsonl` and reports. Each notes
the chain's head at the time, the run, and the ledger's id: the hash of its first event, unique per ledger and shared by
its copies. A file counts against a ledger with that id (an older copy does not know the run) or with that run (a
recreated chain has another id). Other files belong to other ledgers in the folder; a head found in another ledger there
(a copy that was continued) becomes a note.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger.chain import Finding, structure
from agent.ledger.connect import head_of, reader, refuse_merged
from agent.ledger.provenance import utc_now
from agent.ledger.verify import chains, verify
from agent.safe_data import parse_json
from agent.safe_file import read_file

HASH = re.compile("[0-9a-f]{64}")
FENCE = "+++"
MOST = 64_000_000  # most bytes read of a release or an alias history
START = 4096  # bytes at the start of a page that contain its marks
_MARK = re.compile(r'<meta name="promptassay-(ledger|ledger_head|run_id)" content="([^"]*)">')


def checked(db: sqlite3.Connection, anchor: str | None = None) -> tuple[int, str, list[Finding]]:
    """Verify a ledger; return number and hash of its last covered event, and the findings.

    0 and "" if the head cannot be read.
    """
    try:
        events, head = (0, "") if structure(db) else head_of(db)
    except sqlite3.Error:
        events, head = 0, ""
    return events, head, verify(db, anchor)


def anchor(db: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """Return the chain's head: seq, hash, utc and the ledger's path. Raises LedgerError for a merged ledger."""
    refuse_merged(db, path, "each of its chains has a head, as `optimize audit verify --json` lists them")
    seq, digest = head_of(db)
    return {"seq": seq, "hash": digest, "utc": utc_now(), "ledger": str(path)}


def noted_hash(word: str) -> str:
    """Read a hash from `word`: a hash, or a file that notes one.

    Such a file is an anchor, `--json` output or a release. Raises InputError.
    """
    if HASH.fullmatch(word):
        return word
    try:
        text = Path(word).read_text("utf-8")
    except (OSError, ValueError):
        raise InputError(
            f"{word}: neither a hash (64 hex digits) nor a readable file; give the output of `optimize audit anchor`"
        ) from None
    for name in ("ledger_head", "hash"):
        if found := re.search(rf'\b{name}"?\s*[=:]\s*"([0-9a-f]{{64}})"', text):
            return found[1]
    raise InputError(f"{word}: contains no ledger head; give the output of `optimize audit anchor`, or a release")


@dataclass(frozen=True, slots=True)
class Witness:
    """A file that names a head, with its run and its ledger."""

    file: Path
    ledger: str
    run_id: str
    head: str


def witnesses(folder: Path, releases: Path) -> list[Witness]:
    """Find the witnesses written by runs of a ledger in `folder`, and in the registry `releases`."""
    of_runs, of_versions = ("*/prompt.md", "*/held/prompt.md"), ("*/*/prompt.md", "*/aliases.jsonl")
    places = [*((folder, name) for name in of_runs), *((releases, name) for name in of_versions)]
    places += [(folder, name) for name in ("*.html", "*/*.html")]
    found = []
    for path in (path for at, name in places for path in sorted(at.glob(name))):
        for noted in _noted(path):
            ledger, run_id, head = (str(noted.get(key, "")) for key in ("ledger", "run_id", "ledger_head"))
            if HASH.fullmatch(head):
                found.append(Witness(path, ledger, run_id, head))
    return found


def _noted(path: Path) -> Iterator[Mapping[str, Any]]:
    found: list[Any] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        if path.suffix == ".html":
            with path.open("rb") as file:
                found.append(dict(_MARK.findall(file.read(START).decode("utf-8", "replace"))))
        elif path.suffix == ".md":
            _, front, _ = read_file(path, MOST).decode("utf-8").split(f"{FENCE}\n", 2)
            found.append(parse_json(front)["provenance"])
        else:
            for line in read_file(path, MOST).splitlines():
                with suppress(ValueError, KeyError, TypeError):  # the last line may be cut off; `aliases` reports that
                    found.append(parse_json(line)["evidence"])
    yield from (each for each in found if isinstance(each, Mapping))


def missing_heads(db: sqlite3.Connection, path: Path, noted: list[Witness]) -> tuple[list[Finding], list[str]]:
    """Return one finding per file whose head the chain lacks, and notes. Read `noted` beforehand."""
    ids = {chain.ledger for chain in chains(db).values()}
    runs = {run_id for (run_id,) in db.execute("SELECT id FROM runs")}
    own = [each for each in noted if each.ledger in ids or each.run_id in runs]
    lacking = {each.head for each in own} - {head for (head,) in db.execute("SELECT hash FROM events")}
    lost = {each.file: each for each in own if each.head in lacking}
    findings, notes = [], []
    for file, each in lost.items():
        if other := _other_with(path, each.head):
            notes.append(f"{file}: names a head of {other}, which continued this ledger")
        else:
            what = f"this ledger is older than {file}, or another one: no event has the hash {each.head}"
            findings.append(Finding(0, f"{what}, which run {each.run_id} noted"))
    return findings, notes


def _other_with(path: Path, head: str) -> Path | None:
    for other in sorted(path.parent.iterdir()):
        if other.is_file() and not (path.exists() and other.samefile(path)) and _has(other, head):
            return other
    return None


def _has(path: Path, head: str) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return False
        with closing(reader(path)) as db:
            return db.execute("SELECT 1 FROM events WHERE hash = ?", (head,)).fetchone() is not None
    except (OSError, sqlite3.Error, LedgerError):  # a foreign or damaged file proves nothing
        return False
