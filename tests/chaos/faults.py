"""What can go wrong with an answer, and when. Knows the two wire formats but no socket: it makes the bytes, the server
writes them.

A fault refuses (429, 503 and so on: nothing is billed), or the work is done and billed and the answer is broken or, in
the right format, odd. `Fault` says what the parameters mean.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from random import Random
from typing import Any, Literal

JSON = dict[str, Any]
Way = Literal["whole", "closed", "truncated", "slow", "padded", "hang", "reset", "heads", "chunk"]
"""How the bytes go out: in one piece; in one piece, then closed; cut before the promised length; byte by byte; in
chunks after megabytes of blanks; not at all, the connection kept; not at all, the connection reset; as heads of 1xx, or
as the extension of a chunk, without an end."""

REFUSALS = ("status", "outage", "capacity")
BROKEN = (
    *("slow_loris", "hang", "truncated", "short", "empty", "reset", "html", "list", "wrong_schema", "null_choices"),
    *("huge", "deep_json", "gzip_bomb"),
)
ODD = (
    "overbill",
    "no_usage",
    "empty_content",
    "finish_length",
    "finish_content_filter",
    "refusal",
    "model_change",
    "echo_key",
)
ENDLESS = ("endless_heads", "endless_chunk")
KINDS = (*REFUSALS, *BROKEN, *ODD, *ENDLESS)
_WAITS = {"seconds", "ms", "date", "text"}
_NUMBERS = ("rate", "after", "status", "seconds", "per_second", "burst", "concurrent", "megabytes", "tokens")
_MEANINGS = {
    400: ("context_length_exceeded", "invalid_request_error", "prompt is too long: above the maximum context length"),
    401: ("invalid_api_key", "authentication_error", "The API key is not valid."),
    402: ("insufficient_quota", "billing_error", ""),
    403: ("access_denied", "permission_error", "This key may not use this model."),
    429: ("rate_limit_exceeded", "rate_limit_error", "Too many requests."),
    504: ("server_error", "timeout_error", "The request timed out."),
    529: ("server_error", "overloaded_error", "Overloaded"),
}
"""Status -> OpenAI's code, Anthropic's type, the words."""
_NO_QUOTA = "You exceeded your current quota: your credit balance is too low; check your plan and billing details."
_HTML = b"<!doctype html><html><body><h1>Welcome</h1></body></html>"
_DEPTH = 200_000
BLANKS = b" " * (1 << 20)
"""A megabyte that a JSON parser skips: what follows it is still a valid reply."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of `faults`. The first entry of the list that strikes decides; ValueError for what makes no sense.

    `rate` is the probability that a request is struck, after the first `after` requests since the list was set, `times`
    times at most (None: no end; for an outage 1).
    status: `status`, with `quota` the body that says so; `retry_after` is {"seconds": x}, {"ms": x}, {"date": x}, {} or
    {"text": header}, which announces no wait.
    outage: `status` (503) for `seconds` (30) from the first hit.
    capacity: 429 above `per_second` (with a bucket of `burst`, a tenth of it if 0) or above `concurrent` open requests,
    with `retry_after` of one second unless given.
    slow_loris: a byte each `seconds` (0.5). html, echo_key: `status` (200, 500). huge, gzip_bomb: `megabytes` (100,
    1024). model_change: `model`. overbill: `tokens` more in the reply than it has, billed.
    """

    kind: str
    rate: float = 1.0
    after: int = 0
    times: int | None = None
    status: int = 0
    quota: bool = False
    retry_after: Mapping[str, float | str] | None = None
    seconds: float = 0.0
    per_second: float = 0.0
    burst: float = 0.0
    concurrent: int = 0
    megabytes: int = 0
    tokens: int = 0
    model: str = "another-model"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are: {', '.join(KINDS)}")
        numbers = [getattr(self, name) for name in _NUMBERS] + [self.times or 0]
        numbers += [amount for form, amount in (self.retry_after or {}).items() if form != "text"]
        if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            raise ValueError(f"{self.kind}: a parameter is not a number from 0 on")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"{self.kind}: rate {self.rate} is not from 0 to 1")
        least = 400 if self.kind == "status" else 200
        if (self.status or self.kind == "status") and not least <= self.status <= 599:
            raise ValueError(f"{self.kind}: no status {self.status}")
        if self.retry_after and (len(self.retry_after) != 1 or not self.retry_after.keys() <= _WAITS):
            raise ValueError(f"{self.kind}: retry_after takes one of {sorted(_WAITS)}")
        if not isinstance((self.retry_after or {}).get("text", ""), str):
            raise ValueError(f"{self.kind}: the text of retry_after is no text")
        if self.kind == "capacity" and not (self.per_second > 0 or self.concurrent > 0):
            raise ValueError("capacity: give per_second, concurrent or both")

    @property
    def bucket(self) -> float:
        """How many requests at most may come at once under `per_second`."""
        return self.burst or max(1.0, self.per_second / 10)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server writes. `billed`: the work was done. `settles`: a whole reply in the provider's format.

    `wait` is the Retry-After in seconds, if one is announced; `pace` the seconds between two bytes of a slow reply.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    way: Way = "whole"
    billed: bool = True
    settles: bool = False
    wait: float | None = None
    pace: float = 0.5
    megabytes: int = 0


class Faults:
    """The faults in force. The same list, seed and order of requests give the same strikes."""

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._states = [_State(fault, tokens=fault.bucket) for fault in faults]
        self._rng = Random(seed)
        self._arrived = 0

    def strike(self, now: float, opened: int) -> Fault | None:
        """The fault of the request that arrives at `now` (seconds) as one of `opened` open ones, or None."""
        self._arrived += 1
        struck = (state for state in self._states if state.strikes(now, opened, self._arrived, self._rng))
        return next((state.fault for state in struck), None)


@dataclass(slots=True)
class _State:
    fault: Fault
    tokens: float
    filled: float = 0.0
    hits: int = 0
    until: float = 0.0

    def strikes(self, now: float, opened: int, arrived: int, rng: Random) -> bool:
        fault, outage = self.fault, self.fault.kind == "outage"
        times = 1 if outage and fault.times is None else fault.times
        if now < self.until:
            return True
        if arrived <= fault.after or (times is not None and self.hits >= times):
            return False
        if rng.random() >= fault.rate or (fault.kind == "capacity" and self._has_room(now, opened)):
            return False
        self.hits += 1
        self.until = now + (fault.seconds or 30.0) if outage else 0.0
        return True

    def _has_room(self, now: float, opened: int) -> bool:
        fault = self.fault
        if fault.concurrent and opened > fault.concurrent:
            return False
        if not fault.per_second:
            return True
        self.tokens = min(fault.bucket, self.tokens + (now - self.filled) * fault.per_second)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def answer(reply: JSON) -> Outcome:
    """The reply as it is."""
    return Outcome(body=json.dumps(reply).encode(), settles=True)


def refusal(openai: bool, status: int, words: str = "", fault: Fault | None = None) -> Outcome:
    """An error body in the provider's shape. `words` instead of those that belong to `status`."""
    default = {"seconds": 1} if fault is not None and fault.kind == "capacity" else {}
    given = None if fault is None else fault.retry_after
    wait, headers = _retry_after(default if given is None else given)
    code, kind, meaning = _MEANINGS.get(status, ("server_error", "api_error", f"The server had an error ({status})."))
    if status == 402 or (fault is not None and fault.quota):
        code, kind, meaning = "insufficient_quota", kind, _NO_QUOTA
    if openai:
        body: JSON = {"error": {"message": words or meaning, "type": code, "param": None, "code": code}}
    else:
        body = {"type": "error", "error": {"type": kind, "message": words or meaning}}
    return Outcome(status, json.dumps(body).encode(), headers, billed=False, wait=wait)


def spoil(fault: Fault, openai: bool, reply: JSON, secret: str) -> Outcome:
    """What becomes of `reply` (changed in place); `secret` is the key that came with the request."""
    whole = json.dumps(reply).encode()
    match fault.kind:
        case "status" | "capacity":
            return refusal(openai, fault.status or 429, fault=fault)
        case "outage":
            return refusal(openai, fault.status or 503, fault=fault)
        case "echo_key" if fault.status != 200:
            return refusal(openai, fault.status or 500, f"cannot serve the key {secret}")
        case "hang":
            return Outcome(way="hang")
        case "reset":
            return Outcome(way="reset")
        case "endless_heads":
            return Outcome(way="heads")
        case "endless_chunk":
            return Outcome(way="chunk")
        case "truncated":
            return Outcome(body=whole, way="truncated")
        case "slow_loris":
            return Outcome(body=whole, way="slow", settles=True, pace=fault.seconds or 0.5)
        case "short":
            return Outcome(body=whole[: len(whole) // 2], way="closed")
        case "empty":
            return Outcome()
        case "html":
            status = fault.status or 200
            return Outcome(status, _HTML, {"content-type": "text/html"}, billed=status < 400)
        case "list":
            return Outcome(body=b"[%b]" % whole)
        case "wrong_schema":
            return Outcome(body=b'{"ok": true, "result": {"text": "billing"}}')
        case "deep_json":
            return Outcome(body=b'{"%b": %b%b}' % (_field(openai).encode(), b"[" * _DEPTH, b"]" * _DEPTH))
        case "huge":
            return Outcome(body=whole, way="padded", megabytes=fault.megabytes or 100)
        case "gzip_bomb":
            return Outcome(body=_bomb(whole, fault.megabytes or 1024), headers={"content-encoding": "gzip"})
        case "null_choices":
            reply[_field(openai)] = None
            return Outcome(body=json.dumps(reply).encode())
    _change(fault, openai, reply, secret)
    return answer(reply)


def prepare(fault: Fault) -> None:
    """Does ahead what would hold up the server in mid-run."""
    if fault.kind == "gzip_bomb":
        _bomb(b"", fault.megabytes or 1024)


def _change(fault: Fault, openai: bool, reply: JSON, secret: str) -> None:
    """A reply in the right format that says something odd."""
    text = reply["choices"][0]["message"]["content"] if openai else reply["content"][0]["text"]
    match fault.kind:
        case "overbill":
            reply["usage"]["completion_tokens" if openai else "output_tokens"] += fault.tokens
        case "no_usage":
            del reply["usage"]
        case "model_change":
            reply["model"] = fault.model
        case "echo_key":
            _say(openai, reply, f"your key is {secret}", "stop", "end_turn")
        case "empty_content":
            _say(openai, reply, "", "stop", "end_turn")
        case "finish_length":
            _say(openai, reply, text[: len(text) // 2], "length", "max_tokens")
        case "finish_content_filter":
            _say(openai, reply, "", "content_filter", "refusal")
        case "refusal":
            _say(openai, reply, None if openai else "I cannot help with that.", "stop", "refusal")
            if openai:
                reply["choices"][0]["message"]["refusal"] = "I cannot help with that."


def _say(openai: bool, reply: JSON, text: str | None, finish: str, stop: str) -> None:
    if openai:
        reply["choices"][0]["message"]["content"] = text
        reply["choices"][0]["finish_reason"] = finish
    else:
        reply["content"] = [{"type": "text", "text": text}] if text else []
        reply["stop_reason"] = stop


def _field(openai: bool) -> str:
    return "choices" if openai else "content"


def _retry_after(given: Mapping[str, float | str]) -> tuple[float | None, dict[str, str]]:
    """Seconds until the announced moment, and the header that announces it. A date is of whole seconds, rounded up."""
    for form, amount in given.items():
        if isinstance(amount, str):
            return None, {"retry-after": amount}
        if form == "ms":
            return amount / 1000, {"retry-after-ms": str(amount)}
        if form == "date":
            moment = math.ceil(time.time() + amount)
            return moment - time.time(), {"retry-after": formatdate(moment, usegmt=True)}
        return amount, {"retry-after": str(amount)}
    return None, {}


def _bomb(tail: bytes, megabytes: int) -> bytes:
    """gzip of `megabytes` of blanks, then `tail`."""
    front, checksum = _packed_blanks(megabytes)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = (megabytes * len(BLANKS) + len(tail)) % 2**32
    end = zlib.crc32(tail, checksum).to_bytes(4, "little") + size.to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + front + packer.compress(tail) + packer.flush() + end


@lru_cache
def _packed_blanks(megabytes: int) -> tuple[bytes, int]:
    """The deflated blanks and their checksum: one packed megabyte, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed, checksum = packer.compress(BLANKS) + packer.flush(zlib.Z_FULL_FLUSH), 0
    for _ in range(megabytes):
        checksum = zlib.crc32(BLANKS, checksum)
    return packed * megabytes, checksum
