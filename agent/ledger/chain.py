"""The hash chain over events. Pure functions: no SQL. Tamper-evident, not tamper-proof."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from agent.types import canonical

GENESIS = "0" * 64


def link(prev_hash: str, event: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the previous hash and the canonical JSON of seq, run_id, utc, kind and body."""
    fields = {name: event[name] for name in ("seq", "run_id", "utc", "kind", "body")}
    return hashlib.sha256((prev_hash + canonical(fields)).encode("utf-8", "surrogatepass")).hexdigest()


def first_break(events: Iterable[Mapping[str, Any]]) -> int | None:
    """The seq of the first event that does not follow from the one before it, or None when the chain holds."""
    prev = GENESIS
    for number, event in enumerate(events, 1):
        if event["seq"] != number or event["prev_hash"] != prev or event["hash"] != link(prev, event):
            return number
        prev = event["hash"]
    return None
