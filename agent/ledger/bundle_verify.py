"""Checks a bundle that `optimize audit export --format zip` wrote, with nothing but the standard library.

    python bundle.zip                  the bundle as it is
    python verify.py                   in the folder where it was unpacked
    ... --anchor HASH                  also: is this head, noted elsewhere, in the chain?

Checked are every file against manifest.json, the chain of events.jsonl link by link, each row of tables/ against the
events about it, and each text of blobs/ against its hash and the events that name it. Prints "whole: ..." with the run
that it is of and how much it holds, and ends with 0; or what does not hold, the first event first, and ends with 1.

Knows the bundle's layout and no file of the program that wrote it: this file is copied into every bundle.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

VERSION = 1
GENESIS = "0" * 64
KEYS: Mapping[str, tuple[str, ...]] = {
    "runs": ("id",),
    "candidates": ("id",),
    "demos": ("candidate_id", "position"),
    "proposals": ("run_id", "candidate_id"),
    "trials": ("run_id", "number"),
    "outcomes": ("run_id", "split", "candidate_id", "example_id"),
    "calls": ("id",),
    "owner": ("id",),
}
MANIFEST = {"version", "schema", "run", "head", "counts", "members"}
EVENT = {"seq", "run_id", "utc", "kind", "body", "prev_hash", "hash"}
DEFAULTS = (None, 0, "", "{}")
"""What a column may hold that no event names."""

Place = tuple[Any, ...]
Row = dict[str, Any]
Finding = tuple[int, str]
Read = Callable[[str], bytes]


class Folded:
    """What the events say: `rows` by place with the seq of the last event about each in `seqs`; `texts`, the hashes
    of payload texts with the seq of the first event that names each; `erased`, those that were taken out; `facts`, the
    bodies of all other events, each with its run.
    """

    def __init__(self) -> None:
        self.rows: dict[Place, Row] = {}
        self.seqs: dict[Place, int] = {}
        self.texts: dict[str, int] = {}
        self.erased: set[str] = set()
        self.facts: list[tuple[str, Row]] = []

    def add(self, seq: int, run_id: str, body: str) -> None:
        """Takes one event. Raises ValueError, KeyError or TypeError when its body is not what an event can say."""
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError(f"not the body of an event: {body[:40]}")
        row: Row = said
        if "insert" in said:
            row = said["row"]
            place = (said["insert"], *(row[column] for column in KEYS[said["insert"]]))
            self.rows[place], self.seqs[place] = row, seq
        elif "update" in said:
            row = said["set"]
            place = (said["update"], *said["key"])
            self.rows[place], self.seqs[place] = self.rows[place] | row, seq
        else:
            self.facts.append((run_id, said))
            self.erased.update(said.get("erased", ()))
        for digest in texts_of(row):
            self.texts.setdefault(digest, seq)
            self.erased.discard(digest)  # it came again after it was erased


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """The hashes of the payload texts that a row, or the body of a fact, names."""
    for column, value in row.items():
        if column[-5:] == "_hash" and value and isinstance(value, str):
            yield value


def belonging(folded: Folded, run_id: str) -> set[Place]:
    """The places of a run's rows: its own, its candidates with their demos, and the calls whose replies it took."""
    runs = {place for place, row in folded.rows.items() if run_id in (place[1], row.get("run_id"))}
    candidates = {folded.rows[place]["candidate_id"] for place in runs if place[0] in ("proposals", "trials")}
    keys = {folded.rows[place]["call_key"] for place in runs if place[0] == "calls"}
    for place, row in folded.rows.items():
        answers = place[0] == "calls" and row["state"] == "ok" and row["call_key"] in keys
        if answers or (place[0] in ("candidates", "demos") and place[1] in candidates):
            runs.add(place)
    return runs


def texts_in(folded: Folded, places: Iterable[Place], run_id: str) -> set[str]:
    """The hashes of the texts that these rows and the facts of a run name."""
    found = {digest for place in places for digest in texts_of(folded.rows[place])}
    return found | {digest for whose, fact in folded.facts if whose == run_id for digest in texts_of(fact)}


def check(read: Read, names: set[str], anchor: str = "") -> tuple[list[Finding], dict[str, Any]]:
    """Everything that does not hold, first event first (0: the bundle as a whole), and the manifest."""
    manifest = json.loads(read("manifest.json"), object_pairs_hook=_once)
    found = list(_members(read, names, manifest["members"]))
    missing = {"events.jsonl", *(f"tables/{table}.jsonl" for table in KEYS)} - names
    if manifest["version"] != VERSION or set(manifest) != MANIFEST or missing:
        return [*found, (0, f"not a bundle of version {VERSION}")], manifest
    folded = Folded()
    broken, head = _chain(read, folded, anchor)
    found += broken
    if not broken and [manifest["head"]["seq"], manifest["head"]["hash"]] != head:
        found.append((head[0] + 1, f"the chain ends at event {head[0]}, which is not the head in manifest.json"))
    if not broken:
        run_id = manifest["run"]
        if run_id and ("runs", run_id) not in folded.rows:
            found.append((0, f"no event begins the run that manifest.json names: {run_id}"))
        places = belonging(folded, run_id) if run_id else set(folded.rows)
        for table in KEYS:
            found += _table(read, table, folded, places, head[0])
        for place in places:
            found.append((folded.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}"))
        wanted = texts_in(folded, belonging(folded, run_id), run_id) if run_id else set(folded.texts)
        found += _texts(read, names, folded, wanted)
    if not found and manifest["counts"] != {"events": head[0], "texts": len(_blobs(names))}:
        found.append((0, "the counts in manifest.json are not those of the bundle"))
    return sorted(found), manifest


def _members(read: Read, names: set[str], members: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(names - set(members) - {"manifest.json"}):
        yield 0, f"a file that manifest.json does not name: {name}"
    for name, digest in members.items():
        if name not in names:
            yield 0, f"a file is missing: {name}"
        elif hashlib.sha256(read(name)).hexdigest() != digest:
            yield 0, f"a file was changed: {name}"


def _chain(read: Read, folded: Folded, anchor: str) -> tuple[list[Finding], list[Any]]:
    prev, seq, anchored = GENESIS, 0, not anchor
    for line in _lines(read, "events.jsonl"):
        seq += 1
        try:
            event = _object(line)
            if set(event) != EVENT:
                return [(seq, f"event {seq} has not each key of an event once")], [seq, prev]
            if event["seq"] != seq or event["prev_hash"] != prev or event["hash"] != _link(prev, event):
                raise ValueError
            folded.add(seq, event["run_id"], event["body"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return [(seq, f"event {seq} does not follow from the one before it")], [seq, prev]
        prev = event["hash"]
        anchored = anchored or anchor == prev
    return [] if anchored else [(1, f"no event has the hash that was noted elsewhere: {anchor}")], [seq, prev]


def _link(prev: str, event: Row) -> str:
    fields = {name: event[name] for name in ("seq", "run_id", "utc", "kind", "body")}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256((prev + text).encode("utf-8", "surrogatepass")).hexdigest()


def _table(read: Read, table: str, folded: Folded, places: set[Place], last: int) -> Iterator[Finding]:
    """Compares each row with what the events say of it, and takes it out of `places`."""
    for number, line in enumerate(_lines(read, f"tables/{table}.jsonl"), 1):
        row = _object(line)
        if not row:
            yield last + 1, f"a line of tables/{table}.jsonl is no row, or names a column twice: line {number}"
            continue
        place = (table, *(row.get(column) for column in KEYS[table]))
        name = ", ".join(map(str, place[1:]))
        if any(isinstance(part, (dict, list)) for part in place) or place not in places:
            yield last + 1, f"no event tells of a row of {table}: {name}"
            continue
        places.remove(place)
        said = folded.rows[place]
        if table == "calls" and said["state"] == "reserved" and row["state"] == "sent":
            row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
        wrong = [column for column in {**said, **row} if not _agree(said, row, column)]
        if wrong:
            seq = folded.seqs[place]
            yield seq, f"a row of {table} is not what event {seq} says ({', '.join(wrong)}): {name}"


def _agree(said: Row, row: Row, column: str) -> bool:
    if column not in row:
        return False
    return bool(row[column] == said[column]) if column in said else row[column] in DEFAULTS


def _texts(read: Read, names: set[str], folded: Folded, wanted: set[str]) -> Iterator[Finding]:
    there = _blobs(names)
    for digest in sorted(there):
        seq = folded.texts.get(digest, 0)
        if hashlib.sha256(read(f"blobs/{digest}")).hexdigest() != digest:
            yield seq, f"a text is not what its hash says: {digest}"
        elif digest in folded.erased:
            yield seq, f"a text that was erased is back: {digest}"
        elif digest not in wanted:
            yield seq, f"no event tells of a text: {digest}"
    for digest in sorted(wanted - there - folded.erased):
        yield folded.texts[digest], f"a text is missing: {digest}"


def _blobs(names: set[str]) -> set[str]:
    return {name.removeprefix("blobs/") for name in names if name.startswith("blobs/")}


def _lines(read: Read, name: str) -> list[str]:
    *lines, rest = read(name).decode("utf-8", "replace").split("\n")
    return [*lines, rest] if rest else lines


def _object(line: str) -> Row:
    """The object in a line; {} for what is none, and for one with a key twice, of which readers take different ones."""
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _once(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _verdict(read: Read, names: set[str], manifest: Row) -> str:
    counts = {table: len(_lines(read, f"tables/{table}.jsonl")) for table in KEYS if table != "owner"}
    counts["texts"] = len(_blobs(names))
    head, run = manifest["head"], manifest["run"]
    holds = ", ".join(f"{what} {count}" for what, count in counts.items())
    return f"whole: {head['seq']} events, head {head['hash']}; of {f'the run {run}' if run else 'all runs'}: {holds}"


def _say(text: str) -> None:
    """A bundle is a stranger's: what could steer a terminal is shown as a code."""
    print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def open_bundle(place: Path) -> tuple[Read, set[str]]:
    """How a member is read, and the names of all. `place` is the zip file, or the folder where it was unpacked."""
    if place.is_dir():
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
        names = {name for name in files if "__pycache__" not in name}
        return (lambda name: files[name].read_bytes()), names
    bundle = zipfile.ZipFile(place)
    names = {info.filename for info in bundle.infolist()}
    if len(names) != len(bundle.infolist()):
        raise ValueError("it holds two files of one name")
    return bundle.read, names


def main(words: list[str]) -> int:
    anchor = ""
    if "--anchor" in words:
        at = words.index("--anchor")
        anchor, words = "".join(words[at + 1 : at + 2]), words[:at] + words[at + 2 :]
    place = Path(words[0]) if words else Path(__file__).resolve().parent
    try:
        read, names = open_bundle(place)
        found, manifest = check(read, names, anchor)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        _say(f"event 0: not a readable bundle: {error}")
        return 1
    for seq, what in found:
        _say(f"event {seq}: {what}")
    if not found:
        _say(_verdict(read, names, manifest))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
