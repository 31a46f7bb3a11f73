"""A local server that speaks the wire formats of OpenAI and Anthropic, for tests that use the real SDKs.

    with WireServer(lambda messages, body: "billing") as server:
        model = OpenAIModel("m", "m", base_url=server.url)

It runs in its own thread and event loop, so that it answers whatever loop the client runs in. It knows
nothing of the package under test. Standard library only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

OPENAI_PATH = "/v1/chat/completions"
RESPONSES_PATH = "/v1/responses"
AZURE_PATH = "/openai/deployments/m/chat/completions"
ANTHROPIC_PATH = "/v1/messages"
EMBEDDINGS_PATH = "/v1/embeddings"
_WORKERS = 32


@dataclass(frozen=True, slots=True)
class Fault:
    """A reply that is not an ordinary one.

    `delay` seconds pass first. Then `raw` is written unchanged and the connection closed (`b""`: just closed). It
    may be an iterable of pieces: each is asked for when the one before has gone out, `pause` seconds later, and no more
    are once the client has gone. With `reset` the connection ends with a TCP reset.
    Otherwise `status` and `headers` go out with `body`: bytes and strings as they are, anything else as JSON; None
    is the provider's ordinary body, which is an error for a status from 400 on, else a reply that says `text`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    delay: float = 0.0
    raw: bytes | Iterable[bytes] | None = None
    pause: float = 0.0
    reset: bool = False
    text: str = "ok"


Reply = Callable[[list[dict[str, Any]], dict[str, Any]], str | Fault]
"""(messages as role and plain text, the system text first; the body as it came) -> the reply's text, or a fault."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that arrived: header names in lower case, `body` the parsed JSON ({} if it was none), `query` what
    stands after the path, `data` the body as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    query: str = ""
    data: bytes = b""


Other = Callable[[Seen], "Fault | None"]
"""What answers other addresses than those of models; None: there is no such address."""


def ok(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """A reply for a server that has nothing else to say."""
    return "ok"


class WireServer:
    """Serves `reply` while the `with` block lasts, over TLS if `tls` is given, on `port` (0: a free one). `requests`
    are all requests in order of arrival, `opened` the number of connections on which one arrived.

    What is asked about a model (GET .../models/NAME) is in `looks` instead, and gets `look`: unless a test says
    otherwise a 404, as of the many servers that have no such address.

    `other` answers all other addresses, each request one at a time; these requests stand in `others`.

    `reply` is called in a pool of threads, so it may sleep. What it raises is answered as a 500 and raised again at
    the end of the block, so that a failed assertion in it fails the test.
    """

    def __init__(
        self, reply: Reply, tls: ssl.SSLContext | None = None, other: Other | None = None, port: int = 0
    ) -> None:
        self.requests: list[Seen] = []
        self.others: list[Seen] = []
        self._other = other
        self.looks: list[Seen] = []
        self.look = Fault(404, body={"error": {"message": "no such address"}})
        self.opened = 0
        self.root = ""
        self._tls, self._port = tls, port
        self._reply = reply
        self._errors: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wire", daemon=True)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="wire-reply")
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base address as OpenAI's SDK wants it."""
        return f"{self.root}/v1"

    def __enter__(self) -> WireServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if error is None and self._errors:
            raise self._errors[0]

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, ssl=self._tls)
        scheme = "https" if self._tls else "http"
        self.root = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        first = True
        try:
            while (seen := await _read_request(reader)) is not None:
                self.opened, first = self.opened + first, False
                is_look = seen.method == "GET" and seen.path.startswith("/v1/models/")
                is_other = self._other is not None and seen.path not in _DIALECTS and not is_look
                (self.looks if is_look else self.others if is_other else self.requests).append(seen)
                fault, response, keep_alive = await self._answer(seen)
                for piece in (response,) if isinstance(response, bytes) else response:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(fault.pause)
                    if writer.transport.is_closing():
                        break
                if fault.reset:
                    linger = struct.pack("ii", 1, 0)  # on, 0 seconds: a reset instead of an orderly end
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if not keep_alive or seen.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, seen: Seen) -> tuple[Fault, bytes | Iterable[bytes], bool]:
        """The fault, if any, what to write, and whether the connection may live on."""
        dialect = _DIALECTS.get(seen.path)
        if self.looks and seen is self.looks[-1]:
            await asyncio.sleep(self.look.delay)
            return self.look, _response(self.look.status, self.look.headers, self.look.body), True
        if dialect is None and self._other is not None:
            try:
                given = self._other(seen)
            except Exception as error:
                self._errors.append(error)
                given = Fault(500, body={"error": {"message": f"the test raised {error!r}"}})
            if given is not None:
                await asyncio.sleep(given.delay)
                response = _response(given.status, given.headers, given.body) if given.raw is None else given.raw
                return given, response, given.raw is None
        if dialect is None or seen.method != "POST":
            words = f"no such address: {seen.method} {seen.path}"
            return Fault(), _response(404, {}, {"error": {"message": words}}), True
        try:
            messages, body = dialect.messages(seen.body), dict(seen.body)
            said = await self._loop.run_in_executor(self._pool, self._reply, messages, body)
        except Exception as error:
            self._errors.append(error)
            return Fault(), _response(500, {}, dialect.error(500, f"the test's reply raised {error!r}")), True
        fault = said if isinstance(said, Fault) else Fault(text=said)
        await asyncio.sleep(fault.delay)
        if fault.raw is not None:
            return fault, fault.raw, False
        content = fault.body
        if content is None and fault.status >= 400:
            content = dialect.error(fault.status, f"the test asked for {fault.status}")
        elif content is None:
            content = dialect.reply(messages, body, fault.text)
        closes = any(name.lower() == "connection" and value == "close" for name, value in fault.headers.items())
        return fault, _response(fault.status, fault.headers, content), not closes


class _OpenAI:
    """Chat completions."""

    def messages(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"role": m["role"], "content": _plain(m["content"])} for m in body.get("messages", [])]

    def reply(self, messages: list[dict[str, Any]], body: Mapping[str, Any], text: str) -> dict[str, Any]:
        prompt, completion = _words(messages), len(text.split())
        calls, said = _calls(body, text)
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if calls:
            functions = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
            message |= {
                "content": said or None,
                "tool_calls": [{"id": f"call_{i}", "type": "function", "function": f} for i, f in enumerate(functions)],
            }
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model", ""),
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }

    def error(self, status: int, words: str) -> dict[str, Any]:
        return {"error": {"message": words, "type": "test_error", "param": None, "code": f"test_{status}"}}


class Responses(_OpenAI):
    """OpenAI's responses."""

    def messages(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        return super().messages({"messages": body.get("input", [])})

    def reply(self, messages: list[dict[str, Any]], body: Mapping[str, Any], text: str) -> dict[str, Any]:
        prompt, completion = _words(messages), len(text.split())
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": body.get("model", ""),
            "status": "completed",
            "incomplete_details": None,
            "error": None,
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": prompt,
                "output_tokens": completion,
                "total_tokens": prompt + completion,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }


class _Embeddings(_OpenAI):
    """OpenAI's embeddings: texts with words in common have near vectors (`word_vector`)."""

    def messages(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        given = body.get("input", [])
        return [{"role": "user", "content": text} for text in ([given] if isinstance(given, str) else given)]

    def reply(self, messages: list[dict[str, Any]], body: Mapping[str, Any], text: str) -> dict[str, Any]:
        vectors = [word_vector(message["content"]) for message in messages]
        packed = [base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in vectors]
        made = packed if body.get("encoding_format") == "base64" else vectors
        return {
            "object": "list",
            "model": body.get("model", ""),
            "data": [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(made)],
            "usage": {"prompt_tokens": _words(messages), "total_tokens": _words(messages)},
        }


def word_vector(text: str) -> list[float]:
    """A vector of 32 numbers: each word of the text adds 1 at a place that depends on the word."""
    vector = [0.0] * 32
    for word in text.lower().split():
        vector[zlib.crc32(word.encode("utf-8", "replace")) % 32] += 1.0
    return vector


class _Anthropic:
    """Messages."""

    def messages(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        turns = [{"role": m["role"], "content": _plain(m["content"])} for m in body.get("messages", [])]
        system = body.get("system")
        return [{"role": "system", "content": _plain(system)}, *turns] if system else turns

    def reply(self, messages: list[dict[str, Any]], body: Mapping[str, Any], text: str) -> dict[str, Any]:
        calls, said = _calls(body, text)
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body.get("model", ""),
            "content": [
                *([{"type": "text", "text": said}] if said or not calls else []),
                *(
                    {"type": "tool_use", "id": f"toolu_{i}", "name": c["name"], "input": json.loads(c["arguments"])}
                    for i, c in enumerate(calls)
                ),
            ],
            "stop_reason": "tool_use" if calls else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": _words(messages),
                "output_tokens": len(text.split()),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }

    def error(self, status: int, words: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": f"test_{status}", "message": words}}


_DIALECTS: Mapping[str, _OpenAI | _Anthropic] = {
    OPENAI_PATH: _OpenAI(),
    RESPONSES_PATH: Responses(),
    AZURE_PATH: _OpenAI(),
    ANTHROPIC_PATH: _Anthropic(),
    EMBEDDINGS_PATH: _Embeddings(),
}


def in_dialect(path: str, reply: Reply, body: Mapping[str, Any], status: int = 200) -> Any:
    """The body of the answer to a request at a path, as the server gives it; an error for a status from 400 on."""
    dialect = _DIALECTS[path]
    messages = dialect.messages(body)
    if status >= 400:
        return dialect.error(status, f"the test asked for {status}")
    said = reply(messages, dict(body))
    fault = said if isinstance(said, Fault) else Fault(text=said)
    return dialect.reply(messages, body, fault.text) if fault.body is None else fault.body


def _calls(body: Mapping[str, Any], text: str) -> tuple[list[dict[str, str]], str]:
    """The calls and the words that a reply to a request with tools is made of: the text as a JSON list of name and
    arguments as text, with the words on the next line; any other text is all words."""
    try:
        calls, end = json.JSONDecoder().raw_decode(text) if body.get("tools") else ([], 0)
    except ValueError:
        return [], text
    return (calls, text[end + 1 :]) if isinstance(calls, list) and calls else ([], text)


def _plain(content: Any) -> str:
    """The text of a message: a string, or the text blocks of a list."""
    if isinstance(content, list):
        return "".join(str(block.get("text", "")) for block in content)
    return str(content)


def _words(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"].split()) for message in messages)


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    """The next request of a connection; None when the client has closed it."""
    line = await reader.readline()
    if not line.strip():
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        data = await _read_chunks(reader)
    else:
        data = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(data)
    except ValueError:
        body = {}
    path, _, query = path.partition("?")
    return Seen(method, path, headers, body if isinstance(body, dict) else {}, query, data)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        data += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return data


def _response(status: int, headers: Mapping[str, str], content: Any) -> bytes:
    is_text = isinstance(content, (str, bytes))
    text = content if is_text else json.dumps(content)
    body = text.encode() if isinstance(text, str) else text
    given = {name.lower(): value for name, value in headers.items()}
    ours = {"content-type": "text/html" if is_text else "application/json", "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {status} Test", *(f"{name}: {value}" for name, value in (ours | given).items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
