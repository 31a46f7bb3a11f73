"""Takes the ledger out of its file: every event as JSON lines, or a bundle that checks itself. Reads one snapshot.

A bundle is a pure function of the ledger: the same ledger gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from agent.errors import InputError
from agent.files import new_file
from agent.ledger import chain
from agent.ledger.anchors import head_of
from agent.ledger.schema import AUDITED, VERSION
from agent.ledger.verify import events

README = """A bundle of a ledger: what was asked, answered, scored and decided, in the order in which it happened.

    python THIS.zip                   checks this zip as it is
    python verify.py                  checks the folder where it was unpacked
    ... --anchor HASH                 also asks whether a head that was noted elsewhere is in the chain

verify.py is read in five minutes and needs nothing but Python. It ends with 0 and "whole: ...", with the run that the
bundle is of and how much it holds of it, or names the first event that does not hold.

events.jsonl     every event; `body` is the text that `hash` covers, together with the hash before it
tables/          what the events add up to{part}
blobs/           prompts, requests, replies: each in a file named by its SHA-256. A text that was erased is not here,
                 and an event says who erased it and why
manifest.json    the head of the chain, and the SHA-256 of every other file

Who rewrites all of it can also rewrite the hashes: a head that was noted elsewhere shows that too. Releases and reports
hold one, `optimize audit anchor` prints one.
"""


def write_jsonl(db: sqlite3.Connection, path: Path, force: bool) -> int:
    """Every event as one JSON object a line, its body parsed. Returns how many. Raises InputError if it exists."""
    seq = 0
    with new_export(path, force) as file:
        for event in events(db):
            seq = event["seq"]
            file.write(_line({**event, "body": json.loads(event["body"])}).encode())
    return seq


def write_bundle(db: sqlite3.Connection, path: Path, force: bool, run_id: str = "") -> Mapping[str, Any]:
    """The self-verifying zip; with `run_id` the whole chain, but only this run's rows and texts. Returns its manifest.

    Raises InputError if the file exists.
    """
    with new_export(path, force) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        bundle = _Bundle(zipped)
        folded = chain.Folded()
        bundle.add("events.jsonl", _event_lines(db, folded))
        places = chain.belonging(folded, run_id) if run_id else None
        for table in AUDITED:
            bundle.add(f"tables/{table}.jsonl", _rows(db, table, places))
        wanted = set(folded.texts) if places is None else chain.texts_in(folded, places, run_id)
        for digest, body in db.execute("SELECT hash, body FROM blobs ORDER BY hash"):
            if digest in wanted:
                bundle.add(f"blobs/{digest}", [body])
        script = Path(chain.__file__).read_text("utf-8")
        bundle.add("verify.py", [script])
        bundle.add("__main__.py", [script])
        part = f", for the run {run_id} only" if run_id else ""
        bundle.add("README.txt", [README.format(part=part)])
        seq, digest = head_of(db)
        manifest = {
            "version": chain.VERSION,
            "schema": VERSION,
            "run": run_id,
            "head": {"seq": seq, "hash": digest},
            "counts": {"events": seq, "texts": bundle.texts},
            "members": bundle.members,
        }
        bundle.add("manifest.json", [json.dumps(manifest, indent=1)])
    return manifest


class _Bundle:
    def __init__(self, zipped: zipfile.ZipFile) -> None:
        self._zipped = zipped
        self.members: dict[str, str] = {}
        self.texts = 0

    def add(self, name: str, parts: Iterable[str]) -> None:
        info = zipfile.ZipInfo(name)  # its date is 1980: the bundle says only what the ledger says
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o100600 << 16
        digest = hashlib.sha256()
        with self._zipped.open(info, "w", force_zip64=True) as member:
            for part in parts:
                data = part.encode("utf-8")
                digest.update(data)
                member.write(data)
        self.members[name] = digest.hexdigest()
        self.texts += name.startswith("blobs/")


def _event_lines(db: sqlite3.Connection, folded: chain.Folded) -> Iterator[str]:
    for event in events(db):
        folded.add(event["seq"], event["run_id"], event["body"])
        yield _line(event)


def _rows(db: sqlite3.Connection, table: str, places: set[chain.Place] | None) -> Iterator[str]:
    key = AUDITED[table]
    cursor = db.execute(f"SELECT * FROM {table} ORDER BY {', '.join(key)}")
    columns = [column[0] for column in cursor.description]
    for values in cursor:
        row = dict(zip(columns, values, strict=True))
        if places is None or (table, *(row[column] for column in key)) in places:
            yield _line(row)


def _line(value: Mapping[str, Any]) -> str:
    """In ASCII, so that no character can break the line or steer a terminal."""
    return json.dumps(value) + "\n"


@contextmanager
def new_export(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file for its owner only, made whole or not at all. Raises InputError when it is there or cannot be made."""
    if not force and (path.exists() or path.is_symlink()):
        raise InputError(f"{path}: is there already; choose another name, or add --force")
    try:
        with new_file(path, private=True) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place with -o") from error
