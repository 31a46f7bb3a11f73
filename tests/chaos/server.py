"""A provider that fails on command, in a process of its own: HTTP/1.1, the wire formats of OpenAI and Anthropic.

    python -m tests.chaos.server --port 0 [--seed N] [--answer TEXT] [--latency S] [--jitter S]

It prints {"url": ...} when it is ready and lives until it is killed or its stdin, where that is a pipe, closes.
POST /control {"faults": [{"kind": ..., ...}]} replaces the faults in force (see faults.py), {"reset": true} zeroes the
bill; both may stand in one request. GET /bill tells what came and what it would have cost: see `Bill`; GET /requests
only how many came. It knows nothing of the package under test but what `learner` answers. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import os
import socket
import struct
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos import faults as chaos
from tests.chaos.faults import JSON, Fault, Faults, Outcome
from tests.wire import _DIALECTS as DIALECTS
from tests.wire import OPENAI_PATH

MOST_HEAD, MOST_BODY = 1 << 16, 1 << 26
GRACE = 0.05
"""Seconds after a 429 in which a request may still arrive that was on its way, if the machine is idle."""

Answer = Callable[[list[dict[str, Any]], JSON], str]


@dataclass(slots=True)
class Bill:
    """What came to the two model addresses since the last reset. Times are seconds of the machine's monotonic clock.

    `answered`: whole 200s in the provider's format, odd ones (no usage, no text, cut at a limit, refused) included;
    garbage and replies of many megabytes not. `max_concurrent`: the most that waited at once, 1 without a latency.
    Billed is every request whose work was begun: all but those refused. `by_status` counts the statuses written,
    `by_fault` the strikes, `other` what was no model request, `errors` the server's own mistakes: there should be none.
    `arrivals` and `opened` are the timeline: when each request came, and how many were open then, itself among them.
    `windows` are the waits that were asked for; of what came inside one, `late` came in its second half, when also a
    busy client has heard of it.
    """

    requests: int = 0
    answered: int = 0
    billed_requests: int = 0
    billed_prompt_tokens: int = 0
    billed_completion_tokens: int = 0
    max_concurrent: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    answered_by_key: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    windows: list[tuple[float, float, int]] = field(default_factory=list)

    def charge(self, usage: JSON) -> None:
        self.billed_requests += 1
        self.billed_prompt_tokens += usage.get("prompt_tokens", 0) + usage.get("input_tokens", 0)
        self.billed_completion_tokens += usage.get("completion_tokens", 0) + usage.get("output_tokens", 0)

    def as_dict(self, opened: int, with_arrivals: bool) -> JSON:
        own = {name: getattr(self, name) for name in self.__slots__}
        own |= {"open": opened, "hosts": sorted(self.hosts), "windows": [self._window(*w) for w in self.windows]}
        return own if with_arrivals else {name: own[name] for name in own if name not in ("arrivals", "opened")}

    def _window(self, start: float, end: float, status: int) -> JSON:
        from_ = {"inside": start, "inside_after_50ms": start + GRACE, "late": (start + end) / 2}
        until = bisect_right(self.arrivals, end)
        inside = {name: max(0, until - bisect_right(self.arrivals, moment)) for name, moment in from_.items()}
        return {"start": start, "end": end, "status": status} | inside


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The API key as it came, `Bearer` included; where both headers came, both."""
        return " ".join(self.headers[name] for name in ("authorization", "x-api-key") if name in self.headers)


def body_key(body: JSON) -> str:
    """The name of a request body in `by_key`: equal for equal JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def take_request(buffer: bytearray) -> Request | None:
    """Takes the first request out of `buffer`; None when it is not all there. ValueError when it is no HTTP."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end > MOST_HEAD:
        if len(buffer) > MOST_HEAD:
            raise ValueError("the head is too long")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MOST_BODY or "transfer-encoding" in headers:
        raise ValueError("the body needs a content-length, of 64 MB at most")
    start = end + 4
    if len(buffer) < start + length:
        return None
    body = bytes(buffer[start : start + length])
    del buffer[: start + length]
    return Request(method, target, headers, body)


class Server:
    """Decides what each request gets."""

    def __init__(self, answer: Answer, seed: int, latency: float, jitter: float) -> None:
        self.bill = Bill()
        self.opened = 0
        self._answer = answer
        self._seed = seed
        self._latency = latency
        self._jitter = jitter
        self._rng = Random(seed)
        self._faults = Faults((), seed)

    def handle(self, wire: Connection, request: Request) -> None:
        path, _, query = request.target.partition("?")
        if path == "/bill":
            wire.write_json(200, self.bill.as_dict(self.opened, "arrivals=1" in query.split("&")))
        elif path == "/requests":
            wire.write_json(200, {"requests": self.bill.requests})
        elif path == "/control":
            wire.write_json(*self._control(request.body))
        else:
            self.bill.hosts.add(request.headers.get("host", ""))
            if path in DIALECTS and request.method == "POST":
                self._model(wire, request, path)
            elif request.method == "GET" and path.startswith("/v1/models/"):  # costs nothing
                wire.write_json(200, {"id": path.rpartition("/")[2], "object": "model"})
            else:
                self.bill.other[f"{request.method} {path}"[:200]] += 1
                wire.write_json(404, {"error": {"message": "no such address"}})

    def _control(self, body: bytes) -> tuple[int, JSON]:
        try:
            wanted = json.loads(body)
            if not isinstance(wanted, dict) or not wanted.keys() <= {"faults", "reset"}:
                raise ValueError("write {'faults': [...]}, {'reset': true} or both")
            new = [Fault(**fault) for fault in wanted.get("faults", ())]
            for fault in new:
                chaos.prepare(fault)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            return 400, {"error": {"message": str(error)}}
        if "faults" in wanted:
            self._faults = Faults(new, self._seed)
        if wanted.get("reset"):
            self.bill = Bill(max_concurrent=self.opened)
        return 200, {"ok": True}

    def _model(self, wire: Connection, request: Request, path: str) -> None:
        now, bill, openai, dialect = time.monotonic(), self.bill, path == OPENAI_PATH, DIALECTS[path]
        wire.begin()
        bill.requests += 1
        bill.arrivals.append(now)
        bill.opened.append(self.opened)
        bill.max_concurrent = max(bill.max_concurrent, self.opened)
        try:
            body = json.loads(request.body)
            key, messages = body_key(body), dialect.messages(body)
            if not messages:
                raise ValueError("no messages")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            bill.by_key[hashlib.sha256(request.body).hexdigest()] += 1
            wire.finish(chaos.refusal(openai, 400, f"the request is malformed: {error!r}"), "")
            return
        bill.by_key[key] += 1
        fault = self._faults.strike(now, self.opened)
        reply = dialect.reply(messages, body, self._answer(messages, body))
        usage = reply["usage"]
        if fault is None:
            outcome = chaos.answer(reply)
        else:
            bill.by_fault[fault.kind] += 1
            outcome = chaos.spoil(fault, openai, reply, request.key)
        if not outcome.billed:
            wire.finish(outcome, key)
            return
        bill.charge(usage)
        if delay := self._latency + (self._rng.uniform(0, self._jitter) if self._jitter else 0.0):
            asyncio.get_running_loop().call_later(delay, wire.finish, outcome, key)
        else:
            wire.finish(outcome, key)


class Connection(asyncio.Protocol):
    """One client: takes one request after the other off the socket and writes what the server decided."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._busy = False
        self._waits = False
        self._closes = False
        self._gone = False
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True
        self._end()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def begin(self) -> None:
        """A model request waits for its answer from now on."""
        self._waits = True
        self._server.opened += 1

    def write_json(self, status: int, content: JSON) -> None:
        self._write(_head(status, {}, len(body := json.dumps(content).encode())) + body)
        self._done()

    def finish(self, outcome: Outcome, key: str) -> None:
        """Writes `outcome`, unless the client has gone."""
        if self._gone or outcome.way == "hang":
            return
        if outcome.way == "reset":
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return
        if outcome.way in ("heads", "chunk"):
            self._task = asyncio.get_running_loop().create_task(self._endlessly(outcome.way == "chunk"))
            return
        bill, body = self._server.bill, outcome.body
        bill.by_status[str(outcome.status)] += 1
        if outcome.wait is not None:
            now = time.monotonic()
            bill.windows.append((now, now + outcome.wait, outcome.status))
        if outcome.way in ("slow", "padded"):
            trickle = self._slowly(outcome, key) if outcome.way == "slow" else self._padded(outcome)
            self._task = asyncio.get_running_loop().create_task(trickle)
            return
        cut = outcome.way == "truncated"
        self._closes |= cut or outcome.way == "closed"
        head = _head(outcome.status, outcome.headers, len(body))
        self._write(head + (body[: len(body) // 2] if cut else body))
        self._settle(outcome, key)

    async def _slowly(self, outcome: Outcome, key: str) -> None:
        self._write(_head(outcome.status, outcome.headers, len(outcome.body)))
        for byte in outcome.body:
            await asyncio.sleep(outcome.pace)
            self._write(bytes((byte,)))
        self._settle(outcome, key)

    async def _endlessly(self, is_chunk: bool) -> None:
        if is_chunk:
            self._write(_head(200, {"transfer-encoding": "chunked"}, None) + b"2;")
        while not self._gone:
            await self._writable.wait()
            self._write(b"x" if is_chunk else b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n")
            await asyncio.sleep(0.01)

    async def _padded(self, outcome: Outcome) -> None:
        self._write(_head(outcome.status, {"transfer-encoding": "chunked"}, None))
        for _ in range(outcome.megabytes):
            await self._writable.wait()
            self._write(b"%x\r\n%b\r\n" % (len(chaos.BLANKS), chaos.BLANKS))
        self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(outcome.body), outcome.body))
        self._done()

    def _settle(self, outcome: Outcome, key: str) -> None:
        if outcome.settles:
            self._server.bill.answered += 1
            self._server.bill.answered_by_key[key] += 1
        self._done()

    def _next(self) -> None:
        """Begins with the next request, if it is all there and the one before is done."""
        if self._busy or self._gone or not self._buffer:
            return
        try:
            request = take_request(self._buffer)
        except ValueError as error:
            self._server.bill.other["malformed"] += 1
            self._closes = True
            self.write_json(400, {"error": {"message": f"no HTTP that this server knows: {error}"}})
            return
        if request is None:
            return
        self._busy = True
        self._closes = request.headers.get("connection", "").lower() == "close"
        try:
            self._server.handle(self, request)
        except Exception as error:  # a mistake of this file: told in the bill, so that no campaign passes over it
            self._server.bill.errors.append(repr(error))
            self._closes = True
            self.write_json(500, {"error": {"message": repr(error)}})

    def _done(self) -> None:
        self._end()
        self._busy = False
        if self._closes:
            self._transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def _end(self) -> None:
        if self._waits:
            self._waits = False
            self._server.opened -= 1

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    lines = {"content-type": "application/json"} | ({} if length is None else {"content-length": str(length)})
    lines |= headers
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Chaos\r\n{text}\r\n".encode("latin-1")


async def serve(server: Server, port: int) -> None:
    """Serves until stdin closes."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda _, context: server.bill.errors.append(repr(context)))
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=1024)

    def hear() -> None:
        if not os.read(0, 1 << 16):
            stop.set()

    with contextlib.suppress(OSError):  # a file or /dev/null never closes
        loop.add_reader(0, hear)
    gc.freeze()
    print(json.dumps({"url": f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"}), flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A provider that fails on command.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and the jitter")
    parser.add_argument("--answer", help="what every reply says; without it, the learner answers")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of work for an answer")
    parser.add_argument("--jitter", type=float, default=0.0, help="at most so many seconds more")
    options = parser.parse_args()
    server = Server(_answer(options.answer), options.seed, options.latency, options.jitter)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(server, options.port))


def _answer(text: str | None) -> Answer:
    if text is not None:
        return lambda messages, body: text
    from tests.cli.world import learner

    return learner


if __name__ == "__main__":
    main()
