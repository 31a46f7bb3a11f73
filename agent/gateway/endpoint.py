"""A server on loopback through which the user's agent calls models, with an address for each rollout.

It speaks the wire formats (`DIALECTS`) and leaves calls to the rollout, which asks the gateway. Errors tell the SDKs
not to retry: the gateway has already done so. What is sent to a client that has left goes nowhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import AgentError, InputError, Interrupted, ModelError, RowRefused, RunRefused, one_line
from agent.extras import require
from agent.gateway.chat_completions import ChatCompletions
from agent.gateway.dialects import Dialect, WireCall
from agent.gateway.messages import Messages
from agent.gateway.responses import Responses
from agent.models.anthropic import STATUS_OF
from agent.safe_text import SURROGATE
from agent.types import Completion, Request, canonical

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
}
"""By the path below a rollout's address."""
MOST_BYTES = 16 * 2**20  # of a body
MOST_CONNECTIONS = 256
IDLE_SECONDS = 60  # longer than clients keep a connection, so that none is closed under a request
_PATH = re.compile(r"/r/([\w-]+)(/.*)", re.ASCII)
_KINDS = {status: kind for kind, status in STATUS_OF.items()} | {503: "overloaded_error"}


class Answerer(Protocol):
    """One rollout; `models` are the names that it answers to."""

    @property
    def models(self) -> Sequence[str]: ...

    async def answer(self, model: str, request: Request) -> Completion: ...


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: str
    kind: str = "application/json"

    def headers(self) -> list[tuple[bytes, bytes]]:
        length = str(len(self.body)).encode()  # JSON of ours is ASCII
        headers = [(b"content-type", self.kind.encode()), (b"content-length", length)]
        return headers if self.status in (200, 503) else [*headers, (b"x-should-retry", b"false")]


def _error(status: int, message: str, code: str | None = None) -> _Reply:
    """Make an error in a form that OpenAI's and Anthropic's SDKs both read."""
    error = {"type": _KINDS.get(status, "api_error"), "message": message, "param": None, "code": code}
    return _Reply(status, json.dumps({"type": "error", "error": error}))


class Endpoint:
    """The endpoint of a run; it listens on a free port from the first `open` to `close`."""

    def __init__(self) -> None:
        self._rollouts: dict[str, Answerer] = {}  # by token
        self._server: asyncio.Server | None = None
        self._connections: set[Any] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._port = 0

    async def open(self, rollout: Answerer) -> str:
        """Return an address at which `rollout` answers; OpenAI's SDK takes it with `/v1`. Raises InputError."""
        async with self._starting:
            if self._server is None:
                await self._start()
        token = secrets.token_urlsafe(32)
        self._rollouts[token] = rollout
        return f"http://127.0.0.1:{self._port}/r/{token}"

    def shut(self, address: str) -> None:
        """Refuse later requests to an address; those in progress are answered."""
        self._rollouts.pop(address.rpartition("/")[2], None)

    async def close(self) -> None:
        """Stop listening and end all connections; the gateway still settles what was sent."""
        self._rollouts.clear()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self) -> None:
        require("agents", "program:")
        from uvicorn import Config, server

        # no uvicorn.Server: it would take the process's signals, and log
        off: Any = {"lifespan": "off", "ws": "none", "proxy_headers": False, "log_config": None}
        config = Config(self._serve, interface="asgi3", timeout_keep_alive=IDLE_SECONDS, **off)
        config.load()
        state = server.ServerState()
        self._connections, self._tasks = state.connections, state.tasks
        listening = socket.create_server(("127.0.0.1", 0), backlog=MOST_CONNECTIONS)
        self._port = listening.getsockname()[1]
        protocol = _protocol()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config, state, {}), sock=listening, backlog=MOST_CONNECTIONS
        )

    async def _serve(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request (ASGI)."""
        try:
            reply = await self._reply(scope, receive)
        except (InputError, RowRefused) as error:
            reply = _error(400, str(error), error.code)
        except AgentError as error:
            is_attempt = isinstance(error, ModelError) and not isinstance(error, RunRefused)
            reply = _error(502 if is_attempt else 402, str(error), error.code)
        except Exception as error:
            reply = _error(500, f"the gateway failed: {one_line(error)}")
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers()})
        await send({"type": "http.response.body", "body": reply.body.encode()})

    async def _reply(self, scope: Any, receive: Callable[[], Any]) -> _Reply:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if hosts not in ([f"127.0.0.1:{self._port}".encode()], [f"localhost:{self._port}".encode()]):
            return _error(403, "this address answers programs of this machine only")
        found = _PATH.fullmatch(scope["path"])
        if found is None:
            return _error(404, "there is nothing at this address; use the address that the agent was given")
        rollout = self._rollouts.get(found[1])
        if rollout is None:
            return _error(401, "no rollout runs at this address; create clients in your function, for each row")
        if (scope["method"], found[2]) == ("GET", "/v1/models"):
            return _Reply(200, json.dumps(_models(rollout.models)))
        dialect = DIALECTS.get(found[2]) if scope["method"] == "POST" else None
        if dialect is None:
            there = ", ".join(DIALECTS)
            return _error(404, f"there is no {scope['method']} {found[2][:100]} here, but POST to {there}")
        if len(body := await _body(receive)) > MOST_BYTES:
            return _error(413, f"the body has more than {MOST_BYTES >> 20} MB")
        asked = _read(dialect, body)
        answering = asyncio.create_task(rollout.answer(asked.body["model"], asked.request))
        reply = dialect.reply(asked, await _unless_left(answering, receive))
        if asked.body.get("stream"):
            return _Reply(200, dialect.stream(asked, reply), "text/event-stream")
        return _Reply(200, json.dumps(reply))


def _models(names: Sequence[str]) -> dict[str, Any]:
    models = [{"id": name, "object": "model", "type": "model", "created": 0, "display_name": name} for name in names]
    return {"object": "list", "data": models, "has_more": False}


async def _body(receive: Callable[[], Any]) -> bytes:
    """Read a body to its end or past the limit, or until the client leaves."""
    body, has_more = bytearray(), True
    while has_more and len(body) <= MOST_BYTES:
        event = await receive()
        body += event.get("body", b"")
        has_more = event.get("more_body", False)
    return bytes(body)


def _read(dialect: Dialect, body: bytes) -> WireCall:
    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        if b"\\u" in body and (half := SURROGATE.search(canonical(value))):  # no provider takes it
            raise ValueError(f"{half[0]!r} in a text is half a character; remove it")
        return dialect.read(value)
    except (ValueError, RecursionError) as error:  # also of numbers that JSON does not have
        raise InputError(f"the body cannot be read as JSON: {one_line(error)}") from error


async def _unless_left(answering: asyncio.Task[Completion], receive: Callable[[], Any]) -> Completion:
    """Wait for a call; cancel it if the client leaves. The gateway still settles it if it was sent."""
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.cancelled() or not answering.done():
            raise Interrupted()
        return answering.result()
    finally:
        leaving.cancel()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


@cache
def _protocol() -> type[H11Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    silent = logging.Logger(__name__, logging.CRITICAL + 1)
    full = _error(503, f"more than {MOST_CONNECTIONS} connections at once; close clients after use")

    class Connection(H11Protocol):
        """A connection that logs nothing, and is refused if there are too many."""

        def __init__(self, *of: Any) -> None:
            super().__init__(*of)
            self.logger, self.access_log = silent, False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > MOST_CONNECTIONS:
                headers = b"".join(b"%s: %s\r\n" % header for header in full.headers())
                transport.write(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n%s\r\n" % headers)
                transport.write(full.body.encode())
                transport.close()

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except Exception:  # of bytes that are no HTTP: nothing to print
                self.transport.abort()

    return Connection
