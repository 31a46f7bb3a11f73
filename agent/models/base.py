"""What the hosted models share: one attempt within its time, its client, and a reply or error that holds no key.

It knows no SDK and no HTTP: how failures are told apart stands in `failures.py`, how a reply is bounded in
`transport.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from contextlib import suppress
from contextvars import ContextVar
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
from agent.models.failures import (
    is_hopeless,
    refuses_logprobs,
    refuses_max_tokens,
    refuses_schema,
    refuses_seed,
    refuses_temperature,
    translate,
    words,
)
from agent.redact import mask, rare_secrets_in, redact, secrets_in
from agent.types import Completion, FinishReason, Request, Usage
from agent.worker import run_aside

PROBE_SECONDS = 5.0
MAX_RESPONSE_BYTES = 4_000_000
"""Of any reply: at this size the slowest JSON takes the parser half a second, during which nothing else runs."""
TOKEN_CHARS = 32
"""Of a reply's token, on the average: prose has 4 or 5, and the longest tokens of today's models, of blanks, 128."""
SPARE_CHARS = 64_000
"""Of a reply's text beside its `max_tokens`, for servers that heed no small limit."""
SPARE_BYTES = 500_000
"""Of a reply beside its text and log-probabilities: ids, counts, a trace of reasoning."""
ALLOWED_BYTES: ContextVar[int] = ContextVar("ALLOWED_BYTES", default=MAX_RESPONSE_BYTES)
"""What the reply to the call that is made now may have; `transport.py` goes by it."""
_NAME = 200  # characters of a model's name, or of a token of log-probabilities, that go into the ledger
MOST_TOKENS = 1 << 40  # of one call; what says more is no count
_DETAIL = 300  # characters of a provider's own words that a message may hold
_READ = 20_000  # characters of them that are looked at
_MESSAGE_OVERHEAD = 4  # tokens that a chat template adds to each message

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
    "safety": "refusal",
    "prohibited_content": "refusal",
}


def estimate_tokens(text: str) -> int:
    """An upper estimate of the tokens of `text`: the larger of half its UTF-8 bytes (rounded up) and its words.

    Byte-pair tokenizers give about one token for four bytes of English and one for two or three of most other
    scripts, so prose and code stay below it; long runs of rare symbols may not.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    return max((size + 1) // 2, len(text.split()))


def most_chars(request: Request) -> int:
    """The longest text that a reply to `request` may have, in characters."""
    return SPARE_CHARS + TOKEN_CHARS * request.max_tokens


def most_bytes(request: Request) -> int:
    """The largest body of a reply to `request`: two bytes a character, and four for each log-probability asked for."""
    of_tokens = 2 * TOKEN_CHARS * request.max_tokens * (1 + 2 * request.logprobs)
    return min(MAX_RESPONSE_BYTES, SPARE_BYTES + of_tokens)


def cut(text: str, most: int = _NAME) -> str:
    """`text`, or its beginning and a mark that something was cut off."""
    return text if len(text) <= most else text[:most] + "…"


def finish_reason(value: object) -> FinishReason:
    """The provider's word for why it stopped, as ours; an unknown word is "other"."""
    return _FINISH.get(value.lower(), "other") if isinstance(value, str) else "other"


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


def require_address(url: str, form: str, instead: str) -> None:
    """Raises RunRefused unless `url` is a web address of this form, without a login (that is not shown) and a query (an
    SDK would put its paths behind it)."""
    if "@" in (url.partition("://")[2] or url).partition("/")[0]:
        raise RunRefused(f"no name or password in the address; set {instead} instead")
    if "?" in url:
        raise RunRefused(f"no query in the address: {url.partition('?')[0]!r} ends before its '?'; write it as {form}")
    if not all(web_address(url)):
        raise RunRefused(f"{url!r} is not a web address; write it as {form}")


def bare_address(address: str) -> str:
    """`address` as it may be written down: without login, query and fragment."""
    return re.sub(r"[^/@]*@", "", re.split(r"[?#]", address.strip())[0]).rstrip("/")


def token_count(value: object) -> int | None:
    """`value` if it can be a count of tokens (an int, 0 to MOST_TOKENS), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


Logprobs = tuple[tuple[tuple[str, float], ...], ...]

WITHOUT = {
    "temperature": "refuses `temperature`, which is left out",
    "max_tokens": "refuses `max_tokens`, which is sent as `max_completion_tokens`",
    "seed": "refuses `seed`, which is left out",
    "logprobs": "gives no log-probabilities, which are left out",
    "schema": "keeps to no JSON schema, which is left out",
}
"""What is done without a parameter that a model refuses."""


class HostedModel(ABC):
    """The half of the LM protocol that all hosted models share. A subclass gives `_start`, `_stop`, `_send`, `_read`.

    `variable` is the environment variable that messages tell the user to set, `endpoint` an address that `name` does
    not stand for. One attempt is one HTTP request. Models that refuse `temperature`, `seed`, log-probabilities or a
    JSON schema are learned: the refused attempt raises ParameterRefused, later ones leave it out. `_sends` holds what
    has not been refused so far.
    """

    def __init__(self, name: str, variable: str, endpoint: str = "") -> None:
        self._name = name
        self.endpoint = endpoint
        self._variable = variable
        self._secrets: tuple[str, ...] = ()
        self._rare_secrets: tuple[str, ...] = ()  # those that a reply does not say by chance
        self._sends = {"temperature", "seed", "logprobs", "schema"}
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # a client's connections die with the loop they are made in

    @property
    def name(self) -> str:
        return self._name

    def check_key(self) -> None:
        """Raises RunRefused when there is no key to ask with. Connects to nothing."""
        key_from(self._variable)

    @property
    def concurrency(self) -> int | None:
        return None

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """One attempt within `request.timeout` seconds (and one more at most to clean up).

        Raises a ModelError with what is known of its `status` and `retry_after`. No secret of the environment and not
        the model's own key stands in its message, nor in the completion one that is not said by chance.
        """
        sent = frozenset(self._sends)
        await self._started()
        status = None
        ALLOWED_BYTES.set(most_bytes(request))
        try:
            async with asyncio.timeout(request.timeout):
                reply = await self._send(request)
            status = getattr(reply, "status_code", None)
            content = getattr(reply, "content", None)
            size = len(content) if isinstance(content, str | bytes) else 0
            return await run_aside(size, partial(self._settled, request, reply))
        except ModelError as error:
            raise error.within(self._name, status) from error.__cause__
        except Exception as error:
            self._scrub(error)
            if isinstance(error, TimeoutError):
                raise TransportUnknown(
                    f"{self._name}: no reply within {request.timeout:g} seconds; try again"
                ) from error
            failure = translate(error, where=self._name, variable=self._variable, quote=self._quote)
            if learned := self._learn(request, sent, failure):
                kind = TemperatureRefused if learned == "temperature" else ParameterRefused
                refused = f"{self._name}: the model {WITHOUT[learned]} from now on; try again"
                raise kind(refused, status=failure.status) from error
            raise failure from error

    async def probe(self) -> str:
        """Asks the provider about the model by the connection that calls take. It costs nothing and takes at most
        PROBE_SECONDS. Returns what stays unclear, "" where nothing does; raises RunRefused where no call can work.
        """
        await self._started()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await self._look()
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:g} seconds"
        except Exception as error:
            self._scrub(error)
            failure = translate(error, where=self._name, variable=self._variable, quote=self._quote)
            if is_hopeless(error, failure):
                raise RunRefused(str(failure), status=failure.status) from error
            return str(failure)

    async def close(self) -> None:
        """Free what the first `complete` made; the next one makes it again."""
        client, self._client = self._client, None
        await self._drop(client, self._loop)

    @abstractmethod
    def _start(self) -> Any:
        """Import the SDK and make the client. Any exception but a ModelError becomes RunRefused."""

    @abstractmethod
    async def _stop(self, client: Any) -> None:
        """Close the client that `_start` made."""

    @abstractmethod
    async def _send(self, request: Request) -> Any:
        """Send one request and return the reply. Any exception but a ModelError is translated."""

    @abstractmethod
    def _read(self, request: Request, reply: Any) -> Completion:
        """The completion in `reply`. Raises BadResponse if there is none."""

    def _learn(self, request: Request, sent: Set[str], failure: ModelError) -> str:
        """What the model refused of what was `sent`; "" if it failed for another reason.

        Of calls that fly at once the first to land teaches it, and the others were refused for the same.
        """
        if "temperature" in sent and refuses_temperature(failure):
            refused = "temperature"
        elif "max_tokens" in sent and refuses_max_tokens(failure):
            refused = "max_tokens"
        elif "seed" in sent and request.seed is not None and refuses_seed(failure):
            refused = "seed"
        elif "logprobs" in sent and request.logprobs and refuses_logprobs(failure):
            refused = "logprobs"
        elif "schema" in sent and request.json_schema is not None and refuses_schema(failure):
            refused = "schema"
        else:
            return ""
        self._sends.discard(refused)
        return refused

    async def _look(self) -> str:
        """One request about the model that is no call of it. Returns "", or why there is none."""
        return "the provider cannot be asked about it"

    async def _started(self) -> None:
        """`_ready`, and RunRefused where that cannot be."""
        try:
            await self._ready()
        except ModelError as error:
            raise error.within(self._name) from error.__cause__
        except Exception as error:
            self._scrub(error)
            says = words(error, self._quote)
            what = "install that package" if isinstance(error, ImportError) else f"check {self._variable}"
            raise RunRefused(f"{self._name}: cannot start ({says}); {what}") from error

    async def _ready(self) -> None:
        """A client for the running loop. It is made without a pause, so that no other call makes a second one."""
        loop = asyncio.get_running_loop()
        if self._client is not None and self._loop is loop:
            return
        stale, before, self._client = self._client, self._loop, None
        self._secrets = found = secrets_in(os.environ)
        self._client, self._loop = self._start(), loop
        self._rare_secrets = rare_secrets_in(os.environ) + self._secrets[len(found) :]  # with the model's own keys
        await self._drop(stale, before)

    async def _drop(self, client: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        """Close a client of `loop`. One whose loop is closed has no connections left, and may complain of that."""
        if client is None or loop is None:
            return
        if loop is asyncio.get_running_loop():
            await self._stop(client)
        elif loop.is_closed():
            with suppress(Exception):
                await self._stop(client)

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
        """One printable line with the beginning of `value`, without keys: none is cut in two."""
        longest = 3 * max(map(len, self._secrets), default=0)  # as a URL writes it
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if len(text) > _READ + longest:  # what is left of a key at the end of the piece goes with the last characters
            text = redact(text[: _READ + longest], self._secrets)[: -longest or None]
        text = " ".join(redact(text, self._secrets).split())
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: _DETAIL + 1])
        return text if len(text) <= _DETAIL else text[:_DETAIL] + "…"

    def _usage(
        self,
        request: Request,
        text: str,
        prompt: object,
        completion: object,
        cached: object,
        written: object = None,
        total: object = None,
    ) -> Usage:
        """The provider's counts, or estimates for those that are missing or a zero that cannot be true.

        Some count the tokens of reasoning in the `total` alone: what is not of the prompt there is of the reply.
        """
        counted = token_count(prompt)
        prompt_tokens = counted or sum(
            self.count_tokens(message.content) + _MESSAGE_OVERHEAD for message in request.messages
        )
        beside = (token_count(total) or 0) - prompt_tokens if counted else 0
        completion_tokens = max(token_count(completion) or 0, beside) or self.count_tokens(text)
        known = min(token_count(cached) or 0, prompt_tokens)
        return Usage(prompt_tokens, completion_tokens, known, min(token_count(written) or 0, prompt_tokens - known))

    def _settled(self, request: Request, reply: Any) -> Completion:
        """What `reply` says, as it goes to the ledger: bounded, and without secrets, for a server may say back what it
        was sent. Of what is no text of the reply, long strings are cut; a text beyond `most_chars` is no reply."""
        completion = self._read(request, reply)
        if len(completion.text) > most_chars(request):
            raise BadResponse(
                f"the reply has {len(completion.text):,} characters, which {request.max_tokens} tokens cannot have: "
                f"{self._quote(completion.text)}; check that the server heeds max_tokens"
            )
        secrets = self._rare_secrets
        text, model = mask(completion.text, secrets), mask(completion.model, secrets)
        tokens = str(completion.logprobs) if completion.logprobs else ""
        logprobs = completion.logprobs if mask(tokens, secrets) is tokens else ()
        logprobs = _bounded(logprobs, request) if logprobs else ()
        return replace(completion, text=text, model=cut(model), logprobs=logprobs)

    def _scrub(self, error: BaseException) -> None:
        """Take the keys out of the texts that a traceback would print for `error` and all that stands behind it."""
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while waiting:
            part = waiting.pop()
            if part is None or id(part) in seen:
                continue
            seen.add(id(part))
            waiting += [part.__cause__, part.__context__, *(a for a in part.args if isinstance(a, BaseException))]
            part.args = tuple(redact(a, self._secrets) if isinstance(a, str) else a for a in part.args)


def _bounded(logprobs: Logprobs, request: Request) -> Logprobs:
    """No more than what was asked for."""
    return tuple(
        tuple((cut(token), value) for token, value in top[: request.logprobs])
        for top in logprobs[: request.max_tokens * bool(request.logprobs)]
    )
