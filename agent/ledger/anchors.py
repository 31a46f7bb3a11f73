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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError, LedgerError
from agent.ledger.chain import Finding, structure
from agent.ledger.connect import head_of, reader, refuse_merged
from agent.ledger.provenance import utc_now
from agent.ledger.verify import chains, verify
from agent.results.base import Result
from agent.safe_data import parse_json
from agent.safe_file import read_file

HASH = re.compile("[0-9a-f]{64}")
FENCE = "+++"
RELEASED = ("prompt.md", "texts.json")
MOST = 64_000_000  # most bytes read of a release or an alias history
START = 4096  # bytes at the start of a page that contain its marks
_MARK = re.compile(r'<meta name="promptassay-(ledger|ledger_head|run_id)" content="([^"]*)">')


class FoundWrong(Result):
    """A violation; `seq` is the event that it contradicts (0: the file as a whole)."""

    seq: int
    what: str

    def __str__(self) -> str:
        return str(Finding(self.seq, self.what))

    @staticmethod
    def of(findings: Iterable[Finding]) -> tuple[FoundWrong, ...]:
        return tuple(FoundWrong(seq=seq, what=what) for seq, what in findings)


def checked(db: sqlite3.Connection, anchor: str | None = None) -> tuple[int, str, list[Finding]]:
    """Verify a ledger. Returns number and hash of the last event (0 and "" if unreadable), and the findings."""
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
    """Read a hash, or a file that records one (an anchor, `--json` output, a release)."""
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
    """Find the witnesses that runs wrote to `folder` and to the registry `releases`."""
    places = [(folder, f"{at}/{name}") for name in RELEASED for at in ("*", "*/held")]
    places += [(releases, name) for name in (*(f"*/*/{each}" for each in RELEASED), "*/aliases.jsonl")]
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
        elif path.suffix == ".json":
            found.append(parse_json(read_file(path, MOST))["provenance"])
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
    nearby = sorted(path.parent.iterdir()) if lost else []
    others = [other for other in nearby if other.is_file() and not (path.exists() and other.samefile(path))]
    for file, each in lost.items():
        if other := next((other for other in others if _has(other, each.head)), None):
            notes.append(f"{file}: names a head of {other}, which continued this ledger")
        else:
            what = f"this ledger is older than {file}, or another one: no event has the hash {each.head}"
            findings.append(Finding(0, f"{what}, which run {each.run_id} noted"))
    return findings, notes


def _has(path: Path, head: str) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return False
        with closing(reader(path)) as db:
            return db.execute("SELECT 1 FROM events WHERE hash = ?", (head,)).fetchone() is not None
    except (OSError, sqlite3.Error, LedgerError):  # a foreign or damaged file proves nothing
        return False
