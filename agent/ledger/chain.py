"""The hash chain of a ledger: what its events say, and whether rows and texts are what they say.

A bundle holds copies of this file, of `schema.py` and of `verify.py`, so they need the standard library only.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as it was put, also in place of an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

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
EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")
"""The columns of an event."""

Place = tuple[Any, ...]
Row = dict[str, Any]


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


def belonging(folded: Folded, runs: Collection[str], with_answers: bool) -> set[Place]:
    """The places of these runs' rows, of the candidates that they proposed or tried, and of their examples; with
    `with_answers` also of the calls of other runs whose replies they took."""
    found = {place for place, row in folded.rows.items() if run_of(place, row) in runs}
    candidates = {folded.rows[place]["candidate_id"] for place in found if place[0] in ("proposals", "trials")}
    keys = {folded.rows[place]["call_key"] for place in found if place[0] == "calls"} if with_answers else set()
    for place, row in folded.rows.items():
        answers = place[0] == "calls" and row["state"] == "ok" and row["call_key"] in keys
        if answers or (place[0] in ("candidates", "demos") and place[1] in candidates):
            found.add(place)
    return found


def run_of(place: Place, row: Row) -> str | None:
    """The run that a row belongs to, if any."""
    return row["id"] if place[0] == "runs" else row.get("run_id")


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


def replay(chain: Iterable[Mapping[str, Any]], anchor: str | None = None, gaps: bool = False) -> Replayed:
    """Follow a chain link by link from its first event, and fold what its events say into rows.

    With `gaps`, events may be left out: one after a gap is proved by itself.
    """
    folded, prev, seq, anchored = Folded(), GENESIS, 0, anchor is None
    for event in chain:
        seq += 1
        wrong = ""
        try:
            if gaps and event["seq"] > seq:
                seq, prev = event["seq"], event["prev_hash"]
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


Rows = Iterable[tuple[str, Iterable[Row], Mapping[str, Any]]]
"""Of each table its name, its rows, and by column what it holds where no event names it."""


def compare(tables: Rows, said: dict[Place, Row], folded: Folded, last: int) -> Iterator[Finding]:
    """Compare each row with what the events say of it, and find those of `said`, the rows that should be there, that
    are missing. `last` is the number of the last event."""
    for table, rows, empty in tables:
        for row in rows:
            place = (table, *(row.get(column) for column in KEYS[table]))
            known = said.pop(place, None)
            name = ", ".join(map(str, place[1:]))
            if known is None:
                yield Finding(last + 1, f"no event tells of a row of {table}: {name}")
                continue
            if table == "calls" and known["state"] == "reserved" and row["state"] == "sent":
                row["state"] = "reserved"  # the moment of sending is noted without an event; the outcome has one
            if (full := {**empty, **known}) != row:
                wrong = ", ".join(column for column in row | full if full.get(column, ...) != row.get(column, ...))
                seq = folded.seqs[place]
                yield Finding(seq, f"a row of {table} is not what event {seq} says ({wrong}): {name}")
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
