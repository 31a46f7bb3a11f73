"""Shared base of hosted models: one attempt within its timeout, client handling, and replies without keys.

Knows no SDK and no HTTP: `transport.py` bounds replies and classifies failures.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from agent.errors import (
    BadResponse,
    ModelError,
    ParameterRefused,
    RunRefused,
    TemperatureRefused,
    TransportUnknown,
)
from agent.models.tool_calling import tools_text
from agent.models.transport import ALLOWED_BYTES, MAX_RESPONSE_BYTES, is_hopeless, refused_parameter, translate, words
from agent.models.wire_format import WireUsage
from agent.redact import mask, rare_secrets_in, redact, secrets_in
from agent.safe_text import printable
from agent.types import Completion, FinishReason, Request, Usage
from agent.worker import run_aside

PROBE_SECONDS = 5.0
TOKEN_CHARS = 32  # most characters per token on average: prose has 4 or 5; today's longest tokens, of blanks, 128
SPARE_CHARS = 64_000
"""Characters a reply may have in addition to its `max_tokens`, for servers that ignore small limits."""
SPARE_BYTES = 500_000  # bytes of a reply besides text and log-probabilities: ids, counts, hidden reasoning
_NAME = 200  # most characters of a model's name, or of a token with log-probability, in the ledger
_DETAIL = 300  # most characters of a provider's text in a message
_READ = 20_000  # characters of it searched for keys
_MESSAGE_OVERHEAD = 4  # tokens added by the chat template to each message


def estimate_tokens(text: str) -> int:
    """Estimate tokens from above: half the UTF-8 bytes or the words, whichever are more.

    >>> estimate_tokens("The dog bit the man.")
    10
    """
    # byte-pair tokenizers take about four bytes a token of English, two or three of most other scripts
    size = len(text.encode("utf-8", "surrogatepass"))
    return max((size + 1) // 2, len(text.split()))


def most_chars(request: Request) -> int:
    return SPARE_CHARS + TOKEN_CHARS * request.max_tokens


def most_bytes(request: Request) -> int:
    """Return the limit of a reply's body: two bytes per character, four per requested log-probability."""
    of_tokens = 2 * TOKEN_CHARS * request.max_tokens * (1 + 2 * request.logprobs)
    return min(MAX_RESPONSE_BYTES, SPARE_BYTES + of_tokens)


def cut(text: str, most: int = _NAME) -> str:
    """Return `text`, or its first `most` characters and an ellipsis."""
    return text if len(text) <= most else text[:most] + "…"


def key_from(variable: str, given: str | None = None) -> str:
    """Return the key `given`, or that of the environment `variable`. Raises RunRefused if missing or malformed."""
    key = (given if given is not None else os.environ.get(variable, "")).strip()
    if not key:
        raise RunRefused(f"no API key: the environment variable {variable} is not set; set it and run again")
    if not all("!" <= character <= "~" for character in key):
        raise RunRefused(f"the API key in {variable} holds a blank or a character outside ASCII; set it again")
    return key


def web_address(url: str) -> tuple[str, str]:
    """Return scheme and host of an http(s) `url`; empty strings for anything else.

    >>> web_address("https://api.openai.com/v1")
    ('https', 'api.openai.com')
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        return "", ""
    return (scheme, host) if host and scheme in ("http", "https") else ("", "")


def require_address(url: str, form: str, instead: str, variable: str = "") -> None:
    """Raise RunRefused unless `url` is a web address without login and query. The message holds no login."""
    where = f"{variable}: " if variable else ""
    if "@" in (url.partition("://")[2] or url).partition("/")[0]:
        raise RunRefused(f"{where}no name or password in the address; set {instead} instead")
    if "?" in url:  # an SDK would append its paths to the query
        ending = f"{url.partition('?')[0]!r} ends before its '?'; write it as {form}"
        raise RunRefused(f"{where}no query in the address: {ending}")
    if not all(web_address(url)):
        raise RunRefused(f"{where}{bare_address(url)!r} is not a web address; write it as {form}")


def bare_address(address: str) -> str:
    """Return `address` without login, query and fragment, safe to record.

    >>> bare_address("https://user:secret@host/v1/?key=1")
    'https://host/v1'
    """
    parts = re.split(r"[?#]", address.strip())[0].split("/")
    return "/".join(part.rpartition("@")[2] for part in parts).rstrip("/")


Logprobs = tuple[tuple[tuple[str, float], ...], ...]

WITHOUT = {
    "temperature": "refuses `temperature`, which is left out",
    "max_tokens": "refuses `max_tokens`, which is sent as `max_completion_tokens`",
    "seed": "refuses `seed`, which is left out",
    "logprobs": "supports no log-probabilities, which are left out",
    "schema": "supports no JSON schema, which is left out",
}
"""Consequence of a refused parameter, for messages."""


class Batched(Exception):
    """The reply to a batched request, or its error, in the shape of an SDK's."""

    def __init__(self, status: int, body: Any) -> None:
        self.status_code, self.body, self.content = status, body, json.dumps(body).encode()
        super().__init__(f"HTTP {status}")


class HostedModel(ABC):
    """Base class of hosted models; `_sends` holds the parameters that the model has not refused so far."""

    concurrency: int | None = None
    _given_key: str | None = None  # else that of the environment
    is_bounded = True  # whether `max_tokens` bounds the size of a reply

    def __init__(self, name: str, model: str, variable: str, endpoint: str = "", address_variable: str = "") -> None:
        self.name = name
        self._model = model
        self.endpoint = endpoint
        self._address_variable = address_variable
        self._variable = variable
        self._secrets: tuple[str, ...] = ()
        self._rare_secrets: tuple[str, ...] = ()  # those that no reply contains by chance
        self._sends = {"temperature", "seed", "logprobs", "schema"}
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the client; its connections end with the loop

    def check_key(self) -> None:
        """Raise RunRefused if there is no key, without connecting."""
        self._key()

    def _key(self) -> str:
        key = key_from(self._variable, self._given_key)
        self._secrets += (key,)
        return key

    @property
    def hints(self) -> list[str]:
        """Return lines to print before the first call, about an unusual address."""
        if not (self.endpoint and self._address_variable):
            return []
        return [f"{self.name}: rows go to {self.endpoint.partition(' ')[0]} ({self._address_variable})"]

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Make one attempt within `request.timeout` seconds, without a key in the reply. Raises ModelError."""
        sent = frozenset(self._sends)
        await self._started()
        reply: Any = None
        ALLOWED_BYTES.set(most_bytes(request) if self.is_bounded else MAX_RESPONSE_BYTES)
        with self._errors(request.timeout, lambda: getattr(reply, "status_code", None), request, sent):
            async with asyncio.timeout(request.timeout):
                reply = await self._send(request)
            content = getattr(reply, "content", None)
            size = len(content) if isinstance(content, str | bytes) else 0
            return await run_aside(size, partial(self._settled, request, reply))

    def read_batched(self, request: Request, status: int, body: Any) -> Completion:
        """Read the reply to a batched request; returns and raises as `complete`."""
        with self._errors(request.timeout, lambda: status, request, WITHOUT.keys()):
            reply = Batched(status, body)
            if status >= 400:
                raise reply
            return self._settled(request, reply)

    @contextmanager
    def _errors(
        self,
        seconds: float,
        status: Callable[[], int | None] = lambda: None,
        request: Request | None = None,
        sent: Set[str] = frozenset(),
    ) -> Iterator[None]:
        try:
            yield
        except ModelError as error:
            raise error.within(self.name, status()) from error.__cause__
        except Exception as error:
            self._scrub(error)
            if isinstance(error, TimeoutError):
                late = f"{self.name}: no reply within {seconds:g} seconds; try again"
                raise TransportUnknown(late) from error
            failure = self._translated(error)
            if request is not None and (learned := self._learn(request, sent, failure)):
                kind = TemperatureRefused if learned == "temperature" else ParameterRefused
                refused = f"{self.name}: the model {WITHOUT[learned]} from now on; try again"
                raise kind(refused, status=failure.status) from error
            raise failure from error

    def _translated(self, error: Exception) -> ModelError:
        return translate(error, where=self.name, variable=self._variable, quote=self._quote)

    async def probe(self) -> str:
        """Ask the provider about the model at no cost; return what remains unclear, or "". Raises RunRefused."""
        await self._started()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await self._look()
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:g} seconds"
        except Exception as error:
            self._scrub(error)
            failure = self._translated(error)
            if is_hopeless(error, failure):
                raise RunRefused(str(failure), status=failure.status) from error
            return str(failure)

    async def close(self) -> None:
        """Close the client; the next `complete` makes a new one."""
        client, self._client = self._client, None
        await self._drop(client, self._loop)

    @abstractmethod
    def _start(self) -> Any:
        """Import the SDK and create the client. Exceptions other than ModelError become RunRefused."""

    @abstractmethod
    async def _stop(self, client: Any) -> None: ...

    @abstractmethod
    async def _send(self, request: Request) -> Any:
        """Send one request and return the reply. Exceptions other than ModelError are translated."""

    @abstractmethod
    def _read(self, request: Request, reply: Any) -> Completion:
        """Return the completion in `reply`. Raises BadResponse."""

    def _learn(self, request: Request, sent: Set[str], failure: ModelError) -> str:
        used = {"seed": request.seed is not None, "logprobs": request.logprobs, "schema": request.json_schema}
        parameter = refused_parameter(failure, {name for name in sent if used.get(name, True)})
        self._sends.discard(parameter)
        return parameter

    async def _look(self) -> str:
        return "the provider cannot be asked about it"

    async def _started(self) -> None:
        try:
            await self._ready()
        except ModelError as error:
            raise error.within(self.name) from error.__cause__
        except Exception as error:
            self._scrub(error)
            says = words(error, self._quote)
            what = "install that package" if isinstance(error, ImportError) else f"check {self._variable}"
            raise RunRefused(f"{self.name}: cannot start ({says}); {what}") from error

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()  # nothing is awaited before there is a client: no other call makes a second
        if self._client is not None and self._loop is loop:
            return
        stale, before, self._client = self._client, self._loop, None
        self._secrets = found = secrets_in(os.environ)
        self._client, self._loop = self._start(), loop
        self._rare_secrets = rare_secrets_in(os.environ) + self._secrets[len(found) :]  # with the model's own keys
        await self._drop(stale, before)

    async def _drop(self, client: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        if client is None or loop is None:
            return
        if loop is asyncio.get_running_loop():
            await self._stop(client)
        elif loop.is_closed():
            with suppress(Exception):  # its connections are gone
                await self._stop(client)

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"the reply is not JSON: {self._quote(body)}; try again, or check the address") from error
        if not isinstance(data, dict):
            raise BadResponse(f"the reply is not a JSON object: {self._quote(body)}; try again, or check the address")
        return data

    def _quote(self, value: object) -> str:
        longest = 3 * max(map(len, self._secrets), default=0)  # as a URL writes it
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if len(text) > _READ + longest:  # drops a key truncated at the end
            text = redact(text[: _READ + longest], self._secrets)[: -longest or None]
        text = " ".join(redact(text, self._secrets).split())
        text = printable(text[: _DETAIL + 1], mark=lambda char: "\N{REPLACEMENT CHARACTER}")
        return text if len(text) <= _DETAIL else text[:_DETAIL] + "…"

    def _named(self, request: Request, *names: str) -> dict[str, Any]:
        values = {"temperature": request.temperature, "seed": request.seed, "stop": list(request.stop) or None}
        limit, refused = "max_tokens", {"temperature", "seed"} - self._sends
        if "max_tokens" not in self._sends:
            limit = "max_completion_tokens"
        sent = {name: values[name] for name in names if name not in refused and values[name] is not None}
        return {limit: request.max_tokens, **sent}

    def _completion(
        self,
        request: Request,
        text: str,
        finish: FinishReason,
        usage: Mapping[str, Any],
        wire: WireUsage,
        served: object,
        logprobs: Logprobs = (),
    ) -> Completion:
        prompt, completion, cached, written, total = wire.counts(usage)
        cached, written = cached or 0, written or 0  # below, counts that are missing or impossibly zero are estimated
        if prompt is not None and wire.prompt_is_new:
            prompt += cached + written
        sent = [
            *(message.content for message in request.messages),
            *([tools_text(request.tools)] * bool(request.tools)),
        ]
        of_prompt = prompt or sum(self.count_tokens(text) + _MESSAGE_OVERHEAD for text in sent)
        hidden = (total or 0) - of_prompt if prompt else 0  # some count reasoning tokens in the total only
        known = min(cached, of_prompt)
        of_reply = max(completion or 0, hidden) or self.count_tokens(text)
        counted = Usage(of_prompt, of_reply, known, min(written, of_prompt - known))
        return Completion(
            text, finish, counted, served if isinstance(served, str) and served else self._model, logprobs
        )

    def _settled(self, request: Request, reply: Any) -> Completion:
        completion = self._read(request, reply)
        if len(completion.text) > (most_chars(request) if self.is_bounded else MAX_RESPONSE_BYTES):
            raise BadResponse(
                f"the reply has {len(completion.text):,} characters, which {request.max_tokens} tokens cannot have: "
                f"{self._quote(completion.text)}; check that the server heeds max_tokens"
            )
        secrets = self._rare_secrets  # a server may echo what it was sent
        text, model = mask(completion.text, secrets), mask(completion.model, secrets)
        tokens = str(completion.logprobs) if completion.logprobs else ""
        kept = completion.logprobs[: request.max_tokens] if request.logprobs and mask(tokens, secrets) is tokens else ()
        logprobs = tuple(tuple((cut(token), value) for token, value in top[: request.logprobs]) for top in kept)
        return replace(completion, text=text, model=cut(model), logprobs=logprobs)

    def _scrub(self, error: BaseException) -> None:
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while waiting:
            part = waiting.pop()
            if part is None or id(part) in seen:
                continue
            seen.add(id(part))
            waiting += [part.__cause__, part.__context__, *(a for a in part.args if isinstance(a, BaseException))]
            part.args = tuple(redact(a, self._secrets) if isinstance(a, str) else a for a in part.args)
