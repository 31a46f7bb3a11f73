"""One set of cases over every hosted model: the real SDKs against a local server."""

from __future__ import annotations

import asyncio
import gzip
import itertools
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
from agent.models.hosted import HostedModel, estimate_tokens, most_bytes
from agent.models.langchain import LangChainModel
from agent.models.openai import OpenAIModel
from agent.types import LM, Message, Request
from tests.wire import Fault, Reply, WireServer

KEY = "secret-0123456789-abcdef"
TIMEOUTS = itertools.count(60.0, 0.001)
"""LangChain keeps an HTTP client for each address and timeout as long as the process lives. Now and then a server
of a test gets the port of an earlier one, whose connections belong to an event loop that is closed."""
REQUEST = Request(
    messages=(Message("system", "Be brief."), Message("user", "Which team?")), max_tokens=16, timeout=10.0
)


def openai(server: WireServer) -> HostedModel:
    return OpenAIModel("openai-compatible/m", "m", base_url=server.url, api_key=KEY)


def anthropic(server: WireServer) -> HostedModel:
    return AnthropicModel("anthropic/m", "m", base_url=server.root, api_key=KEY)


def _chat(provider: str, url: str) -> Any:
    from langchain.chat_models import init_chat_model

    return init_chat_model(f"{provider}:m", base_url=url, api_key=KEY, max_retries=0, timeout=next(TIMEOUTS))


def openai_over_httpx2(server: WireServer) -> HostedModel:
    """The client that is taken where the environment names a proxy; this one is for addresses of another kind."""
    return openai(server)


def langchain_openai_by_name(server: WireServer) -> HostedModel:
    return LangChainModel("langchain/openai:m", "openai", "m", base_url=server.url)


def langchain_openai(server: WireServer) -> HostedModel:
    return LangChainModel("langchain/openai:m", "openai", "m", chat=_chat("openai", server.url))


def langchain_anthropic(server: WireServer) -> HostedModel:
    return LangChainModel("langchain/anthropic:m", "anthropic", "m", chat=_chat("anthropic", server.root))


Make = Callable[[WireServer], HostedModel]
BOUNDED: list[Make] = [openai, openai_over_httpx2, anthropic, langchain_openai_by_name]
every_model = pytest.mark.parametrize(
    "make", [*BOUNDED, langchain_openai, langchain_anthropic], ids=lambda make: make.__name__
)
every_bounded_model = pytest.mark.parametrize("make", BOUNDED, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    make = request.node.callspec.params.get("make") if hasattr(request.node, "callspec") else None
    if make is openai_over_httpx2:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    if make is langchain_openai_by_name:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)


@asynccontextmanager
async def serving(make: Make, reply: Reply) -> AsyncIterator[tuple[HostedModel, WireServer]]:
    with WireServer(reply) as server:
        model = make(server)
        try:
            yield model, server
        finally:
            await model.close()


async def failure(make: Make, fault: Fault, request: Request = REQUEST) -> tuple[ModelError, WireServer]:
    async with serving(make, lambda messages, body: fault) as (model, server):
        with pytest.raises(ModelError) as caught:
            await model.complete(request)
        return caught.value, server


def error_body(make: Make, message: str, code: str) -> dict[str, Any]:
    if "anthropic" in make.__name__:
        return {"type": "error", "error": {"type": code, "message": message}}
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


# -- what is asked about a model beforehand ----------------------------------------------------------------------------

every_sdk = pytest.mark.parametrize("make", [openai, openai_over_httpx2, anthropic], ids=lambda make: make.__name__)


@every_sdk
async def test_a_question_about_a_model_is_one_request_with_the_key_and_no_call(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, server):
        server.look = Fault(body={"id": "m"})
        assert await model.probe() == ""
        (look,) = server.looks
        assert (look.method, look.path, server.requests) == ("GET", "/v1/models/m", [])
        assert KEY in f"{look.headers.get('authorization')} {look.headers.get('x-api-key')}"
        assert (await model.complete(REQUEST)).text == "ok"


@every_sdk
async def test_a_question_about_a_model_says_no_key_and_follows_no_redirect(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, server):
        server.look = Fault(401, body=error_body(make, f"wrong key: {KEY}", "invalid_api_key"))
        with pytest.raises(RunRefused, match="the key was refused") as caught:
            await model.probe()
        assert KEY not in "".join(traceback.format_exception(caught.value))
        server.look = Fault(302, {"location": f"{server.root}/v1/models/elsewhere"}, b"")
        assert "the address redirects" in await model.probe()
        assert [look.path for look in server.looks] == ["/v1/models/m"] * 2


async def test_a_model_behind_langchain_is_started_and_not_asked_about() -> None:
    with WireServer(lambda messages, body: "ok") as server:
        model = langchain_openai(server)
        assert "cannot be asked" in await model.probe()
        assert (server.looks, server.requests) == ([], [])
        await model.close()


# -- what works --------------------------------------------------------------------------------------------------------


@every_model
async def test_a_reply_comes_back_with_its_text_usage_finish_and_model(make: Make) -> None:
    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        assert messages == [m.as_dict() for m in REQUEST.messages]
        return "the billing team"

    async with serving(make, reply) as (model, server):
        completion = await model.complete(REQUEST)
    assert (completion.text, completion.finish, completion.model) == ("the billing team", "stop", "m")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 3)
    assert completion.usage.cached_prompt_tokens == 0
    assert len(server.requests) == 1
    assert (
        server.requests[0].headers["authorization"] == f"Bearer {KEY}" or server.requests[0].headers["x-api-key"] == KEY
    )


@every_model
async def test_temperature_stop_and_the_token_limit_are_sent(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, server):
        await model.complete(replace(REQUEST, temperature=0.5, stop=("END",), max_tokens=7))
    body = server.requests[0].body
    assert body["temperature"] == 0.5
    assert body.get("stop", body.get("stop_sequences")) == ["END"]
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 7


@every_model
async def test_many_calls_at_once_each_get_their_own_reply(make: Make) -> None:
    async with serving(make, lambda messages, body: messages[-1]["content"]) as (model, server):
        asked = [replace(REQUEST, messages=(Message("user", f"row {i}"),)) for i in range(12)]
        completions = await asyncio.gather(*(model.complete(request) for request in asked))
    assert [c.text for c in completions] == [f"row {i}" for i in range(12)]
    assert len(server.requests) == 12


@every_model
async def test_a_closed_model_can_be_used_again(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, _):
        await model.complete(REQUEST)
        await model.close()
        assert (await model.complete(REQUEST)).text == "ok"


@every_model
def test_it_is_a_model_that_leaves_concurrency_to_the_gateway(make: Make) -> None:
    with WireServer(lambda messages, body: "ok") as server:
        model: LM = make(server)
    assert model.concurrency is None
    assert model.name.endswith("m")
    assert model.count_tokens("one two three") == estimate_tokens("one two three")


# -- statuses ----------------------------------------------------------------------------------------------------------

STATUSES: list[tuple[int, type[ModelError]]] = [
    (400, RequestRefused),
    (401, RunRefused),
    (402, RunRefused),
    (403, RunRefused),
    (404, RunRefused),
    (408, Transient),
    (409, Transient),
    (413, RowRefused),
    (422, RequestRefused),
    (429, RateLimited),
    (500, Transient),
    (502, Transient),
    (503, Transient),
    (504, TransportUnknown),
    (524, TransportUnknown),
    (529, Transient),
]


@every_model
@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_each_status_has_its_error_and_one_attempt_is_one_request(
    make: Make, status: int, kind: type[ModelError]
) -> None:
    error, server = await failure(make, Fault(status=status))
    assert (type(error), error.status, error.retry_after) == (kind, status, None)
    assert error.__cause__ is not None
    assert f"HTTP {status}" in str(error)
    assert "\n" not in str(error)
    assert len(server.requests) == 1


@every_model
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_key_or_model_names_the_variable_to_set(make: Make, status: int) -> None:
    error, _ = await failure(make, Fault(status=status))
    variable = "ANTHROPIC_API_KEY" if "anthropic" in make.__name__ else "OPENAI_"
    assert variable in str(error)


@every_model
@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, 1.5),
        ({"retry-after": "2.5"}, 2.5, 2.5),
        ({"retry-after": "date +600"}, 590, 601),
        ({"retry-after": "date -600"}, 0, 0),
        ({"retry-after": "-3"}, 0, 0),
        ({"retry-after": "soon"}, None, None),
        ({}, None, None),
    ],
)
async def test_a_rate_limit_says_how_long_to_wait(
    make: Make, headers: dict[str, str], least: float | None, most: float | None
) -> None:
    """`date +600` stands for an HTTP date of 600 s from the moment of the test."""
    sent = {
        name: formatdate(time.time() + int(value[5:]), usegmt=True) if value.startswith("date ") else value
        for name, value in headers.items()
    }
    error, server = await failure(make, Fault(status=429, headers=sent))
    assert isinstance(error, RateLimited)
    if least is None or most is None:
        assert error.retry_after is None
    else:
        assert error.retry_after is not None
        assert least <= error.retry_after <= most
    assert len(server.requests) == 1


@every_model
@pytest.mark.parametrize("status", [400, 401, 503, 529])
async def test_any_error_may_say_how_long_to_wait(make: Make, status: int) -> None:
    error, _ = await failure(make, Fault(status=status, headers={"retry-after": "7"}))
    assert (error.status, error.retry_after) == (status, 7.0)


@every_model
async def test_no_quota_stops_the_run_instead_of_waiting(make: Make) -> None:
    body = error_body(make, "You exceeded your current quota.", "insufficient_quota")
    error, _ = await failure(make, Fault(status=429, body=body, headers={"retry-after": "1"}))
    assert type(error) is RunRefused
    assert "quota" in str(error)


@every_model
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."),
        (400, "Your credit balance is too low to access the API."),
        (403, "Your team has reached its monthly spending limit."),
        (429, "You have hit the spend limit of this project."),
    ],
)
async def test_limits_of_the_account_stop_the_run_whatever_their_status(make: Make, status: int, message: str) -> None:
    body = error_body(make, message, "invalid_request_error")
    error, _ = await failure(make, Fault(status=status, body=body))
    assert (type(error), error.status) == (RunRefused, status), error
    assert "no quota left" in str(error)


@every_model
@pytest.mark.parametrize(
    "message",
    [
        "Content violates usage guidelines. Team: 8a1, API key ID: 12, Failed check: SAFETY_CHECK_TYPE_BIO",
        'Your chosen model requires moderation on openai and your input was flagged for "violence".',
    ],
)
async def test_a_row_that_a_moderator_forbids_is_no_refused_key(make: Make, message: str) -> None:
    error, _ = await failure(make, Fault(status=403, body=error_body(make, message, "forbidden")))
    assert type(error) is RowRefused
    assert "content policy" in str(error)


@every_model
async def test_what_is_held_against_the_account_is_no_fault_of_the_row(make: Make) -> None:
    message = "Your account was suspended: it violated our usage policies."
    error, _ = await failure(make, Fault(status=403, body=error_body(make, message, "forbidden")))
    assert type(error) is RunRefused


@every_model
async def test_a_request_that_no_minute_has_room_for_is_not_waited_for(make: Make) -> None:
    message = (
        "Request too large for m in organization org-x on tokens per min (TPM): Limit 300, Requested 412. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    fault = Fault(status=429, body=error_body(make, message, "rate_limit_exceeded"))
    error, _ = await failure(make, fault)
    assert (type(error), error.status) == (RowRefused, 429)
    assert "too long" in str(error)


@every_model
@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("This model's maximum context length is 8192 tokens.", "context_length_exceeded", "too long"),
        ("prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error", "too long"),
        ("Could not finish the message because max_tokens was reached.", "invalid_request_error", "raise it"),
        ("The response was filtered by the content management policy.", "content_filter", "content policy"),
        ("Unknown field.", "invalid_request_error", "Unknown field."),
    ],
)
async def test_a_refused_row_says_why(make: Make, message: str, code: str, says: str) -> None:
    error, _ = await failure(make, Fault(status=400, body=error_body(make, message, code)))
    assert isinstance(error, RowRefused)
    assert says in str(error)
    assert message in str(error)


@every_model
async def test_a_model_that_refuses_temperature_never_gets_it_again(make: Make) -> None:
    words = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if "temperature" in body:
            return Fault(status=400, body=error_body(make, words, "unsupported_value"))
        return "ok"

    async with serving(make, reply) as (model, server):
        with pytest.raises(TemperatureRefused, match="refuses `temperature`, which is left out from now on"):
            await model.complete(REQUEST)
        assert len(server.requests) == 1
        assert (await model.complete(REQUEST)).text == "ok"
        assert (await model.complete(replace(REQUEST, temperature=0.9))).text == "ok"
    assert ["temperature" in seen.body for seen in server.requests] == [True, False, False]


@every_model
async def test_a_temperature_out_of_range_is_the_rows_fault(make: Make) -> None:
    body = error_body(make, "Invalid 'temperature': decimal above maximum value.", "decimal_above_max_value")
    async with serving(make, lambda messages, body_: Fault(status=400, body=body)) as (model, server):
        for _ in range(2):
            with pytest.raises(RowRefused):
                await model.complete(replace(REQUEST, temperature=3.0))
    assert all("temperature" in seen.body for seen in server.requests)


# -- broken replies ----------------------------------------------------------------------------------------------------

HTML = "<html><body>Sign in to the network</body></html>"


@every_model
@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=HTML),
        Fault(body=HTML, headers={"content-type": "application/json"}),
        Fault(body=[]),
        Fault(body=[{"choices": []}]),
        Fault(body={}),
        Fault(body={"choices": None, "content": None}),
        Fault(body={"choices": [], "content": []}),
        Fault(body={"choices": [{"index": 0, "finish_reason": "stop"}], "content": [{"type": "text"}]}),
        Fault(
            body={"choices": [{"message": None, "finish_reason": "stop"}], "content": [{"type": "text", "text": None}]}
        ),
        Fault(body={"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}),
        Fault(body={"choices": [{"message": {"role": "assistant"}, "finish_reason": "stop"}]}),
        Fault(body={"error": {"message": "upstream failed", "code": 502}}),
        Fault(body='{"id": "x", "choices": [{"mess', headers={"content-type": "application/json"}),
        Fault(body=b"\xff\xfe\x00", headers={"content-type": "application/json"}),
        Fault(body="null", headers={"content-type": "application/json"}),
        Fault(body=""),
    ],
    ids=lambda fault: str(fault.body)[:40],
)
async def test_a_200_that_is_no_reply_is_a_bad_response(make: Make, fault: Fault) -> None:
    error, server = await failure(make, fault)
    assert type(error) is BadResponse
    assert error.status == 200 or "langchain" in make.__name__  # LangChain shows no status
    assert "\n" not in str(error)
    assert len(server.requests) == 1, str(error)


def reply_body(make: Make, text: str | None, reason: str) -> dict[str, Any]:
    if "anthropic" in make.__name__:
        content = [] if text is None else [{"type": "text", "text": text}]
        return {"type": "message", "role": "assistant", "model": "m-2026", "content": content, "stop_reason": reason}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return {"object": "chat.completion", "model": "m-2026", "choices": [choice]}


@every_model
async def test_a_missing_usage_is_estimated(make: Make) -> None:
    reason = "end_turn" if "anthropic" in make.__name__ else "stop"
    fault = Fault(body=reply_body(make, "the billing team", reason))
    async with serving(make, lambda messages, body: fault) as (model, _):
        completion = await model.complete(REQUEST)
    assert completion.text == "the billing team"
    assert completion.model == "m-2026"
    assert completion.usage.completion_tokens >= 3
    assert completion.usage.prompt_tokens >= 4


@every_model
@pytest.mark.parametrize("text", [None, "I cannot help with that."])
async def test_a_refusal_is_a_completion_that_says_so(make: Make, text: str | None) -> None:
    reason = "refusal" if "anthropic" in make.__name__ else "content_filter"
    async with serving(make, lambda messages, body: Fault(body=reply_body(make, text, reason))) as (model, _):
        completion = await model.complete(REQUEST)
    assert (completion.finish, completion.text) == ("refusal", text or "")


@every_model
@pytest.mark.parametrize("text", [None, "the bill"])
async def test_a_reply_cut_at_the_token_limit_says_so(make: Make, text: str | None) -> None:
    reason = "max_tokens" if "anthropic" in make.__name__ else "length"
    async with serving(make, lambda messages, body: Fault(body=reply_body(make, text, reason))) as (model, _):
        completion = await model.complete(REQUEST)
    assert (completion.finish, completion.text) == ("length", text or "")


# -- the connection ----------------------------------------------------------------------------------------------------


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def drip() -> Iterator[bytes]:
    """A reply of half an hour, a byte at a time."""
    yield HEAD + b"content-length: 18000\r\n\r\n{"
    for _ in range(18000):
        yield b" "


def slow_head() -> Iterator[bytes]:
    yield HEAD
    for number in range(18000):
        yield b"x-%d: y\r\n" % number


@every_model
@pytest.mark.parametrize(
    "fault",
    [
        lambda: Fault(delay=600.0),
        lambda: Fault(raw=drip(), pause=0.1),
        lambda: Fault(raw=slow_head(), pause=0.1),
        lambda: Fault(raw=[HEAD + b"content-length: 500\r\n\r\n{", b""], pause=600.0),
    ],
    ids=["hang", "slow body", "slow head", "hang in the body"],
)
async def test_the_timeout_bounds_the_whole_attempt_and_leaves_its_outcome_unknown(
    make: Make, fault: Callable[[], Fault]
) -> None:
    asked = iter([True])
    async with (
        asyncio.timeout(30),
        serving(make, lambda messages, body: "fine" if next(asked, False) else fault()) as (model, server),
    ):
        await model.complete(REQUEST)  # makes the client, which may take longer than the timeout on a busy machine
        with pytest.raises(TransportUnknown) as caught:
            await model.complete(replace(REQUEST, timeout=0.5))
        assert len(server.requests) == 2
    assert caught.value.status is None
    assert caught.value.__cause__ is not None


@every_model
@pytest.mark.parametrize(
    "fault",
    [
        Fault(raw=b""),
        Fault(raw=b"", reset=True),
        Fault(raw=HEAD + b"content-length: 500\r\n\r\n{"),
        Fault(raw=HEAD + b"content-length: 500\r\n\r\n{", reset=True),
        Fault(raw=HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{"),
        Fault(raw=HEAD[:20]),
        Fault(raw=b"no http at all\r\n\r\n"),
    ],
    ids=["closed", "reset", "cut off", "reset in the body", "cut in a chunk", "cut in the head", "no http"],
)
async def test_a_connection_that_broke_leaves_the_outcome_unknown(make: Make, fault: Fault) -> None:
    error, server = await failure(make, fault)
    assert (type(error), error.status) == (TransportUnknown, None)
    assert "\n" not in str(error)
    assert len(server.requests) == 1


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
@pytest.mark.parametrize("make", [openai, openai_over_httpx2, anthropic])  # LangChain knows no time for connecting
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
            await model.complete(replace(REQUEST, timeout=1.0))
        await model.close()


@every_bounded_model
async def test_64_connections_are_kept_and_used_again(make: Make) -> None:
    async with serving(make, lambda messages, body: Fault(delay=0.3)) as (model, server):
        for _ in range(2):
            await asyncio.gather(*(model.complete(REQUEST) for _ in range(64)))
    assert server.opened == 64
    assert len(server.requests) == 128


@every_bounded_model
async def test_nothing_follows_a_redirect(make: Make) -> None:
    with WireServer(lambda messages, body: "ok") as elsewhere:
        target = f"{elsewhere.root}/v1/chat/completions"
        error, _ = await failure(make, Fault(status=307, headers={"location": target}))
        assert elsewhere.requests == []
    assert (type(error), error.status) == (RunRefused, 307)
    assert target in str(error)


@every_model
async def test_a_cancelled_call_stays_cancelled(make: Make) -> None:
    async with serving(make, lambda messages, body: Fault(delay=20.0)) as (model, server):
        call = asyncio.create_task(model.complete(REQUEST))
        while not server.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@every_model
async def test_a_request_that_cannot_be_encoded_is_the_rows_fault(make: Make) -> None:
    async with serving(make, lambda messages, body: "ok") as (model, server):
        with pytest.raises(RowRefused, match="surrogates"):
            await model.complete(replace(REQUEST, messages=(Message("user", "half \ud800 a pair"),)))
    assert server.requests == []


@every_bounded_model
def test_a_model_outlives_the_loop_it_was_first_used_in(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with WireServer(lambda messages, body: "ok") as server:
        model = make(server)
        for _ in range(3):
            assert asyncio.run(model.complete(REQUEST)).text == "ok"
        asyncio.run(model.close())
    assert capsys.readouterr().err == ""


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
@pytest.mark.parametrize(
    "flood",
    [
        lambda: Flood(HEAD + b"\r\n"),
        lambda: Flood(HEAD + b"content-length: 100000000\r\n\r\n"),
        lambda: Flood(HEAD + b"transfer-encoding: chunked\r\n\r\n", chunked=True),
    ],
    ids=["until closed", "announced", "chunked"],
)
async def test_a_reply_that_is_too_large_is_not_read_to_its_end(make: Make, flood: Callable[[], Flood]) -> None:
    water = flood()
    error, server = await failure(make, Fault(raw=water))
    assert (type(error), error.status) == (BadResponse, 200)
    assert f"larger than {most_bytes(REQUEST):,} bytes" in str(error)
    assert water.sent < 50_000_000  # what was read, and what the kernel holds of a connection on one machine
    assert len(server.requests) == 1


@every_bounded_model
async def test_an_error_with_an_endless_body_stays_the_error_that_it_is(make: Make) -> None:
    water = Flood(HEAD.replace(b"200 OK", b"401 No") + b"\r\n")
    error, _ = await failure(make, Fault(raw=water))
    assert (type(error), error.status) == (RunRefused, 401)
    assert water.sent < 50_000_000


@every_bounded_model
async def test_a_reply_of_some_megabytes_is_read(make: Make) -> None:
    body = reply_body(make, "x" * 3_000_000, "end_turn" if "anthropic" in make.__name__ else "stop")
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        assert len((await model.complete(replace(REQUEST, max_tokens=200_000))).text) == 3_000_000


@every_bounded_model
async def test_a_packed_reply_was_not_asked_for_and_is_not_unpacked(make: Make) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    error, server = await failure(make, Fault(body=bomb, headers={"content-encoding": "gzip"}))
    assert (type(error), error.status) == (BadResponse, 200)
    assert "gzip" in str(error)
    assert server.requests[0].headers["accept-encoding"] == "identity"


@every_bounded_model
async def test_a_packed_error_stays_the_error_that_it_is(make: Make) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    error, _ = await failure(make, Fault(status=401, body=bomb, headers={"content-encoding": "gzip"}))
    assert (type(error), error.status) == (RunRefused, 401)
    assert str(error).isprintable()


# -- keys --------------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, body=f"bad key {KEY}"),
        Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {KEY}", "type": "x", "code": "y"}}),
        Fault(status=500, body={"error": {"message": "x" * 290 + KEY}}),
        Fault(body=f"<html>{KEY}</html>"),
        Fault(body={"choices": [{"message": None, "seen": KEY}], "content": None, "seen": KEY}),
        Fault(body={"error": f"Authorization: Bearer {KEY}"}),
    ],
    ids=lambda fault: str(fault.body)[:30],
)
async def test_the_key_is_in_no_error_text_and_in_no_traceback(make: Make, fault: Fault) -> None:
    error, _ = await failure(make, fault)
    assert KEY not in str(error)
    assert KEY[:14] not in str(error)
    assert KEY not in "".join(traceback.format_exception(error))


@every_model
@pytest.mark.parametrize("secret", [KEY, "from-the-environment-1"])
async def test_a_server_that_says_back_a_secret_is_not_believed(
    make: Make, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "from-the-environment-1")
    reason = "end_turn" if "anthropic" in make.__name__ else "stop"
    body = reply_body(make, f"you sent {secret}.", reason) | {"model": f"m-{secret}"}
    async with serving(make, lambda messages, sent: Fault(body=body)) as (model, _):
        completion = await model.complete(REQUEST)
    assert completion.text == "you sent [key]."
    assert completion.model == "m-[key]"


@every_model
async def test_a_password_that_is_a_word_stays_in_a_reply_and_goes_from_an_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "password")
    async with serving(make, lambda messages, body: "password_reset") as (model, _):
        assert (await model.complete(REQUEST)).text == "password_reset"
    error, _ = await failure(make, Fault(status=400, body=error_body(make, "no password here", "bad")))
    assert "no [key] here" in str(error)


async def test_importing_the_models_imports_no_sdk() -> None:
    code = (
        "import sys, agent.models.openai, agent.models.anthropic, agent.models.langchain as l\n"
        "l.LangChainModel('n', 'openai', 'm')\n"
        "heavy = ('openai', 'anthropic', 'langchain', 'langchain_core', 'langsmith', 'httpx2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
