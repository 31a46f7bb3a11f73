"""One contract over all hosted models, with real SDKs against a local server: replies, usage, errors, size, keys."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from agent.errors import (
    BadResponse,
    ModelError,
    RateLimited,
    RequestRefused,
    RowRefused,
    RunRefused,
    TemperatureRefused,
    Transient,
    TransportUnknown,
)
from agent.models.anthropic import AnthropicModel
from agent.models.hosted import HostedModel, estimate_tokens, most_bytes, most_chars
from agent.models.langchain import LangChainModel
from agent.models.model_registry import create_model
from agent.models.openai import OpenAIModel
from agent.types import Message, Request, Usage
from tests.wire import Fault, Reply, WireServer

KEY = "secret-0123456789-abcdef"
TIMEOUTS = itertools.count(60.0, 0.001)
"""LangChain keeps an HTTP client per address and timeout as long as the process lives; a later server may get the port
of an earlier one, whose connections belong to a closed event loop."""
REQUEST = Request(
    messages=(Message("system", "Be brief."), Message("user", "Which team?")), max_tokens=16, timeout=10.0
)


def openai(server: WireServer) -> HostedModel:
    return OpenAIModel("openai-compatible/m", "m", base_url=server.url, api_key=KEY)


def openai_over_httpx2(server: WireServer) -> HostedModel:
    """The client used if the environment names a proxy; the proxy is for other addresses."""
    return openai(server)


def anthropic(server: WireServer) -> HostedModel:
    return AnthropicModel("anthropic/m", "m", base_url=server.root, api_key=KEY)


def langchain_openai_by_name(server: WireServer) -> HostedModel:
    return LangChainModel("langchain/openai:m", "openai", "m", base_url=server.url)


def langchain_anthropic(server: WireServer) -> HostedModel:
    from langchain.chat_models import init_chat_model

    chat = init_chat_model("anthropic:m", base_url=server.root, api_key=KEY, max_retries=0, timeout=next(TIMEOUTS))
    return LangChainModel("langchain/anthropic:m", "anthropic", "m", chat=chat)


Make = Callable[[WireServer], HostedModel]
SDKS: list[Make] = [openai, openai_over_httpx2, anthropic]
BOUNDED = [*SDKS, langchain_openai_by_name]
every_sdk = pytest.mark.parametrize("make", SDKS, ids=lambda make: make.__name__)
every_bounded_model = pytest.mark.parametrize("make", BOUNDED, ids=lambda make: make.__name__)
every_model = pytest.mark.parametrize("make", [*BOUNDED, langchain_anthropic], ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def _surroundings_of_models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    make = request.node.callspec.params.get("make") if hasattr(request.node, "callspec") else None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if make is openai_over_httpx2:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@asynccontextmanager
async def serving(make: Make, reply: Reply) -> AsyncIterator[tuple[HostedModel, WireServer]]:
    with WireServer(reply) as server:
        model = make(server)
        try:
            yield model, server
        finally:
            await model.close()


async def failure(make: Make, fault: Fault, request: Request = REQUEST) -> ModelError:
    async with serving(make, lambda messages, body: fault) as (model, server):
        with pytest.raises(ModelError) as caught:
            await model.complete(request)
        assert len(server.requests) == 1, "one attempt is one request"
        return caught.value


def is_anthropic(make: Make) -> bool:
    return "anthropic" in make.__name__


def refusal(make: Make, message: str, code: str = "invalid_request_error") -> dict[str, Any]:
    if is_anthropic(make):
        return {"type": "error", "error": {"type": code, "message": message}}
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def reply_body(make: Make, text: str | None, reason: str = "", **more: Any) -> dict[str, Any]:
    if is_anthropic(make):
        content = [] if text is None else [{"type": "text", "text": text}]
        reason = reason or "end_turn"
        return {"type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": reason} | more
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason or "stop"}
    return {"object": "chat.completion", "model": "m", "choices": [choice]} | more


# -- replies -----------------------------------------------------------------------------------------------------------


@every_model
async def test_a_request_is_sent_whole_and_its_reply_read_whole(make: Make) -> None:
    """Also many at once, and after the model was closed."""
    async with serving(make, lambda messages, body: messages[-1]["content"]) as (model, server):
        got = await model.complete(replace(REQUEST, temperature=0.5, stop=("END",), max_tokens=7))
        seen = server.requests[0]
        assert (got.text, got.finish, got.model, got.usage) == ("Which team?", "stop", "m", Usage(4, 2))
        await model.close()
        asked = [replace(REQUEST, messages=(Message("user", f"row {i}"),)) for i in range(12)]
        assert [each.text for each in await asyncio.gather(*map(model.complete, asked))] == [
            f"row {i}" for i in range(12)
        ]
    assert KEY in f"{seen.headers.get('authorization')} {seen.headers.get('x-api-key')}"
    assert seen.body["temperature"] == 0.5
    assert seen.body.get("stop", seen.body.get("stop_sequences")) == ["END"]
    assert seen.body.get("max_tokens", seen.body.get("max_completion_tokens")) == 7
    assert (model.concurrency, model.count_tokens("one two three")) == (None, estimate_tokens("one two three"))


@every_model
@pytest.mark.parametrize("text", [None, "the bill"])
async def test_finish_and_estimated_usage(make: Make, text: str | None) -> None:
    """Without usage, tokens are estimated; without text, refusals and truncations are replies."""
    reasons = {"refusal" if is_anthropic(make) else "content_filter": "refusal",
               "max_tokens" if is_anthropic(make) else "length": "length"}  # fmt: skip
    for reason, finish in reasons.items():
        async with serving(make, lambda messages, body, reason=reason: Fault(body=reply_body(make, text, reason))) as (
            model,
            _,
        ):
            got = await model.complete(REQUEST)
        assert (got.finish, got.text) == (finish, text or "")
        assert got.usage.prompt_tokens >= 4
        assert got.usage.completion_tokens >= 2 * bool(text)


# -- failures ----------------------------------------------------------------------------------------------------------

POLICY = 'Your chosen model requires moderation on openai and your input was flagged for "violence".'
TOO_LARGE = "Request too large for m on tokens per min (TPM). The input or output tokens must be reduced."
STATUSES: dict[int, type[ModelError]] = {
    400: RequestRefused, 401: RunRefused, 402: RunRefused, 403: RunRefused, 404: RunRefused, 408: Transient,
    409: Transient, 413: RowRefused, 422: RequestRefused, 429: RateLimited, 500: Transient, 502: Transient,
    503: Transient, 504: TransportUnknown, 524: TransportUnknown, 529: Transient,
}  # fmt: skip
WORDS: list[tuple[int, str, str, type[ModelError], str]] = [
    (429, "You exceeded your current quota.", "insufficient_quota", RunRefused, "no quota left"),
    (400, "You have reached your specified API usage limits.", "", RunRefused, "no quota left"),
    (400, "Your credit balance is too low to access the API.", "", RunRefused, "no quota left"),
    (403, "Your team has reached its monthly spending limit.", "", RunRefused, "no quota left"),
    (429, "You have hit the spend limit of this project.", "", RunRefused, "no quota left"),
    (403, "Content violates usage guidelines. API key ID: 12, Failed check: X", "", RowRefused, "content policy"),
    (403, POLICY, "forbidden", RowRefused, "content policy"),
    (403, "Your account was suspended: it violated our usage policies.", "", RunRefused, "the key was refused"),
    (429, TOO_LARGE, "rate_limit_exceeded", RowRefused, "too long"),
    (400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded", RowRefused, "too long"),
    (400, "prompt is too long: 210000 tokens > 200000 maximum", "", RowRefused, "too long"),
    (400, "Could not finish the message because max_tokens was reached.", "", RowRefused, "raise it"),
    (
        400,
        "The response was filtered by the content management policy.",
        "content_filter",
        RowRefused,
        "content policy",
    ),
    (400, "Invalid 'temperature': decimal above maximum value.", "", RequestRefused, "Invalid 'temperature'"),
    (400, "Unknown field.", "", RequestRefused, "Unknown field."),
]
WAITS: list[tuple[int, dict[str, str], float | None]] = [
    (429, {"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    (429, {"retry-after": "2.5"}, 2.5),
    (429, {"retry-after": formatdate(time.time() - 600, usegmt=True)}, 0),
    (429, {"retry-after": "-3"}, 0),
    (429, {"retry-after": "soon"}, None),
    *((status, {"retry-after": "7"}, 7.0) for status in (400, 401, 503, 529)),
]


@every_model
async def test_a_failure_is_classified_by_status_words_and_headers(make: Make) -> None:
    """One attempt is one request; the message is one line with the status and the variable of a refused key."""
    cases = [(Fault(status), kind, f"HTTP {status}", None) for status, kind in STATUSES.items()]
    cases += [
        (Fault(status, body=refusal(make, words, code or "invalid_request_error")), kind, says, None)
        for status, words, code, kind, says in WORDS
    ]
    cases += [(Fault(status, headers), STATUSES[status], "HTTP", wait) for status, headers, wait in WAITS]
    left = iter(cases)
    async with serving(make, lambda messages, body: next(left)[0]) as (model, server):
        for number, (fault, kind, says, wait) in enumerate(cases, 1):
            with pytest.raises(ModelError) as caught:
                await model.complete(replace(REQUEST, temperature=3.0))
            error = caught.value
            assert (type(error), error.status, error.retry_after) == (kind, fault.status, wait), fault
            assert says in str(error), fault
            assert "\n" not in str(error)
            assert error.__cause__ is not None
            assert len(server.requests) == number, fault
            if fault.body is None and fault.status in (401, 403, 404):
                assert ("ANTHROPIC_API_KEY" if is_anthropic(make) else "OPENAI_") in str(error)
    assert all("temperature" in seen.body for seen in server.requests), "out of range is not refused"


@every_model
async def test_a_model_that_refuses_temperature_never_gets_it_again(make: Make) -> None:
    words = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        return Fault(400, body=refusal(make, words, "unsupported_value")) if "temperature" in body else "ok"

    async with serving(make, reply) as (model, server):
        with pytest.raises(TemperatureRefused, match="refuses `temperature`, which is left out from now on"):
            await model.complete(REQUEST)
        assert (await model.complete(replace(REQUEST, temperature=0.9))).text == "ok"
    assert ["temperature" in seen.body for seen in server.requests] == [True, False]


HTML = "<html><body>Sign in to the network</body></html>"
JSON = {"content-type": "application/json"}
NO_REPLIES = [
    Fault(body=HTML),
    Fault(headers=JSON, body=HTML),
    Fault(body=[]),
    Fault(body=[{"choices": []}]),
    Fault(body={}),
    Fault(body={"choices": None, "content": None}),
    Fault(body={"choices": [], "content": []}),
    Fault(body={"choices": [{"index": 0, "finish_reason": "stop"}], "content": [{"type": "text"}]}),
    Fault(body={"choices": [{"message": None, "finish_reason": "stop"}], "content": [{"type": "text", "text": None}]}),
    Fault(body={"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}),
    Fault(body={"error": {"message": "upstream failed", "code": 502}}),
    Fault(headers=JSON, body='{"id": "x", "choices": [{"mess'),
    Fault(headers=JSON, body=b"\xff\xfe\x00"),
    Fault(headers=JSON, body="null"),
    Fault(body=""),
]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BROKEN = [
    Fault(raw=b""),
    Fault(raw=b"", reset=True),
    Fault(raw=HEAD + b"content-length: 500\r\n\r\n{"),
    Fault(raw=HEAD + b"content-length: 500\r\n\r\n{", reset=True),
    Fault(raw=HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{"),
    Fault(raw=HEAD[:20]),
    Fault(raw=b"no http at all\r\n\r\n"),
]


@every_model
async def test_a_200_that_is_no_reply_is_bad_and_a_broken_connection_unknown(make: Make) -> None:
    faults = [*NO_REPLIES, *BROKEN]
    left = iter(faults)
    async with serving(make, lambda messages, body: next(left)) as (model, server):
        for number, fault in enumerate(faults, 1):
            with pytest.raises(ModelError) as caught:
                await model.complete(REQUEST)
            if fault.raw is None:
                assert type(caught.value) is BadResponse, fault
                assert caught.value.status == 200 or "langchain" in make.__name__  # LangChain shows no status
            else:
                assert (type(caught.value), caught.value.status) == (TransportUnknown, None), fault
            assert "\n" not in str(caught.value)
            assert len(server.requests) == number, fault


def slowly(head: bytes, more: Callable[[int], bytes]) -> Iterator[bytes]:
    yield head
    yield from map(more, range(18000))


SLOW: dict[str, Callable[[], Fault]] = {
    "hang": lambda: Fault(delay=600.0),
    "early hints": lambda: Fault(
        raw=slowly(b"", lambda n: b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"), pause=0.1
    ),
    "slow head": lambda: Fault(raw=slowly(HEAD, lambda n: b"x-%d: y\r\n" % n), pause=0.1),
    "slow body": lambda: Fault(raw=slowly(HEAD + b"content-length: 18000\r\n\r\n{", lambda n: b" "), pause=0.1),
    "hang in the body": lambda: Fault(raw=[HEAD + b"content-length: 500\r\n\r\n{", b""], pause=600.0),
}


@every_model
async def test_the_timeout_bounds_the_whole_attempt_and_its_outcome_is_unknown(make: Make) -> None:
    """All attempts at once; the client is made before, which may take longer than the timeout."""
    left = iter([Fault(), *(fault() for fault in SLOW.values())])
    async with asyncio.timeout(30), serving(make, lambda messages, body: next(left)) as (model, server):
        await model.complete(REQUEST)
        calls = [model.complete(replace(REQUEST, timeout=0.5)) for _ in SLOW]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in found] == [TransportUnknown] * len(SLOW)
        assert "no reply within 0.5 seconds" in str(found[0])
        assert len(server.requests) == 1 + len(SLOW)


@every_model
async def test_a_server_that_is_not_there_was_not_paid(make: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    server = WireServer(lambda messages, body: "ok")
    server.root = f"http://127.0.0.1:{port}"
    model = make(server)
    with pytest.raises(Transient, match="cannot connect"):
        await model.complete(REQUEST)
    await model.close()


@pytest.mark.skipif(sys.platform != "linux", reason="how a full queue of connections behaves differs")
@every_sdk
async def test_a_server_that_takes_no_connection_was_not_paid(make: Make) -> None:
    with socket.socket() as full, ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        server = WireServer(lambda messages, body: "ok")
        server.root = f"http://127.0.0.1:{full.getsockname()[1]}"
        model = make(server)
        with pytest.raises(Transient, match="cannot connect"):
            await model.complete(replace(REQUEST, timeout=4.0))  # half of it to connect: the import of an SDK counts
        await model.close()


@every_model
async def test_a_cancelled_call_stays_cancelled_and_an_unsendable_request_is_the_rows_fault(make: Make) -> None:
    async with serving(make, lambda messages, body: Fault(delay=20.0)) as (model, server):
        with pytest.raises(RowRefused, match="surrogates"):
            await model.complete(replace(REQUEST, messages=(Message("user", "half \ud800 a pair"),)))
        assert server.requests == []
        call = asyncio.create_task(model.complete(REQUEST))
        while not server.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


# -- connections -------------------------------------------------------------------------------------------------------


@every_bounded_model
async def test_64_connections_are_kept_and_no_redirect_is_followed(make: Make) -> None:
    async with serving(make, lambda messages, body: Fault(delay=0.2)) as (model, server):
        for _ in range(2):
            await asyncio.gather(*(model.complete(REQUEST) for _ in range(64)))
    assert (server.opened, len(server.requests)) == (64, 128)
    with WireServer(lambda messages, body: "ok") as elsewhere:
        target = f"{elsewhere.root}/v1/chat/completions"
        error = await failure(make, Fault(status=307, headers={"location": target}))
        assert elsewhere.requests == []
    assert (type(error), error.status, target in str(error)) == (RunRefused, 307, True)


@every_bounded_model
def test_a_model_outlives_the_loop_it_was_first_used_in(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with WireServer(lambda messages, body: "ok") as server:
        model = make(server)
        for _ in range(3):
            assert asyncio.run(model.complete(REQUEST)).text == "ok"
        asyncio.run(model.close())
    assert capsys.readouterr().err == ""


@every_sdk
async def test_a_probe_is_one_request_without_a_call(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, server):
        server.look = Fault(body={"id": "m"})
        assert await model.probe() == ""
        (look,) = server.looks
        assert (look.method, look.path, server.requests) == ("GET", "/v1/models/m", [])
        assert KEY in f"{look.headers.get('authorization')} {look.headers.get('x-api-key')}"
        server.look = Fault(401, body=refusal(make, f"wrong key: {KEY}", "invalid_api_key"))
        with pytest.raises(RunRefused, match="the key was refused") as caught:
            await model.probe()
        assert KEY not in "".join(traceback.format_exception(caught.value))
        server.look = Fault(302, {"location": f"{server.root}/v1/models/elsewhere"}, b"")
        assert "the address redirects" in await model.probe()
        assert [look.path for look in server.looks] == ["/v1/models/m"] * 3


async def test_a_model_behind_langchain_is_not_probed_and_no_sdk_is_imported_before_a_call() -> None:
    with WireServer(lambda messages, body: "ok") as server:
        model = langchain_openai_by_name(server)
        assert "cannot be asked" in await model.probe()
        assert (server.looks, server.requests) == ([], [])
        await model.close()
    code = (
        "import sys, agent.models.openai, agent.models.anthropic, agent.models.langchain as l\n"
        "l.LangChainModel('n', 'openai', 'm')\n"
        "heavy = ('openai', 'anthropic', 'langchain', 'langchain_core', 'langsmith', 'httpx2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- size --------------------------------------------------------------------------------------------------------------


class Flood:
    """A hundred megabytes in pieces after `head`; `sent` counts them."""

    def __init__(self, head: bytes, chunked: bool = False) -> None:
        self.head, self.sent = head, 0
        self.piece = b"10000\r\n" + b" " * 65536 + b"\r\n" if chunked else b" " * 65536

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        for _ in range(100_000_000 // 65536):
            self.sent += 65536
            yield self.piece


@every_bounded_model
async def test_a_reply_or_error_that_is_too_large_is_not_read_to_its_end(make: Make) -> None:
    floods = [
        Flood(HEAD + b"\r\n"),
        Flood(HEAD + b"content-length: 100000000\r\n\r\n"),
        Flood(HEAD + b"transfer-encoding: chunked\r\n\r\n", chunked=True),
        Flood(HEAD.replace(b"200 OK", b"401 No") + b"\r\n"),
    ]
    for water in floods:
        error = await failure(make, Fault(raw=water))
        if b"401" in water.head:
            assert (type(error), error.status) == (RunRefused, 401)
        else:
            assert (type(error), error.status) == (BadResponse, 200)
            assert f"larger than {most_bytes(REQUEST):,} bytes" in str(error)
        assert water.sent < 50_000_000  # what was read, and what the kernel buffers


@every_bounded_model
@pytest.mark.parametrize("status", [200, 401])
async def test_a_compressed_reply_is_not_decompressed(make: Make, status: int) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    error = await failure(make, Fault(status, {"content-encoding": "gzip"}, bomb))
    assert (type(error), error.status) == (BadResponse if status == 200 else RunRefused, status)
    assert ("gzip" in str(error)) is (status == 200)
    assert str(error).isprintable()


@every_model
async def test_a_text_may_be_as_long_as_its_tokens_can_be(make: Make) -> None:
    sizes = iter([most_chars(REQUEST), most_chars(REQUEST) + 1])
    async with serving(make, lambda messages, sent: Fault(body=reply_body(make, "x" * next(sizes)))) as (model, _):
        assert len((await model.complete(REQUEST)).text) == most_chars(REQUEST)
        with pytest.raises(BadResponse, match="which 16 tokens cannot have") as caught:
            await model.complete(REQUEST)
    assert len(str(caught.value)) < 1000


@every_bounded_model
async def test_the_bytes_of_a_body_are_bounded_by_the_requested_tokens(make: Make) -> None:
    body = reply_body(make, "billing", padding="x" * most_bytes(REQUEST))
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        with pytest.raises(BadResponse, match=f"larger than {most_bytes(REQUEST):,} bytes"):
            await model.complete(REQUEST)
        assert (await model.complete(replace(REQUEST, max_tokens=2000))).text == "billing"
        body |= reply_body(make, "x" * 3_000_000, padding="")
        assert len((await model.complete(replace(REQUEST, max_tokens=200_000))).text) == 3_000_000


@every_model
@pytest.mark.parametrize("field", ["model", "id", "finish"])
async def test_long_strings_next_to_the_text_are_cut_and_keys_removed_before(make: Make, field: str) -> None:
    long = "m" * 190 + KEY + "m" * 400_000
    body = reply_body(
        make, "billing", long if field == "finish" else "", **({field: long} if field != "finish" else {})
    )
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        got = await model.complete(REQUEST)
    assert (got.text, len(repr(got)) < 1000) == ("billing", True)
    assert field != "model" or got.model == ("m" * 190 + "[key]" + "m" * 1000)[:200] + "…"


@pytest.mark.parametrize("asked", [0, 2])
async def test_no_more_log_probabilities_are_kept_than_requested(asked: int) -> None:
    top = [{"token": "y" * 5000, "logprob": -0.1}, {"token": "n", "logprob": -2.5}, {"token": "o", "logprob": -3}]
    body = reply_body(openai, "yes")
    body["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}] * 30}
    async with serving(openai, lambda messages, sent: Fault(body=body)) as (model, _):
        found = (await model.complete(replace(REQUEST, logprobs=asked))).logprobs
    assert found == ((("y" * 200 + "…", -0.1), ("n", -2.5)),) * (REQUEST.max_tokens if asked else 0)


@every_sdk
async def test_the_largest_reply_leaves_the_loop_to_others(make: Make) -> None:
    large = replace(REQUEST, max_tokens=100_000)
    room = most_bytes(large) - 2000
    plain = json.dumps(reply_body(make, "billing")).encode()[:-1]
    bodies = iter([b"", plain + b', "x": [' + b"{}," * (room // 3) + b"0]}", b"[" * room])
    async with serving(make, lambda messages, sent: Fault(headers=JSON, body=next(bodies) or None)) as (model, _):
        await model.complete(large)  # imports the SDK
        for _ in range(2):
            longest, last, call = 0.0, time.thread_time(), asyncio.ensure_future(model.complete(large))
            while not call.done():
                await asyncio.sleep(0.002)
                longest, last = max(longest, time.thread_time() - last), time.thread_time()
            assert longest < 5, longest  # processor seconds of the thread that the loop runs in
            assert call.exception() is None or isinstance(call.exception(), BadResponse)


# -- keys --------------------------------------------------------------------------------------------------------------


NAMES = {
    "openai/m": "OPENAI_API_KEY",
    "anthropic/m": "ANTHROPIC_API_KEY",
    "langchain/openai:m": "OPENAI_API_KEY",
    "langchain/anthropic:m": "ANTHROPIC_API_KEY",
    "langchain/groq:m": "GROQ_API_KEY",
}


@pytest.mark.parametrize(("name", "variable"), NAMES.items())
async def test_a_missing_key_stops_the_run_and_names_its_variable(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "something-else")
    with pytest.raises(RunRefused, match=variable):
        await create_model(name).complete(REQUEST)


@every_model
async def test_the_key_is_in_no_error_text_and_in_no_traceback(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "password")
    words = "é\n" * 20_000
    faults = [
        Fault(401, body=f"bad key {KEY}"),
        Fault(401, body={"error": {"message": f"Incorrect API key provided: {KEY}", "type": "x", "code": "y"}}),
        Fault(500, body={"error": {"message": "x" * 290 + KEY}}),
        Fault(body=f"<html>{KEY}</html>"),
        Fault(body={"choices": [{"message": None, "seen": KEY}], "content": None, "seen": KEY}),
        Fault(body={"error": f"Authorization: Bearer {KEY}"}),
        Fault(400, body=refusal(make, "no password here", "bad")),
        *(
            Fault(status, body={"error": {"message": words, "type": words, "code": words}})
            for status in (200, 400, 500)
        ),
    ]
    left = iter(faults)
    async with serving(make, lambda messages, body: next(left)) as (model, _):
        for fault in faults:
            with pytest.raises(ModelError) as caught:
                await model.complete(REQUEST)
            said = str(caught.value)
            assert KEY[:14] not in said, fault
            assert KEY not in "".join(traceback.format_exception(caught.value)), fault
            assert "password" not in said, fault
            assert (len(said) < 1000, said.isprintable()) == (True, True), fault


@every_model
async def test_a_server_that_echoes_a_secret_is_not_believed_but_a_password_that_is_a_word_stays(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "from-the-environment-1")
    monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "password")
    text = f"you sent {KEY} and from-the-environment-1 for a password_reset"
    body = reply_body(make, text, model=f"m-{KEY}")
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        got = await model.complete(REQUEST)
    assert (got.text, got.model) == ("you sent [key] and [key] for a password_reset", "m-[key]")
