"""The hash chain of a ledger: what its events say, and whether rows and texts are what they say.

A copy of this file is in each bundle as verify.py, so it needs the standard library only:

    python bundle.zip                  the bundle as it is
    python verify.py                   in the folder where it was unpacked
    ... --anchor HASH                  also: is this head, noted elsewhere, in the chain?

Checked are every file against manifest.json, the chain of events.jsonl link by link, each row of tables/ against the
events about it, and each text of blobs/ against its hash and the events that name it. Prints "whole: ..." with the run
and how much the bundle holds of it, and ends with 0; or what does not hold, the first event first, and ends with 1.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as it was put, also in place of an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from pathlib import Path
from typing import Any, NamedTuple

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
"""Each table that the chain describes, with the columns of its primary key."""
MANIFEST = {"version", "schema", "run", "head", "counts", "members"}
EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")
"""The columns of an event."""
DEFAULTS = (None, 0, "", "{}")
"""What a column of a bundle may hold that no event names."""

Place = tuple[Any, ...]
Row = dict[str, Any]
Read = Callable[[str], bytes]


class Finding(NamedTuple):
    """Something that does not hold: `seq` is the event that says otherwise (0: the file as a whole)."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.what}" if self.seq else self.what


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
    """The places of a run's rows: its own, its candidates with their examples, and the calls whose replies it took."""
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


# -- the chain ---------------------------------------------------------------------------------------------------------


def link(prev_hash: str, event: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the previous hash and the canonical JSON (RFC 8785) of seq, run_id, utc, kind and body."""
    text = (
        f'{prev_hash}{{"body":{_quoted(event["body"])},"kind":{_quoted(event["kind"])},'
        f'"run_id":{_quoted(event["run_id"])},"seq":{event["seq"]},"utc":{_quoted(event["utc"])}}}'
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def follows(event: Mapping[str, Any], seq: int, prev_hash: str) -> bool:
    """Whether `event` is the one with number `seq`, linked to the hash of the event before it."""
    return bool(event["seq"] == seq and event["prev_hash"] == prev_hash and event["hash"] == link(prev_hash, event))


def first_break(events: Iterable[Mapping[str, Any]], seq: int = 0, prev_hash: str = GENESIS) -> int | None:
    """The seq of the first event that does not follow from the one before it, or None when the chain holds.

    `seq` and `prev_hash` are those of the event that the first one must follow.
    """
    for number, event in enumerate(events, seq + 1):
        if not follows(event, number, prev_hash):
            return number
        prev_hash = event["hash"]
    return None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the events of one chain say up to its end, event `seq` with the hash `head`; `anchored`: whether one has the
    hash that was noted elsewhere; `broken`: where the chain does not hold."""

    folded: Folded
    seq: int
    head: str
    anchored: bool
    broken: Finding | None = None

    def lacks(self, anchor: str | None) -> list[Finding]:
        """The finding about a chain that has no event with the hash that was noted elsewhere."""
        return [] if self.anchored else [Finding(1, f"no event has the hash that was noted elsewhere: {anchor}")]


def replay(chain: Iterable[Mapping[str, Any]], anchor: str | None = None) -> Replayed:
    """Follow a chain link by link from its first event, and fold what its events say into rows."""
    folded, prev, seq, anchored = Folded(), GENESIS, 0, anchor is None
    for event in chain:
        seq += 1
        wrong = ""
        try:
            if event["seq"] != seq:
                wrong = "is missing"
            elif follows(event, seq, prev):
                folded.add(seq, event["run_id"], event["body"])
            else:
                wrong = "does not follow from the one before it"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            wrong = "does not follow from the one before it"
        if wrong:
            return Replayed(folded, seq, prev, anchored, Finding(seq, f"event {seq} {wrong}"))
        prev = event["hash"]
        anchored = anchored or anchor == prev
    return Replayed(folded, seq, prev, anchored)


# -- rows and texts ----------------------------------------------------------------------------------------------------


def compare(
    table: str,
    rows: Iterable[Row],
    said: dict[Place, Row],
    folded: Folded,
    last: int,
    empty: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Compare each row with what the events say of it, and take it out of `said`, the rows that should be there.

    `last` is the number of the last event; `empty` what a column holds where no event names it (None: any of DEFAULTS).
    """
    for row in rows:
        place = (table, *(row.get(column) for column in KEYS[table]))
        known = said.pop(place, None)
        name = ", ".join(map(str, place[1:]))
        if known is None:
            yield Finding(last + 1, f"no event tells of a row of {table}: {name}")
            continue
        if table == "calls" and known["state"] == "reserved" and row["state"] == "sent":
            row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
        usual = empty if empty is not None else {column: value for column, value in row.items() if value in DEFAULTS}
        if (full := {**usual, **known}) != row:
            wrong = [column for column in row | full if full.get(column, ...) != row.get(column, ...)]
            seq = folded.seqs[place]
            yield Finding(seq, f"a row of {table} is not what event {seq} says ({', '.join(wrong)}): {name}")


def left_over(said: Mapping[Place, Row], folded: Folded) -> Iterator[Finding]:
    """The rows that events tell of and that were not compared: they are not there."""
    for place in said:
        yield Finding(folded.seqs[place], f"a row of {place[0]} is missing: {', '.join(map(str, place[1:]))}")


def compare_texts(
    texts: Iterable[tuple[str, bool]], named: Mapping[str, int], erased: Collection[str], unnamed: int
) -> Iterator[Finding]:
    """Compare the texts that are there (hash, and whether the text has it) with those that events name.

    `named`: the event that names each; `unnamed`: the number of a finding about a text that no event names.
    """
    there = set()
    for digest, holds in texts:
        there.add(digest)
        seq = named.get(digest, unnamed)
        if not holds:
            yield Finding(seq, f"a text is not what its hash says: {digest}")
        elif digest in erased:
            yield Finding(seq, f"a text that was erased is back: {digest}")
        elif digest not in named:
            yield Finding(seq, f"no event tells of a text: {digest}")
    for digest, seq in named.items():
        if digest not in there and digest not in erased:
            yield Finding(seq, f"a text is missing: {digest}")


# -- a bundle ----------------------------------------------------------------------------------------------------------


def check(read: Read, names: set[str], anchor: str = "") -> tuple[list[Finding], dict[str, Any]]:
    """Everything that does not hold, first event first (0: the bundle as a whole), and the manifest."""
    manifest = json.loads(read("manifest.json"), object_pairs_hook=_once)
    found = list(_members(read, names, manifest["members"]))
    missing = {"events.jsonl", *(f"tables/{table}.jsonl" for table in KEYS)} - names
    if manifest["version"] != VERSION or set(manifest) != MANIFEST or missing:
        return [*found, Finding(0, f"not a bundle of version {VERSION}")], manifest
    replayed = replay(map(_event, _lines(read, "events.jsonl")), anchor or None)
    last, folded = replayed.seq, replayed.folded
    if replayed.broken:
        return sorted([*found, replayed.broken]), manifest
    found += replayed.lacks(anchor)
    if [manifest["head"]["seq"], manifest["head"]["hash"]] != [last, replayed.head]:
        found.append(Finding(last + 1, f"the chain ends at event {last}, which is not the head in manifest.json"))
    run_id = manifest["run"]
    if run_id and ("runs", run_id) not in folded.rows:
        found.append(Finding(0, f"no event begins the run that manifest.json names: {run_id}"))
    places = belonging(folded, run_id) if run_id else set(folded.rows)
    wanted = texts_in(folded, places, run_id) if run_id else set(folded.texts)
    said = {place: folded.rows[place] for place in places}
    for table in KEYS:
        found += _table(read, table, said, folded, last)
    found += left_over(said, folded)
    texts = ((each, hashlib.sha256(read(f"blobs/{each}")).hexdigest() == each) for each in sorted(_blobs(names)))
    named = {digest: folded.texts[digest] for digest in sorted(wanted)}
    found += compare_texts(texts, named, folded.erased, 0)
    if not found and manifest["counts"] != {"events": last, "texts": len(_blobs(names))}:
        found.append(Finding(0, "the counts in manifest.json are not those of the bundle"))
    return sorted(found), manifest


def _members(read: Read, names: set[str], members: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(names - set(members) - {"manifest.json"}):
        yield Finding(0, f"a file that manifest.json does not name: {name}")
    for name, digest in members.items():
        if name not in names:
            yield Finding(0, f"a file is missing: {name}")
        elif hashlib.sha256(read(name)).hexdigest() != digest:
            yield Finding(0, f"a file was changed: {name}")


def _event(line: str) -> Row:
    event = _object(line)
    return event if event.keys() == set(EVENT) else {}


def _table(read: Read, table: str, said: dict[Place, Row], folded: Folded, last: int) -> Iterator[Finding]:
    rows = []
    for number, line in enumerate(_lines(read, f"tables/{table}.jsonl"), 1):
        row = _object(line)
        if not row:
            what = f"a line of tables/{table}.jsonl is no row, or names a column twice: line {number}"
            yield Finding(last + 1, what)
        elif any(isinstance(row.get(column), dict | list) for column in KEYS[table]):
            yield Finding(last + 1, f"no event tells of a row of {table}: line {number}")
        else:
            rows.append(row)
    yield from compare(table, rows, said, folded, last)


def _blobs(names: set[str]) -> set[str]:
    return {name.removeprefix("blobs/") for name in names if name.startswith("blobs/")}


def _lines(read: Read, name: str) -> list[str]:
    *lines, rest = read(name).decode("utf-8", "replace").split("\n")
    return [*lines, rest] if rest else lines


def _object(line: str) -> Row:
    """The object in a line; {} for anything else, and where a key is there twice."""
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
    """Print a stranger's text: what could steer a terminal is shown as a code."""
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
