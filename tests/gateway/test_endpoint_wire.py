"""The endpoint with the real SDKs: what they send arrives as requests, and what comes back is what they expect."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agent import extras
from agent.errors import (
    AgentError,
    BudgetExhausted,
    InputError,
    Interrupted,
    LedgerError,
    RowRefused,
    RunRefused,
    TransportUnknown,
)
from agent.gateway.endpoint import DIALECTS, MOST_BYTES, MOST_CONNECTIONS, Endpoint
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.models.tool_calling import anthropic_messages, calls_text, openai_messages
from agent.types import LM, Completion, Message, Request, Tool, Usage
from tests.gateway.doors import gateway, model, states
from tests.toys import GatedModel, until
from tests.wire import WireServer

CHAT, RESPONSES, MESSAGES = DIALECTS
SEARCH: dict[str, Any] = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
BOTH = calls_text([("search", {"query": "tea"}), ("search", {"query": "Ä"})], "Let me look.")
USAGE = Usage(20, 7, 5)


class Scripted:
    """A rollout that answers with what a function says, and keeps the requests."""

    models = ("m",)

    def __init__(self, says: Callable[[Request], str | Completion | BaseException] = lambda request: "ok") -> None:
        self.seen: list[Request] = []
        self._says = says

    async def answer(self, model: str, request: Request) -> Completion:
        if model != "m":
            raise InputError(f"there is no model {model!r}; the run has m")
        self.seen.append(request)
        said = self._says(request)
        if isinstance(said, BaseException):
            raise said
        return said if isinstance(said, Completion) else Completion(said, "stop", USAGE, "m")


class Through:
    """A rollout that asks the gateway, as those of a run do."""

    models = ("m",)

    def __init__(self, door: Gateway, lm: LM) -> None:
        self._door, self._lm = door, lm

    async def answer(self, model: str, request: Request) -> Completion:
        return await self._door.complete("model", self._lm, replace(request, max_tokens=request.max_tokens or 64))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    yield made
    await made.close()


def openai_of(address: str, **more: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", **more)


def anthropic_of(address: str, **more: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=address, api_key="any", **more)


async def raw(port: int, data: bytes) -> bytes:
    """What comes back on its own connection until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def posted(address: str, path: str, body: bytes, host: str = "", more: str = "") -> bytes:
    where = address.split("/")
    head = f"POST /{'/'.join(where[3:])}{path} HTTP/1.1\r\nhost: {host or where[2]}\r\nconnection: close\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def sent(address: str, path: str, body: bytes, host: str = "", more: str = "") -> tuple[int, str, Any]:
    """Status, headers and JSON of the answer to a POST."""
    port = int(address.split("/")[2].split(":")[1])
    answered = await raw(port, posted(address, path, body, host, more))
    head, _, content = answered.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode().lower(), json.loads(content)


def assert_error(answered: tuple[int, str, Any], status: int, says: str = "") -> None:
    """The form that both SDKs read, and the word that they need not try again."""
    assert answered[0] == status
    assert "x-should-retry: false" in answered[1]
    assert answered[2]["type"] == "error"
    assert {"type", "message", "param", "code"} == answered[2]["error"].keys()
    assert says in answered[2]["error"]["message"]


# -- the three formats, with their SDKs -------------------------------------------------------------------------------


def says_both(request: Request) -> str:
    return BOTH if len(request.messages) == 2 else "[]\nTwo teas."


def assert_two_turns(rollout: Scripted, first: Request, *more: Message) -> None:
    """What arrives of a question and of the results of its two calls; `first` without its messages and tools."""
    asked = (Message("system", "Be kind."), Message("user", "tea or Ä"))
    tools = (Tool("search", "Look it up.", json.dumps(SEARCH)),)
    results = (Message("tool", "found tea"), Message("tool", "found Ä"))
    assert rollout.seen[0] == replace(first, messages=asked, tools=tools, tool_choice="auto")
    assert [request.messages for request in rollout.seen[1:]] == [(*asked, Message("assistant", BOTH), *results, *more)]


@pytest.mark.parametrize("streams", [False, True])
async def test_parallel_calls_make_two_turns_of_chat_completions(endpoint: Endpoint, streams: bool) -> None:
    address = await endpoint.open(rollout := Scripted(says_both))
    messages: list[Any] = [{"role": "developer", "content": "Be kind."}]
    messages += [{"role": "user", "content": [{"type": "text", "text": "tea "}, {"type": "text", "text": "or Ä"}]}]
    function = {"name": "search", "description": "Look it up.", "parameters": SEARCH, "strict": True}
    asked: dict[str, Any] = {"model": "m", "tools": [{"type": "function", "function": function}], "seed": 3}
    asked |= {"max_completion_tokens": 99, "stop": "END", "temperature": 0.5, "user": "u", "n": 1, "top_p": 1.0}
    async with openai_of(address) as client:
        for turn in range(2):
            if streams:
                async with client.chat.completions.stream(
                    messages=messages, stream_options={"include_usage": True}, **asked
                ) as stream:
                    reply: Any = await stream.get_final_completion()
            else:
                reply = await client.chat.completions.create(messages=messages, **asked)
            (choice,) = reply.choices
            assert choice.finish_reason == ("tool_calls", "stop")[turn]
            assert choice.message.content == ("Let me look.", "Two teas.")[turn]
            assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (20, 7, 27)
            assert reply.usage.prompt_tokens_details.cached_tokens == 5
            messages.append(choice.message.model_dump())
            calls = choice.message.tool_calls or []
            assert [(call.id, call.function.name) for call in calls] == [("call_0", "search"), ("call_1", "search")][
                : 2 - 2 * turn
            ]
            for call in reversed(calls):  # in any order
                query = json.loads(call.function.arguments)["query"]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": f"found {query}"})
    assert_two_turns(rollout, Request((), 99, 0.5, 3, ("END",)))


@pytest.mark.parametrize("streams", [False, True])
async def test_parallel_calls_make_two_turns_of_responses(endpoint: Endpoint, streams: bool) -> None:
    address = await endpoint.open(rollout := Scripted(says_both))
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "tea or Ä"}]}]
    tool = {"type": "function", "name": "search", "description": "Look it up.", "parameters": SEARCH, "strict": True}
    asked: dict[str, Any] = {"model": "m", "instructions": "Be kind.", "tools": [tool], "max_output_tokens": 99}
    asked |= {"store": False, "include": ["reasoning.encrypted_content"], "truncation": "disabled"}
    async with openai_of(address) as client:
        for turn in range(2):
            if streams:
                async with client.responses.stream(input=items, **asked) as stream:
                    events = [event.type async for event in stream]
                    reply: Any = await stream.get_final_response()
                assert events[0] == "response.created"
                assert events[-1] == "response.completed"
                assert events.count("response.function_call_arguments.done") == 2 - 2 * turn
            else:
                reply = await client.responses.create(input=items, **asked)
            assert (reply.status, reply.output_text) == ("completed", ("Let me look.", "Two teas.")[turn])
            assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (20, 7, 27)
            assert reply.usage.input_tokens_details.cached_tokens == 5
            items += [item.model_dump(exclude={"parsed_arguments"}) for item in reply.output]
            items.insert(len(items) - 1, {"type": "reasoning", "id": "rs_1", "summary": []})
            for item in [item for item in reply.output if item.type == "function_call"]:
                query = json.loads(item.arguments)["query"]
                items.append({"type": "function_call_output", "call_id": item.call_id, "output": f"found {query}"})
    assert_two_turns(rollout, Request((), 99, 1.0))


@pytest.mark.parametrize("streams", [False, True])
async def test_parallel_calls_make_two_turns_of_messages(endpoint: Endpoint, streams: bool) -> None:
    address = await endpoint.open(rollout := Scripted(says_both))
    messages: list[Any] = [{"role": "user", "content": "tea or Ä"}]
    tool = {"name": "search", "description": "Look it up.", "input_schema": SEARCH}
    kept: Any = {"type": "ephemeral"}
    asked: dict[str, Any] = {"model": "m", "tools": [tool | {"cache_control": kept}], "max_tokens": 99}
    asked |= {"system": [{"type": "text", "text": "Be kind.", "cache_control": kept}], "stop_sequences": ["END"]}
    async with anthropic_of(address) as client:
        for turn in range(2):
            if streams:
                async with client.messages.stream(messages=messages, **asked) as stream:
                    reply: Any = await stream.get_final_message()
            else:
                reply = await client.messages.create(messages=messages, **asked)
            assert reply.stop_reason == ("tool_use", "end_turn")[turn]
            assert reply.content[0].text == ("Let me look.", "Two teas.")[turn]
            usage = reply.usage
            assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (15, 5, 7)
            messages.append({"role": "assistant", "content": [block.model_dump() for block in reply.content]})
            used = [block for block in reply.content if block.type == "tool_use"]
            assert [block.id for block in used] == ["call_0", "call_1"][: 2 - 2 * turn]
            results: list[Any] = [
                {"type": "tool_result", "tool_use_id": block.id, "content": f"found {block.input['query']}"}
                for block in reversed(used)
            ]
            messages.append({"role": "user", "content": [*results, {"type": "text", "text": "Well?"}]})
    assert_two_turns(rollout, Request((), 99, 1.0, stop=("END",)), Message("user", "Well?"))


class Verdict(BaseModel):
    team: str
    sure: bool


async def test_typed_answers_have_their_schema_in_every_format(endpoint: Endpoint) -> None:
    rollout = Scripted(lambda request: '{"team": "billing", "sure": true}')
    address = await endpoint.open(rollout)
    async with openai_of(address) as client, anthropic_of(address) as claude:
        chat = await client.chat.completions.parse(
            model="m", messages=[{"role": "user", "content": "q"}], response_format=Verdict
        )
        response = await client.responses.parse(model="m", input="q", text_format=Verdict)
        async with client.responses.stream(model="m", input="q", text_format=Verdict) as stream:
            streamed = await stream.get_final_response()
        message = await claude.messages.parse(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}], output_format=Verdict
        )
    verdict = Verdict(team="billing", sure=True)
    assert chat.choices[0].message.parsed == verdict
    assert [response.output_parsed, streamed.output_parsed, message.parsed_output] == [verdict] * 3
    for request in rollout.seen:
        assert json.loads(request.json_schema or "")["properties"].keys() == {"team", "sure"}
        assert (request.messages, request.tools, request.tool_choice) == ((Message("user", "q"),), (), "")


def test_synchronous_clients_in_a_thread_are_answered_while_the_loop_runs() -> None:
    async def run() -> list[str]:
        endpoint = Endpoint()
        address = await endpoint.open(Scripted(lambda request: request.messages[0].content[::-1]))
        try:
            return await asyncio.to_thread(ask, address)
        finally:
            await endpoint.close()

    def ask(address: str) -> list[str]:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
            chat = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
            chunks = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "def"}], stream=True
            )
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            response = client.responses.create(model="m", input="ghi")
            names = [each.id for each in client.models.list()]
        with anthropic.Anthropic(base_url=address, api_key="any") as claude:
            message = claude.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "jkl"}])
            assert message.content[0].type == "text"
            names += [each.id for each in claude.models.list()]
        return [chat.choices[0].message.content or "", streamed, response.output_text, message.content[0].text, *names]

    assert asyncio.run(run()) == ["cba", "fed", "ihg", "lkj", "m", "m"]


@pytest.mark.parametrize(
    ("finish", "chat", "response", "message"),
    [
        ("refusal", "content_filter", "completed", "refusal"),
        ("length", "length", "incomplete", "max_tokens"),
        ("other", "stop", "completed", "end_turn"),
    ],
)
async def test_how_a_reply_ended_is_said_in_the_words_of_each_format(
    endpoint: Endpoint, finish: Any, chat: str, response: str, message: str
) -> None:
    address = await endpoint.open(Scripted(lambda request: Completion("I will not", finish, USAGE, "m")))
    async with openai_of(address) as client, anthropic_of(address) as claude:
        said = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])
        told = await client.responses.create(model="m", input="q")
        wrote = await claude.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}])
    assert (said.choices[0].finish_reason, told.status, wrote.stop_reason) == (chat, response, message)
    assert said.choices[0].message.refusal == ("I will not" if finish == "refusal" else None)
    assert told.output[0].content[0].type == ("refusal" if finish == "refusal" else "output_text")  # type: ignore[union-attr]


def test_ids_of_calls_go_on_after_those_of_turns_that_were_left_out() -> None:
    read = DIALECTS[CHAT].read
    call = {"id": "call_7", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    results = [{"role": "tool", "tool_call_id": "call_7", "content": "1"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert read({"model": "m", "messages": [*turns, *results], "tools": tools}).made == 8


# -- what cannot be carried --------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "q"}
ASKED = {"model": "m", "messages": [USER]}
CALLS = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "x"}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (CHAT, {**ASKED, "top_p": 0.5}, "cannot carry 'top_p' other than 1"),
        (CHAT, {**ASKED, "reasoning_effort": "high"}, "cannot carry 'reasoning_effort'"),
        (CHAT, {**ASKED, "n": 2}, "'n'"),
        (CHAT, {**ASKED, "parallel_tool_calls": False}, "'parallel_tool_calls'"),
        (CHAT, {**ASKED, "max_tokens": 0}, "max_tokens: must be from 1"),
        (CHAT, {**ASKED, "temperature": True}, "temperature: must be a number"),
        (CHAT, {**ASKED, "messages": []}, "there are no messages"),
        (CHAT, {**ASKED, "tool_choice": "required"}, "must be auto, none, required"),
        (CHAT, {**ASKED, "messages": [{**USER, "name": "Ann"}]}, "'name' of messages[0]"),
        (CHAT, {**ASKED, "messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        (CHAT, {**ASKED, "messages": [USER, result("a")]}, "messages[1]: no call 'a'"),
        (CHAT, {**ASKED, "messages": [USER, CALLS]}, "the result of the call 'a' is missing"),
        (CHAT, {**ASKED, "messages": [CALLS, USER, result("a")]}, "messages[1]: the result of the call 'a' is missing"),
        (CHAT, {**ASKED, "messages": [CALLS, result("a"), result("a")]}, "has two results"),
        (CHAT, {**ASKED, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not 'image_url'"),
        (CHAT, {**ASKED, "tools": [{"type": "custom", "custom": {}}]}, "'custom'"),
        (RESPONSES, {"model": "m", "input": "q", "previous_response_id": "r"}, "send the whole input each time"),
        (
            RESPONSES,
            {"model": "m", "input": [{"type": "item_reference", "id": "i"}]},
            "'item_reference'; leave it out and send the whole input",
        ),
        (RESPONSES, {"model": "m", "input": "q", "tools": [{"type": "web_search"}]}, "not 'web_search'"),
        (RESPONSES, {"model": "m", "input": "q", "reasoning": {"effort": "low"}}, "'reasoning'"),
        (RESPONSES, {"model": "m", "input": "q", "text": {"verbosity": "low"}}, "model_settings=ModelSettings()"),
        (RESPONSES, {"model": "m", "input": "q", "background": True}, "'background'"),
        (MESSAGES, {**ASKED, "max_tokens": 9, "thread": {"type": "create"}}, "tool_runner(..., thread=False)"),
        (MESSAGES, {**ASKED, "max_tokens": 9, "top_k": 3}, "'top_k'"),
        (MESSAGES, {**ASKED, "thinking": {"type": "enabled", "budget_tokens": 2000}}, "'thinking'"),
        (MESSAGES, {**ASKED, "messages": [{"role": "user", "content": [{"type": "document"}]}]}, "not 'document'"),
        (MESSAGES, {**ASKED, "tools": [{"type": "bash_20250124", "name": "bash"}]}, "not 'bash_20250124'"),
        (MESSAGES, {**ASKED, "model": "other"}, "there is no model 'other'; the run has m"),
    ],
)
async def test_what_a_request_cannot_carry_is_refused_by_name(
    endpoint: Endpoint, path: str, body: dict[str, Any], says: str
) -> None:
    address = await endpoint.open(Scripted())
    assert_error(await sent(address, path, json.dumps(body).encode()), 400, says)


NOTHING = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "top_p": 1, "stream": False}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {**NOTHING, "n": 1, "logprobs": False, "presence_penalty": 0, "seed": None, "prompt_cache_key": "k"}),
        (CHAT, {"parallel_tool_calls": True, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none"}),
        (RESPONSES, {**NOTHING, "input": "q", "background": False, "reasoning": {"effort": None}, "text": {}}),
        (MESSAGES, {"max_tokens": 9, "metadata": {}, "thinking": {"type": "disabled"}, "cache_control": {}}),
    ],
)
async def test_what_changes_no_answer_is_taken(endpoint: Endpoint, path: str, more: dict[str, Any]) -> None:
    rollout = Scripted()
    address = await endpoint.open(rollout)
    body = {"model": "m", **more} if path == RESPONSES else {**ASKED, **more}
    assert (await sent(address, path, json.dumps(body).encode()))[0] == 200
    (request,) = rollout.seen
    assert replace(request, max_tokens=0) == Request((Message("user", "q"),), 0, 1.0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExhausted("the cap of 10 calls is reached"), 402),
        (Interrupted(), 402),
        (RunRefused("the key is wrong"), 402),
        (LedgerError("the disk is full"), 402),
        (InputError("no such model"), 400),
        (RowRefused("too long"), 400),
        (TransportUnknown("the connection broke"), 502),
        (ZeroDivisionError("of ours"), 500),
    ],
)
async def test_an_error_is_told_once_in_words(endpoint: Endpoint, error: Exception, status: int) -> None:
    rollout = Scripted(lambda request: error)
    address = await endpoint.open(rollout)
    async with openai_of(address, max_retries=5) as client, anthropic_of(address, max_retries=5) as claude:
        with pytest.raises(openai.APIStatusError, match=str(error)) as chat:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}], stream=True)
        with pytest.raises(openai.APIStatusError, match=str(error)) as response:
            await client.responses.create(model="m", input="q")
        with pytest.raises(anthropic.APIStatusError, match=str(error)) as message:
            await claude.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "q"}])
    assert [each.value.status_code for each in (chat, response, message)] == [status] * 3
    assert chat.value.code == (error.code if isinstance(error, AgentError) else None)
    assert len(rollout.seen) == 3


# -- who may ask, and how much -----------------------------------------------------------------------------------------

ASK = json.dumps(ASKED).encode()


async def test_only_a_program_that_was_given_an_address_is_answered(endpoint: Endpoint) -> None:
    rollout = Scripted()
    first, second = await endpoint.open(rollout), await endpoint.open(rollout)
    root, _, token = first.rpartition("/")
    assert first != second
    assert len(token) >= 43
    assert root == second.rpartition("/")[0]
    assert_error(await sent(f"{root}/{'A' * 43}", CHAT, ASK), 401)
    assert_error(await sent(root, CHAT, ASK), 401)
    for path in ("/v1/embeddings", "/v1/chat", "/", "/v1/chat/completions/", "/v1/messages/count_tokens"):
        assert_error(await sent(first, path, ASK), 404)
    assert_error(await sent(first.split("/r/")[0], CHAT, ASK), 404)
    port = first.split("/")[2].split(":")[1]
    for host in ("example.com", f"example.com:{port}", "127.0.0.1", f"127.0.0.1:{int(port) + 1}", f"[::1]:{port}"):
        assert_error(await sent(first, CHAT, ASK, host), 403)
    assert (await sent(first, CHAT, ASK, f"localhost:{port}"))[0] == 200
    endpoint.shut(first)
    assert_error(await sent(first, CHAT, ASK), 401)
    assert (await sent(second, CHAT, ASK))[0] == 200
    assert len(rollout.seen) == 2


async def test_it_listens_on_loopback_only_and_not_after_its_end(endpoint: Endpoint) -> None:
    address = await endpoint.open(Scripted())
    assert endpoint._server is not None
    assert [each.getsockname()[0] for each in endpoint._server.sockets] == ["127.0.0.1"]
    await endpoint.close()
    await endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        await sent(address, CHAT, ASK)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_while_it_is_read(endpoint: Endpoint, chunked: bool) -> None:
    rollout = Scripted()
    address = await endpoint.open(rollout)
    body = json.dumps({**ASKED, "messages": [{"role": "user", "content": "x" * MOST_BYTES}]}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    async with openai_of(address)._client as client:  # the HTTP client of the SDK
        large = await client.post(f"{address}{CHAT}", content=pieces() if chunked else body)
        assert (large.status_code, large.headers["x-should-retry"]) == (413, "false")
        assert "more than 16 MB" in large.json()["error"]["message"]
        fits = body.replace(b"x" * 1000, b"", 1)
        assert (await client.post(f"{address}{CHAT}", content=fits)).status_code == 200
    assert len(rollout.seen) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": NaN}', b'{"model": "m", "input": [{}]}',
     b'{"model": "m", "input": "q", "messages": [{"role": "user", "content": "q"}]}',
     b'{"model": "m", "messages": [{"role": "user", "content": "q"}], "temperature": NaN}',
     b'{"model": "m", "input": "q", "tools": [{"type": "function", "name": "f", "parameters": {"a": Infinity}}]}',
     b"[" * 100_000, b'{"a":' * 50_000, b'{"n": 1e999}',
     b'{"n": ' + b"9" * 5000 + b"}", b'{"model": "m", "messages": ' + b"[" * 900 + b"]" * 900 + b"}"],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_refused(endpoint: Endpoint, body: bytes) -> None:
    address = await endpoint.open(Scripted())
    for path in DIALECTS:
        assert_error(await sent(address, path, body), 400)


@pytest.mark.parametrize(
    "data",
    [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
     b"GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"A" * 200_000],
)  # fmt: skip
async def test_bytes_that_are_no_request_end_their_connection_without_a_word_on_the_screen(
    endpoint: Endpoint, data: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    address = await endpoint.open(Scripted())
    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
    _, writer = await asyncio.open_connection("127.0.0.1", int(address.split("/")[2].split(":")[1]))
    with caplog.at_level(logging.DEBUG):
        writer.write(data)
        await writer.drain()
        assert (await sent(address, CHAT, ASK))[0] == 200
        writer.close()
    assert failed == []
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert capfd.readouterr() == ("", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["m", "user", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["text", "input_text", "output_text", "refusal", "function", "custom", "tool_use", "tool_result",
     "function_call", "function_call_output", "message", "reasoning", "user", "assistant", "tool", "system",
     "auto", "any", "none", "required", "json_schema", "json_object", "m", "call_0", "{}", "call_00"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["role", "content", "type", "text", "name", "arguments", "id", "call_id", "tool_call_id", "tool_use_id",
     "tool_calls", "function", "output", "input", "parameters", "input_schema", "schema", "json_schema",
     "format", "description", "refusal"]
)  # fmt: skip
DEEP = st.recursive(
    WORDS | JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=14
)
FIELDS = st.sampled_from(
    ["messages", "input", "instructions", "tools", "tool_choice", "response_format", "text", "max_tokens",
     "max_output_tokens", "temperature", "seed", "stop", "stop_sequences", "stream", "stream_options",
     "system", "output_config", "output_format", "reasoning", "top_p", "logit_bias", "role", "content"]
)  # fmt: skip


async def test_any_body_is_a_request_or_a_refusal(endpoint: Endpoint) -> None:
    """Read and answered in each dialect; and every third over the wire, from one connection: none takes it down."""
    bodies: list[tuple[str, dict[str, Any]]] = []

    @settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(path=st.sampled_from(list(DIALECTS)), body=st.dictionaries(FIELDS, DEEP, max_size=5), text=st.text())
    def read(path: str, body: dict[str, Any], text: str) -> None:
        bodies.append((path, body))
        dialect = DIALECTS[path]
        try:
            asked = dialect.read({"model": "m", **body})
        except (InputError, ValueError):  # a number that JSON does not have
            return
        said = calls_text([("f", {"a": text}), ("g", text)], text)
        for completion in (Completion(text, "stop", USAGE, "m"), Completion(said, "stop", USAGE, "m")):
            reply = dialect.reply(asked, completion)
            assert json.loads(json.dumps(reply)) == reply
            assert dialect.stream(asked, reply).isascii()

    read()
    address = await endpoint.open(Scripted())
    async with openai_of(address)._client as client:
        for path, body in bodies[::3]:
            answered = await client.post(f"{address}{path}", content=json.dumps({"model": "m", **body}).encode())
            assert answered.status_code in (200, 400)
            if answered.status_code == 400:
                assert answered.headers["x-should-retry"] == "false"
                assert answered.json()["error"]["message"]


IDS = st.sampled_from(["call_0", "call_1", "a"])
SAID = st.text(max_size=20) | st.sampled_from(['[{"name": "f", "arguments": {}}]', "[]", '[{"name": "f"'])
CALL = st.fixed_dictionaries({"id": IDS, "function": st.fixed_dictionaries({"name": WORDS, "arguments": SAID})})
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": SAID})
    | st.fixed_dictionaries({"role": st.just("assistant"), "content": SAID, "tool_calls": st.lists(CALL, max_size=2)}),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(turns=TURNS, has_tools=st.booleans())
def test_each_conversation_that_is_taken_can_be_sent_to_every_provider(turns: list[Any], has_tools: bool) -> None:
    """Each message says to the provider what it said to us; results are those of their calls."""
    answered: list[Any] = []
    for turn in turns:
        ids = [each["id"] for each in turn.get("tool_calls", [])]
        results = [{"role": "tool", "tool_call_id": call_id, "content": call_id} for call_id in ids]
        answered += [turn, *reversed(results)]
    tools = [{"type": "function", "function": {"name": "f"}}] if has_tools else []
    try:
        asked = DIALECTS[CHAT].read({"model": "m", "messages": answered, "tools": tools})
    except InputError:
        return
    sent = openai_messages(asked.request)
    assert [each["role"] for each in sent] == [each["role"] for each in answered]
    waiting: list[str] = []
    for had, has in zip(answered, sent, strict=True):
        calls = had.get("tool_calls") or []
        if had["role"] != "tool":
            assert (has["content"] or "").strip() == had["content"].strip()
            names = [each["function"]["name"] for each in has.get("tool_calls", [])]
            assert names == [each["function"]["name"] for each in calls]
            waiting = [each["id"] for each in calls]
        else:
            assert has["content"] == waiting.pop(0)
    list(anthropic_messages(asked.request))


# -- many, and those that leave ----------------------------------------------------------------------------------------


async def test_a_hundred_connections_at_once_are_all_answered(endpoint: Endpoint) -> None:
    rollout = Scripted(lambda request: request.messages[0].content)
    addresses = [await endpoint.open(rollout) for _ in range(10)]

    async def one(number: int) -> str:
        body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}]}
        status, _, reply = await sent(addresses[number % 10], CHAT, json.dumps(body).encode())
        return str(reply["choices"][0]["message"]["content"]) if status == 200 else str(status)

    assert await asyncio.gather(*map(one, range(100))) == [f"number {number}" for number in range(100)]
    await until(lambda: not endpoint._connections)


async def test_more_connections_than_it_takes_are_refused_and_harm_nobody(endpoint: Endpoint) -> None:
    address = await endpoint.open(Scripted())
    where = ("127.0.0.1", int(address.split("/")[2].split(":")[1]))
    silent = [await asyncio.open_connection(*where) for _ in range(MOST_CONNECTIONS)]
    await until(lambda: len(endpoint._connections) == MOST_CONNECTIONS)
    reader, writer = await asyncio.open_connection(*where)
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()
    for _, each in silent:
        each.close()
    await until(lambda: not endpoint._connections)
    assert (await sent(address, CHAT, ASK))[0] == 200


async def test_a_call_whose_client_leaves_is_settled_and_one_that_was_not_sent_is_not_sent(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    lm = GatedModel(lambda request: "late")
    door = gateway(ledger, max_concurrency=1)
    address = await endpoint.open(Through(door, lm))
    port = int(address.split("/")[2].split(":")[1])
    writers = []
    for text in ("first", "second"):
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(posted(address, CHAT, json.dumps(body).encode()))
        writers.append(writer)
        await until(lambda: lm.arrived == 1 and len(door._flights) == len(writers))
    for writer in writers:
        writer.close()
    await until(lambda: not endpoint._connections and not endpoint._tasks and len(door._flights) == 1)
    lm.open.set()
    await until(lambda: not door._flights)
    assert (lm.arrived, states(ledger)) == (1, {"ok": 1})
    assert (await door.complete("model", lm, lm.seen[0])).text == "late"
    assert lm.arrived == 1


async def test_the_end_waits_for_no_client(endpoint: Endpoint, ledger: Ledger) -> None:
    lm = GatedModel(lambda request: "never")
    door = gateway(ledger)
    address = await endpoint.open(Through(door, lm))
    port = int(address.split("/")[2].split(":")[1])
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    opened[0][1].write(posted(address, CHAT, ASK))  # is not answered
    opened[1][1].write(posted(address, CHAT, ASK)[:-5])  # never ends its body
    await until(lambda: lm.arrived == 1 and len(endpoint._tasks) == 2)
    await endpoint.close()
    assert not endpoint._tasks
    for reader, writer in opened:
        assert await reader.read() == b""
        writer.close()
    assert door.in_flight() == 1
    lm.open.set()
    await door.drain()
    assert states(ledger) == {"ok": 1}


async def test_a_call_that_the_end_of_the_run_cancels_is_told(endpoint: Endpoint, ledger: Ledger) -> None:
    lm = GatedModel(lambda request: "late", concurrency=1)  # in this process, where calls can be cancelled
    door = gateway(ledger)
    address = await endpoint.open(Through(door, lm))
    asking = asyncio.ensure_future(sent(address, CHAT, ASK))
    await until(lambda: lm.arrived == 1)
    await door.drain()
    assert_error(await asking, 402, "the run was interrupted")


async def test_a_missing_extra_is_named(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.MODULES, "agents", "no_such_module")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=re.escape('pip install "promptassay[agents]"')):
        await endpoint.open(Scripted())


async def test_it_leaves_loggers_and_signals_of_the_process_alone(endpoint: Endpoint) -> None:
    def state() -> Any:
        loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access")]
        return [(each.level, list(each.handlers), each.propagate) for each in loggers], signal.getsignal(signal.SIGINT)

    before = state()
    await endpoint.open(Scripted())
    assert state() == before


# -- through the gateway to a provider ---------------------------------------------------------------------------------


async def test_a_conversation_with_tools_reaches_the_provider_and_is_bought_once(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    """The same agent twice: the second time the ledger answers, whichever format it speaks."""

    def says(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        calls = [{"name": "search", "arguments": json.dumps({"query": query})} for query in ("tea", "milk")]
        return json.dumps(calls) if messages[-1]["role"] == "user" else f"read {messages[-1]['content']}"

    async def agent(address: str) -> str:
        messages: list[Any] = [{"role": "user", "content": "tea or milk"}]
        function = {"name": "search", "description": "", "parameters": SEARCH}
        tools: list[Any] = [{"type": "function", "function": function}]
        async with openai_of(address) as client:
            while True:
                reply = await client.chat.completions.create(model="m", messages=messages, tools=tools)
                message = reply.choices[0].message
                if not message.tool_calls:
                    return message.content or ""
                messages.append(message)
                for call in message.tool_calls:
                    assert call.type == "function"
                    found = json.loads(call.function.arguments)["query"]
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": f"found {found}"})

    async def claude(address: str) -> str:
        messages: list[Any] = [{"role": "user", "content": "tea or milk"}]
        tools: list[Any] = [{"name": "search", "input_schema": SEARCH}]
        async with anthropic_of(address) as client:
            while True:
                reply = await client.messages.create(model="m", max_tokens=64, messages=messages, tools=tools)
                used = [block for block in reply.content if block.type == "tool_use"]
                if not used:
                    assert reply.content[0].type == "text"
                    return reply.content[0].text
                messages.append({"role": "assistant", "content": reply.content})
                results = [
                    {"type": "tool_result", "tool_use_id": block.id, "content": f"found {block.input['query']}"}
                    for block in used
                ]
                messages.append({"role": "user", "content": results})

    with WireServer(says) as server:
        lm = model(server)
        address = await endpoint.open(Through(gateway(ledger), lm))
        assert [await each(address) for each in (agent, agent, claude)] == ["read found milk"] * 3
        await lm.close()
    assert len(server.requests) == 2
    asked = server.requests[1].body["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in asked[1]["tool_calls"]] == [message["tool_call_id"] for message in asked[2:]]


async def test_a_text_that_is_no_unicode_is_refused_before_it_is_sent(endpoint: Endpoint, ledger: Ledger) -> None:
    with WireServer(lambda messages, body: messages[0]["content"]) as server:
        lm = model(server)
        address = await endpoint.open(Through(gateway(ledger), lm))
        body = b'{"model": "m", "messages": [{"role": "user", "content": "a %s b"}]}'
        assert_error(
            await sent(address, CHAT, body % b"\\ud800"), 400, r"'\ud800' in a text is half a character; remove it"
        )
        status, _, reply = await sent(address, CHAT, body % b"\\u0000\\ufffe")
        assert (await sent(address, CHAT, body % rb"\ud83d\ude00"))[0] == 200, "both halves are one"
        await lm.close()
    assert (status, reply["choices"][0]["message"]["content"]) == (200, "a \0\ufffe b")
    assert len(server.requests) == 2
