"""The HTTP client for the SDKs: bounded replies, no compression, no redirects, many connections.

It knows the two clients of each SDK, but no provider and no key. Where the environment names a proxy, the SDK's default
client is used, with its rules for proxies; otherwise its aiohttp client, if there is one, at half of the CPU time of a
call. Both find certificates in the same way (SSL_CERT_FILE).
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.request import getproxies

from agent.errors import BadResponse
from agent.models.hosted import ALLOWED_BYTES

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response, Timeout

_ERROR_BYTES = 100_000  # of an error's body; the rest is not read
_CONNECTIONS = 1000  # at once, and as many kept alive; the gateway uses far fewer
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 15.0


def http_client(plain: type[AsyncClient], lean: type[AsyncClient]) -> AsyncClient:
    """A client of the SDK: `plain` is its default class, `lean` the one over aiohttp.

    A status below 400 with more than ALLOWED_BYTES, or with a content encoding, raises BadResponse. The connection of a
    body that is not read to its end is closed at once.
    """
    import httpx2

    proxied = any(scheme in getproxies() for scheme in ("http", "https", "all"))
    client = plain if proxied or importlib.util.find_spec("aiohttp") is None else lean
    return client(
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound()]},
        limits=httpx2.Limits(
            max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
        ),
        follow_redirects=False,  # neither key nor prompt goes to a host that the user did not name
    )


def time_limits(seconds: float) -> Timeout:
    """`seconds` for each read and write, at most half of them for the connection, so that it is known what failed."""
    import httpx2

    return httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds / 2))


def _bound() -> Callable[[Response], Awaitable[None]]:
    """The hook that the client calls with each response before it reads the body."""
    import httpx2

    class BoundedStream(httpx2.AsyncByteStream):
        """The bytes of another stream up to a limit, then BadResponse or, for the body of an error, the end."""

        def __init__(self, stream: httpx2.AsyncByteStream, status: int, most: int) -> None:
            self._stream = stream
            self._status = status
            self._most = most

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in self._stream:
                size += len(part)
                if self._status < 400 and size > self._most:
                    raise _too_large(self._status, self._most)
                yield part
                if self._status >= 400 and size > _ERROR_BYTES:
                    return

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Response) -> None:
        most = ALLOWED_BYTES.get()
        status, encoding = response.status_code, response.headers.get("content-encoding", "identity")
        if status >= 400:
            response.headers.pop("content-encoding", None)  # not unpacked: the status says enough
        elif encoding.strip().lower() != "identity":
            words = f"the reply is packed ({encoding[:40]}), which was not asked for; check the address"
            raise BadResponse(words, status=status)
        elif _length(response) > most:
            raise _too_large(status, most)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = BoundedStream(response.stream, status, most)

    return bound


def _length(response: Response) -> int:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_large(status: int, most: int) -> BadResponse:
    return BadResponse(
        f"the reply is larger than {most:,} bytes, which max_tokens does not explain; check the address", status=status
    )
