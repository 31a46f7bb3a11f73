"""Do the files beside a ledger name heads that it has? A copy from before is whole in itself; what was made since and
lies beside it tells that it is older.

Releases (`RUN/prompt.md`, versions in the registry), lines of `labels.jsonl` and reports note the head that the chain
had when they were made, the run, and which ledger it was: the hash of its first event, which no two ledgers share and
all copies of one have. A file counts against a ledger

- that it names by this id, also where the run is not in the ledger: an older copy does not know it; or
- that has its run. Files of older versions name no ledger, and who makes a chain anew changes its id.

All others are of another ledger, which may have its runs in the same folder. Nor does a file count whose head another
ledger in the folder has (a copy that went on by itself: told as a note). Knows how the files are laid out, and nothing
of what they say otherwise.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.ledger.anchor import HASH
from agent.ledger.connect import reader
from agent.ledger.verify import Finding
from agent.strict import parse_json, parse_toml, read_file

FENCE = "+++"
MOST = 64_000_000  # bytes of a release or a history of labels that are read
START = 4096  # bytes of a page in which its marks stand
_MARK = re.compile(r'<meta name="promptassay-(ledger|ledger_head|run_id)" content="([^"]*)">')


@dataclass(frozen=True, slots=True)
class Witness:
    """A file that names a head; `ledger` is "" in files of older versions."""

    file: Path
    ledger: str
    run_id: str
    head: str


def witnesses(folder: Path, releases: Path) -> list[Witness]:
    """All that lies where runs of a ledger in `folder` write, and in the registry `releases`."""
    found: list[Witness] = []
    for pattern in ("*/prompt.md", "*/held/prompt.md"):
        found += [each for path in sorted(folder.glob(pattern)) for each in _of_release(path)]
    found += [each for path in sorted(releases.glob("*/*/prompt.md")) for each in _of_release(path)]
    found += [each for path in sorted(releases.glob("*/labels.jsonl")) for each in _of_labels(path)]
    for pattern in ("*.html", "*/*.html"):
        found += [each for path in sorted(folder.glob(pattern)) for each in _of_page(path)]
    return found


def missing_heads(db: sqlite3.Connection, path: Path, told: list[Witness]) -> tuple[list[Finding], list[str]]:
    """What the chain lacks that a file of its own says, a finding a file; and notes. `told` must be read before."""
    first = db.execute("SELECT hash FROM events WHERE seq = 1").fetchone()
    runs = {run_id for (run_id,) in db.execute("SELECT id FROM runs")}
    own = [each for each in told if (first and each.ledger == first[0]) or each.run_id in runs]
    lacking = {each.head for each in own} - {head for (head,) in db.execute("SELECT hash FROM events")}
    lost = {each.file: each for each in own if each.head in lacking}
    findings, notes = [], []
    for file, each in lost.items():
        if other := _other_with(path, each.head):
            notes.append(f"{file}: names a head of {other}, which went on from this ledger")
        else:
            what = f"this ledger is older than {file} says, or another: no event has the hash {each.head}"
            findings.append(Finding(0, f"{what}, which run {each.run_id} noted"))
    return findings, notes


def _other_with(path: Path, head: str) -> Path | None:
    """Another ledger in the folder that has this event."""
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
    except (OSError, sqlite3.Error, LedgerError):  # another program's, or damaged: it vouches for nothing
        return False


# -- the files --------------------------------------------------------------------------------------------------------


def _of_release(path: Path) -> Iterator[Witness]:
    try:
        _, front, _ = read_file(path, MOST).decode("utf-8").split(f"{FENCE}\n", 2)
        told = parse_toml(front)["provenance"]
    except (OSError, ValueError, KeyError):  # what is no release says nothing
        return
    yield from _witness(path, told)


def _of_labels(path: Path) -> Iterator[Witness]:
    try:
        lines = read_file(path, MOST).splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            yield from _witness(path, parse_json(line)["evidence"])
        except (ValueError, KeyError, TypeError):  # the last may be cut off; `labels` tells the rest
            continue


def _of_page(path: Path) -> Iterator[Witness]:
    try:
        with path.open("rb") as file:
            start = file.read(START).decode("utf-8", "replace")
    except OSError:
        return
    yield from _witness(path, dict(_MARK.findall(start)))


def _witness(path: Path, told: Mapping[str, Any]) -> Iterator[Witness]:
    if not isinstance(told, Mapping):
        return
    ledger, run_id, head = (str(told.get(key, "")) for key in ("ledger", "run_id", "ledger_head"))
    if HASH.fullmatch(head):
        yield Witness(path, ledger, run_id, head)
