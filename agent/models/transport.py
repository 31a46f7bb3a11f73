"""The SDKs' HTTP client (bounded replies, no compression, no redirects), and translation of failures.

If the environment names a proxy, the SDK's default client is used, with its proxy rules; otherwise its aiohttp client,
if any, at half the CPU time of a call.

Every failure becomes one of `agent.errors`, by HTTP status, headers, the usual shapes of error bodies and class names.
What matters most is whether a request may have been paid for: not if the connection was never made (Transient), perhaps
if it broke later (TransportUnknown).
"""

from __future__ import annotations

import importlib.util
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Set
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.request import getproxies

from agent.calls import ROOM_TO_THINK
from agent.errors import (
    BadResponse,
    ModelError,
    RateLimited,
    RequestRefused,
    RowRefused,
    RunRefused,
    Transient,
    TransportUnknown,
)

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response, Timeout

MAX_RESPONSE_BYTES = 4_000_000
"""Size limit of any reply: at this size the slowest JSON blocks the event loop for half a second."""
ALLOWED_BYTES: ContextVar[int] = ContextVar("ALLOWED_BYTES", default=MAX_RESPONSE_BYTES)
"""Size limit of the reply to the current call."""
_ERROR_BYTES = 100_000  # read of an error's body
_CONNECTIONS = 1000  # open and kept alive; the gateway uses far fewer
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 15.0


def http_client(plain: type[AsyncClient], lean: type[AsyncClient]) -> AsyncClient:
    """Create a client of the SDK (`lean`: over aiohttp); larger or compressed replies raise BadResponse."""
    import httpx2

    proxied = any(scheme in getproxies() for scheme in ("http", "https", "all"))
    client = plain if proxied or importlib.util.find_spec("aiohttp") is None else lean
    return client(
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound()]},
        limits=httpx2.Limits(
            max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
        ),
        follow_redirects=False,  # key and prompt go only to the named host
    )


def time_limits(seconds: float) -> Timeout:
    """Return timeouts, at most half for connecting. So a failed connection differs from a slow reply."""
    import httpx2

    return httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds / 2))


def _bound() -> Callable[[Response], Awaitable[None]]:
    import httpx2

    class BoundedStream(httpx2.AsyncByteStream):
        """Bytes of another stream up to a limit, then BadResponse, or the end for an error's body."""

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
            response.headers.pop("content-encoding", None)  # not decompressed: the status is enough
        elif encoding.strip().lower() != "identity":
            words = f"the reply is compressed ({encoding[:40]}), which was not requested; check the address"
            raise BadResponse(words, status=status)
        elif (length := response.headers.get("content-length", "")).isdecimal() and int(length) > most:
            raise _too_large(status, most)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = BoundedStream(response.stream, status, most)

    return bound


def _too_large(status: int, most: int) -> BadResponse:
    return BadResponse(
        f"the reply is larger than {most:,} bytes, which max_tokens does not explain; check the address", status=status
    )


# -- failures ----------------------------------------------------------------------------------------------------------

LONGEST_WAIT = 1e9  # seconds; a longer wait means never

_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
_QUOTA = re.compile(r"credit balance|api usage limit|regain access|spend(ing)? limit", re.I)
_TOO_LARGE = re.compile(r"request too large|must be reduced", re.I)  # exceeds the rate limit of any minute
_TOO_LONG = re.compile(r"context.{0,3}(length|window)|too (long|large|many (input )?tokens)|maximum context", re.I)
_CUT = re.compile(r"could not finish the message", re.I)  # OpenAI: all of max_tokens went into reasoning
_POLICY = re.compile(
    r"content.{0,3}(policy|filter|management)|moderation|safety.(system|check)|flagged|usage (guideline|polic)"
    r"|violat\w+ .{0,40}(guideline|polic|terms)",
    re.I,
)
_ACCOUNT = re.compile(
    r"\b(account|organi[sz]ation)\b", re.I
)  # a policy violation of the account is not the row's fault
_NO_TEMPERATURE = re.compile(
    r"unsupported|not support|deprecated|not permitted|not allowed|only the default|only be set"
)
_SCHEMA = ("response_format", "json_schema", "output_config", "output_format", "structured output", "schema")
_NO_SEED = re.compile(r"unsupported|not support|not permitted|not allowed|unexpected|unrecognized|unknown|extra")

# Classes of connection errors, by name, and whether the request can have reached the provider. aiohttp's are among
# them, because the SDKs' adapter does not distinguish a refused connection from a broken one.
_SENT: Mapping[str, bool] = {
    "ConnectionRefusedError": False,
    "gaierror": False,
    "ConnectError": False,
    "ConnectTimeout": False,
    "PoolTimeout": False,
    "ProxyError": False,
    "UnsupportedProtocol": False,
    "ClientConnectorError": False,
    "ConnectionTimeoutError": False,
    "TransportError": True,
    "ClientConnectionError": True,
    "ClientPayloadError": True,
    "ClientResponseError": True,
    "APIConnectionError": True,
    "ModelConnectionError": True,
    "ModelTimeoutError": True,
}
_UNCLEAR = (ConnectionError, TimeoutError)  # of the system: wrapping classes tell how far the request came

# Classes without a status, by name, and the equivalent status.
_STATUS_OF_CLASS: Mapping[str, int] = {
    "ModelAPIError": 503,
    "ModelRateLimitError": 429,
    "ModelAuthenticationError": 401,
    "ModelPermissionDeniedError": 403,
    "ModelNotFoundError": 404,
    "ModelRefusalError": 400,
    "ContextOverflowError": 400,
    "ModelInvalidRequestError": 400,
    "UnicodeEncodeError": 400,
}


def parse_retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds to wait (0 to LONGEST_WAIT) by `retry-after-ms` or `retry-after`; else None.

    `retry-after` is a number of seconds or an HTTP date.

    >>> parse_retry_after({"retry-after-ms": "1500"})
    1.5
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / divisor
        except ValueError:
            continue
        if not math.isnan(seconds):
            return min(LONGEST_WAIT, max(0.0, seconds))
    try:
        moment = parsedate_to_datetime(headers.get("retry-after") or "").timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(LONGEST_WAIT, max(0.0, moment - now()))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and its causes, deepest last. An exception as first argument counts as a cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
        error = error.__cause__ or wrapped


def translate(error: Exception, *, where: str, variable: str, quote: Callable[[object], str]) -> ModelError:
    """Return the ModelError for `error`; one among its causes is used as it is."""
    for part in chain(error):
        if isinstance(part, ModelError):
            return part.within(where)
    if (lost := _lost(error, where, quote)) is not None:
        return lost
    status, code, detail = _status_of(error), *_details(error)
    headers = getattr(getattr(error, "response", None), "headers", None)
    if headers is None or not hasattr(headers, "get"):
        headers = {}
    if status is not None and 300 <= status < 400:
        detail = f"to {headers.get('location', 'nowhere')}"
    names = [kind.__name__ for kind in type(error).__mro__]
    meant = next((_STATUS_OF_CLASS[name] for name in names if name in _STATUS_OF_CLASS), 200)
    if isinstance(error, TypeError) and "keyword argument" in str(error):
        meant = 400  # refused by the client class
    failure = status_to_error(
        meant if status is None else status,
        code=code,
        detail=words(error, quote) if status is None and not detail else quote(detail or str(error)),
        where=f"{where}: {type(error).__name__ if status is None else f'HTTP {status}'}",
        variable=variable,
        retry_after=parse_retry_after(headers),
    )
    failure.status = status
    return failure


def words(error: BaseException, quote: Callable[[object], str]) -> str:
    """Return class and message of the deepest cause that has a message."""
    cause = [part for part in chain(error) if part is error or str(part)][-1]
    return quote(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)


def _lost(error: Exception, where: str, quote: Callable[[object], str]) -> ModelError | None:
    heading = f"{where}: {type(error).__name__}"
    for part in reversed(list(chain(error))):
        if isinstance(part, ssl.SSLCertVerificationError):
            return RunRefused(
                f"{heading}: the server's certificate is not trusted ({words(error, quote)}); "
                "set SSL_CERT_FILE to a file with trusted certificates"
            )
        sent = next((_SENT[kind.__name__] for kind in type(part).__mro__ if kind.__name__ in _SENT), None)
        if sent is False:
            return Transient(f"{heading}: cannot connect ({words(error, quote)}); check the address, or try again")
        if sent:
            break
    else:
        if not any(isinstance(part, _UNCLEAR) for part in chain(error)):
            return None
    return TransportUnknown(f"{heading}: the connection broke ({words(error, quote)}); try again")


def status_to_error(
    status: int, *, code: str, detail: str, where: str, variable: str, retry_after: float | None = None
) -> ModelError:
    """Return the error for an HTTP `status`. `code` is the body's, `detail` its (already redacted) message."""

    def of(kind: type[ModelError], what: str) -> ModelError:
        return kind(f"{where}: {what}", retry_after, status=status)

    if status == 402 or code in _NO_QUOTA or _QUOTA.search(detail):
        return of(RunRefused, f"no quota left ({detail}); add credit to the account of {variable}, or raise its limit")
    if status == 413 or (status == 429 and _TOO_LARGE.search(detail)):
        return of(RowRefused, f"the request is too long for this model ({detail}); shorten the prompt")
    if status == 429:
        return of(RateLimited, f"too many requests ({detail}); wait and try again")
    is_flagged = _POLICY.search(f"{code} {detail}") and not _ACCOUNT.search(detail)
    if status == 401 or (status == 403 and not is_flagged):
        return of(RunRefused, f"the key was refused ({detail}); set {variable} to a key that may use this model")
    if status == 407:
        return of(RunRefused, f"the proxy requires a login ({detail}); add it to the proxy's address")
    if 300 <= status < 400:
        return of(RunRefused, f"the address redirects ({detail}); use the address it redirects to")
    if status in (404, 405, 410) or code == "model_not_found":
        hint = f"check the name, and that the key in {variable} may use it"
        return of(RunRefused, f"unknown model or address ({detail}); {hint}")
    if status in (504, 524):
        return of(TransportUnknown, f"a gateway before the provider timed out ({detail}); try again")
    if status in (408, 409, 425) or status >= 500:
        return of(Transient, f"the provider failed ({detail}); try again")
    if status >= 400:
        if _TOO_LONG.search(f"{code} {detail}"):
            return of(RowRefused, f"the request is too long for this model ({detail}); shorten the prompt")
        if _CUT.search(detail):
            return of(
                RowRefused,
                f"the reply does not fit max_tokens ({detail}); raise it, for a reasoning model by {ROOM_TO_THINK}",
            )
        if is_flagged:
            return of(RowRefused, f"refused by the content policy ({detail}); change or drop this row")
        return of(RequestRefused, f"the request was refused ({detail}); change the request")
    return of(BadResponse, f"the reply cannot be read ({detail}); try again, or check the address")


def is_hopeless(error: Exception, failure: ModelError) -> bool:
    """Return whether a failed probe shows that no call can work at all."""
    code, detail = _details(error)
    if failure.status is None:
        unreachable = any(isinstance(part, ConnectionRefusedError | socket.gaierror) for part in chain(error))
        return unreachable or isinstance(failure, RunRefused)
    if failure.status == 404:
        return code == "model_not_found" or (code == "not_found_error" and detail.startswith("model:"))
    return failure.status == 407 or (failure.status == 401 and not re.search(r"scope|permission", detail, re.I))


def refused_parameter(error: ModelError, sent: Set[str]) -> str:
    """Return the sent parameter that the provider's message refuses; "": another failure."""
    says, status = str(error).lower(), error.status
    refused = {
        "temperature": isinstance(error, RowRefused | BadResponse)
        and "temperature" in says
        and _NO_TEMPERATURE.search(says),
        "max_tokens": status in (400, 422)
        and "max_tokens" in says
        and "max_completion_tokens" in says
        and re.search("unsupported|not support|instead", says),
        "seed": isinstance(error, RowRefused) and re.search(r"\bseed\b", says) and _NO_SEED.search(says),
        "logprobs": status in (400, 403, 404, 422, 501) and "logprobs" in says,
        "schema": status in (400, 404, 422, 501) and any(word in says for word in _SCHEMA),
    }
    return next((name for name, is_refused in refused.items() if is_refused and name in sent), "")


def _status_of(error: BaseException) -> int | None:
    places = ((error, "status_code"), (error, "code"), (getattr(error, "response", None), "status_code"))
    for value in (getattr(at, name, None) for at, name in places):
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return int(value)
    return None


def _details(error: BaseException) -> tuple[str, str]:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return "", inner if isinstance(inner, str) else ""
    return str(inner.get("code") or inner.get("type") or ""), str(inner.get("message") or "")
