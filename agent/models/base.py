"""What the hosted models share: one attempt with its timeout, and the translation of every failure to `agent.errors`.

It knows HTTP statuses, headers and the usual shapes of error bodies; it knows no SDK. Errors are recognised by what
they carry (a status, a response) or by the names of their classes, so that one table serves every provider.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from agent.errors import BadResponse, ModelError, RateLimited, RowRefused, RunRefused, Transient
from agent.types import Completion, FinishReason, Request, Usage

_DETAIL = 300  # characters of a provider's own words that a message may hold
_SHORTEST_SECRET = 6  # characters
_MESSAGE_OVERHEAD = 4  # tokens that a chat template adds to each message

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
    "safety": "refusal",
    "prohibited_content": "refusal",
}
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
_TOO_LONG = re.compile(r"context.{0,3}(length|window)|too (long|large|many (input )?tokens)|maximum context", re.I)
_POLICY = re.compile(r"content.{0,3}(policy|filter|management)|moderation|safety system|flagged", re.I)
_NO_TEMPERATURE = re.compile(
    r"unsupported|not support|deprecated|not permitted|not allowed|only the default|only be set"
)
_KEY = re.compile(r"(?:\b(?:sk|gsk|xai)-[\w*.\-]{4,}|\bAIza[\w\-]{8,}|(?<=bearer )[^\s'\",}]+)", re.I)

# Classes that carry no status, by name, and the status that means the same.
_STATUS_OF_CLASS: Mapping[str, int] = {
    "APITimeoutError": 504,
    "APIConnectionError": 503,
    "TransportError": 503,
    "ClientConnectionError": 503,
    "ConnectionError": 503,
    "TimeoutError": 504,
    "ModelTimeoutError": 504,
    "ModelConnectionError": 503,
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


def estimate_tokens(text: str) -> int:
    """An upper estimate of the tokens of `text`: the larger of half its UTF-8 bytes (rounded up) and its words.

    Byte-pair tokenizers give about one token for four bytes of English and one for two or three of most other
    scripts, so prose and code stay below it; long runs of rare symbols may not.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    return max((size + 1) // 2, len(text.split()))


def parse_retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait (>= 0) from `retry-after-ms`, or `retry-after` in seconds or as an HTTP date; else None."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") / divisor
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after") or "").timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return max(0.0, moment - now())


def finish_reason(value: object) -> FinishReason:
    """The provider's word for why it stopped, as ours; an unknown word is "other"."""
    return _FINISH.get(value.lower(), "other") if isinstance(value, str) else "other"


def redact(text: str, *secrets: str) -> str:
    """`text` with `secrets`, and whatever else looks like a key, replaced by `[key]`. Short dummies are no secrets."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[key]")
    return _KEY.sub("[key]", text)


def key_from(variable: str, given: str | None = None) -> str:
    """The key `given`, or the one in the environment `variable`; RunRefused if there is none or it cannot be sent."""
    key = (given if given is not None else os.environ.get(variable, "")).strip()
    if not key:
        raise RunRefused(f"no API key: the environment variable {variable} is not set; set it and run again")
    if not all("!" <= character <= "~" for character in key):
        raise RunRefused(f"the API key in {variable} holds a blank or a character outside ASCII; set it again")
    return key


def web_address(url: str) -> tuple[str, str]:
    """Scheme and host of `url`; two empty strings if it is no http or https address."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        return "", ""
    return (scheme, host) if host and scheme in ("http", "https") else ("", "")


def token_count(value: object) -> int | None:
    """`value` if it is a count of tokens (an int >= 0), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class HostedModel(ABC):
    """The half of the LM protocol that all hosted models share. A subclass gives `_prepare` and `_ask`.

    `variable` is the environment variable that messages tell the user to set. One attempt is one HTTP request.
    Models that refuse `temperature` are learned: the refused attempt raises Transient, later ones leave it out.
    """

    def __init__(self, name: str, variable: str) -> None:
        self._name = name
        self._variable = variable
        self._secrets: tuple[str, ...] = ()
        self._send_temperature = True

    @property
    def name(self) -> str:
        return self._name

    @property
    def concurrency(self) -> int | None:
        return None

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """One attempt within `request.timeout` seconds; raises a ModelError whose message holds no key."""
        with_temperature = self._send_temperature
        try:
            self._prepare()
        except ModelError as error:
            raise type(error)(f"{self._name}: {error}") from error.__cause__
        except Exception as error:
            self._scrub(error)
            raise RunRefused(f"{self._name}: cannot start ({self._words(error)}); check {self._variable}") from error
        try:
            async with asyncio.timeout(request.timeout):
                return await self._ask(request)
        except ModelError as error:
            raise type(error)(f"{self._name}: {error}") from error.__cause__
        except Exception as error:
            self._scrub(error)
            if isinstance(error, TimeoutError):
                raise Transient(f"{self._name}: no reply within {request.timeout:g} seconds; try again") from error
            raise self._translate(error, with_temperature) from error

    @abstractmethod
    async def close(self) -> None:
        """Free what `_prepare` made; the next `complete` makes it again."""

    @abstractmethod
    def _prepare(self) -> None:
        """Import the SDK and make the client, once. Any exception but a ModelError becomes RunRefused."""

    @abstractmethod
    async def _ask(self, request: Request) -> Completion:
        """Send one request and read the reply. Any exception but a ModelError is translated."""

    def _object(self, body: bytes) -> dict[str, Any]:
        """The JSON object in `body`; BadResponse, with its beginning, if it is anything else."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"the reply is not JSON: {self._quote(body)}; try again, or check the address") from error
        if not isinstance(data, dict):
            raise BadResponse(f"the reply is not a JSON object: {self._quote(body)}; try again, or check the address")
        return data

    def _quote(self, value: object) -> str:
        """One line with the beginning of `value`, without keys (taken out before the cut: none is cut in two)."""
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        text = " ".join(redact(text, *self._secrets).split())
        return text if len(text) <= _DETAIL else text[:_DETAIL] + "…"

    def _usage(self, request: Request, text: str, prompt: object, completion: object, cached: object) -> Usage:
        """The provider's counts, or estimates for those that are missing or a zero that cannot be true."""
        prompt_tokens = token_count(prompt) or sum(
            self.count_tokens(message.content) + _MESSAGE_OVERHEAD for message in request.messages
        )
        completion_tokens = token_count(completion) or self.count_tokens(text)
        return Usage(prompt_tokens, completion_tokens, min(token_count(cached) or 0, prompt_tokens))

    def _words(self, error: BaseException) -> str:
        """What `error` says or, where it carries no status, what the deepest of its causes that speaks says."""
        says, cause = error, error.__cause__ if _status_of(error) is None else None
        while cause is not None:
            says, cause = cause if str(cause) else says, cause.__cause__
        return self._quote(f"{type(says).__name__}: {says}" if str(says) else type(says).__name__)

    def _scrub(self, error: BaseException | None) -> None:
        """Take the keys out of the texts that a traceback would print for `error` and its causes."""
        while error is not None:
            error.args = tuple(redact(a, *self._secrets) if isinstance(a, str) else a for a in error.args)
            error = error.__cause__ or error.__context__

    def _translate(self, error: Exception, with_temperature: bool) -> ModelError:
        status, code, detail = _status_of(error), *_details(error)
        detail = self._quote(detail) if detail else self._words(error)
        heading = f"HTTP {status}" if status is not None else type(error).__name__
        if status is None:
            status = next(
                (_STATUS_OF_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in _STATUS_OF_CLASS), 200
            )
        if with_temperature and status in (200, 400, 422) and _refuses_temperature(detail):
            self._send_temperature = False
            return Transient(f"{self._name}: the model refuses `temperature`, which is left out from now on; try again")
        headers = getattr(getattr(error, "response", None), "headers", None)
        return status_to_error(
            status,
            code=code,
            detail=detail,
            where=f"{self._name}: {heading}",
            variable=self._variable,
            retry_after=parse_retry_after(headers) if headers is not None and hasattr(headers, "get") else None,
        )


def status_to_error(
    status: int, *, code: str, detail: str, where: str, variable: str, retry_after: float | None = None
) -> ModelError:
    """The error that an HTTP `status` (with the body's `code` and words, already redacted) means for the caller."""
    if status == 402 or code in _NO_QUOTA or "credit balance" in detail:
        return RunRefused(f"{where}: no quota left ({detail}); add credit to the account of {variable}")
    if status == 429:
        return RateLimited(f"{where}: too many requests ({detail}); wait and try again", retry_after)
    if status in (401, 403):
        return RunRefused(f"{where}: the key was refused ({detail}); set {variable} to a key that may use this model")
    if status in (404, 405, 410) or code == "model_not_found":
        return RunRefused(
            f"{where}: unknown model or address ({detail}); check the name, and that the key in {variable} may use it"
        )
    if status in (408, 409, 425) or status >= 500:
        return Transient(f"{where}: the provider failed ({detail}); try again")
    if status >= 400:
        if status == 413 or _TOO_LONG.search(f"{code} {detail}"):
            return RowRefused(f"{where}: the request is too long for this model ({detail}); shorten the prompt")
        if _POLICY.search(f"{code} {detail}"):
            return RowRefused(f"{where}: refused by the content policy ({detail}); change or drop this row")
        return RowRefused(f"{where}: the request was refused ({detail}); change the request")
    return BadResponse(f"{where}: the reply cannot be read ({detail}); try again, or check the address")


def _refuses_temperature(words: str) -> bool:
    words = words.lower()
    return "temperature" in words and _NO_TEMPERATURE.search(words) is not None


def _status_of(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    ):
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return int(value)
    return None


def _details(error: BaseException) -> tuple[str, str]:
    """The error body's code ("" if none) and its own words ("" if none), from `{"error": {...}}` or its inside."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return "", inner if isinstance(inner, str) else ""
    return str(inner.get("code") or inner.get("type") or ""), str(inner.get("message") or "")
