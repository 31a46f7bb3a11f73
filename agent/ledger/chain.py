"""The hash chain over events, and what it says that the tables hold. Pure functions: no SQL.

Tamper-evident, not tamper-proof: who rewrites the whole file can rewrite the chain. A head hash noted elsewhere (every
release and report has it, `optimize audit anchor` prints it) shows that too.

The body of an event that describes a row is one of

    {"insert": table, "row": {column: value, ...}}        the row as it was put, also in place of an older one
    {"update": table, "key": [...], "set": {column: value, ...}}

and any other body is a fact of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring as _quoted
from typing import Any

from agent.ledger.schema import AUDITED

GENESIS = "0" * 64
EVENT = ("seq", "run_id", "utc", "kind", "body", "prev_hash", "hash")
"""The columns of an event."""
Place = tuple[Any, ...]
"""A table's name and the values of its primary key."""


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


class Folded:
    """What the events say: `rows` by place with the seq of the last event about each in `seqs`; `texts`, the hashes
    of payload texts with the seq of the first event that names each; `erased`, those that were taken out.
    """

    def __init__(self) -> None:
        self.rows: dict[Place, dict[str, Any]] = {}
        self.seqs: dict[Place, int] = {}
        self.texts: dict[str, int] = {}
        self.erased: set[str] = set()

    def add(self, seq: int, body: str) -> None:
        """Takes one event. Raises ValueError, KeyError or TypeError when its body is not what an event can say."""
        told = json.loads(body)
        if not isinstance(told, dict):
            raise ValueError(f"not the body of an event: {body[:40]}")
        if "insert" in told:
            row = told["row"]
            place = (told["insert"], *(row[column] for column in AUDITED[told["insert"]]))
            self.rows[place], self.seqs[place] = row, seq
        elif "update" in told:
            row = told["set"]
            place = (told["update"], *told["key"])
            self.rows[place], self.seqs[place] = self.rows[place] | row, seq
        else:
            row = told
            self.erased.update(told.get("erased", ()))
        for column, value in row.items():
            if column[-5:] == "_hash" and value and isinstance(value, str):
                self.texts.setdefault(value, seq)
                self.erased.discard(value)  # it came again after it was erased
