"""The HTTP client that the SDKs are given: bounded replies, no compression, no redirects, many connections.

It knows httpx2 and the two clients that each SDK offers; it knows no provider and no key. Where the environment names
a proxy, the SDK's default client is taken, with its rules for proxies; otherwise its aiohttp client, if there is
one: that takes half of the CPU time for a call. Certificates are found in the same way by both (SSL_CERT_FILE).
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
_CONNECTIONS = 1000  # at once, and as many kept alive; the gateway asks for far fewer
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 15.0


def http_client(plain: type[AsyncClient], lean: type[AsyncClient]) -> AsyncClient:
    """A client of the SDK's own: `plain` is its default one, `lean` the one over aiohttp.

    A good status (below 400) with more than ALLOWED_BYTES, or with a content encoding, raises BadResponse. What is not
    read to its end is never waited for: the connection is closed.
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
    """`seconds` for each read and write, half of them at most for the connection: then it is known what failed."""
    import httpx2

    return httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds / 2))


def _bound() -> Callable[[Response], Awaitable[None]]:
    """What the client calls with each response before its body is read."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        """The bytes of another stream up to a limit: then BadResponse or, for an error's body, the end."""

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
            response.headers.pop("content-encoding", None)  # nothing is unpacked: the status says enough
        elif encoding.strip().lower() != "identity":
            words = f"the reply is packed ({encoding[:40]}), which was not asked for; check the address"
            raise BadResponse(words, status=status)
        elif _length(response) > most:
            raise _too_large(status, most)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = Bounded(response.stream, status, most)

    return bound


def _length(response: Response) -> int:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_large(status: int, most: int) -> BadResponse:
    return BadResponse(
        f"the reply is larger than {most:,} bytes, which max_tokens does not explain; check the address", status=status
    )
