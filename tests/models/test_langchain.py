"""What only the LangChain model does: starting any provider, keeping tracing off, reading LangChain's metadata."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import BadResponse, ParameterRefused, RateLimited, RowRefused, RunRefused, Transient, TransportUnknown
from agent.models.langchain import LangChainModel
from agent.types import Message, Request, Usage
from tests.models.test_contract import TIMEOUTS
from tests.wire import RESPONSES_PATH, Fault, Responses, WireServer, ok

KEY = "secret-0123456789"
REQUEST = Request(messages=(Message("user", "Which team?"),), max_tokens=16, timeout=10.0)
RESPONSES = Responses()
TRACING = ["LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"]


class Chat:
    """A chat model that answers with `message`, or raises it."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.calls: list[dict[str, Any]] = []

    async def ainvoke(self, messages: list[dict[str, str]], **parameters: Any) -> Any:
        self.calls.append({"messages": messages, **parameters})
        if isinstance(self.message, Exception):
            raise self.message
        return self.message


def reply(content: Any, **fields: Any) -> Any:
    from langchain_core.messages import AIMessage

    return AIMessage(content=content, **fields)


def model_of(message: Any, provider: str = "openai") -> LangChainModel:
    return LangChainModel(f"langchain/{provider}:m", provider, "m", chat=Chat(message))


# -- starting ----------------------------------------------------------------------------------------------------------


def test_two_runs_in_one_process_share_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has its own event loop, and a connection does not outlive its loop."""
    with WireServer(ok) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.root)

        async def one() -> str:
            model = LangChainModel("langchain/anthropic:m", "anthropic", "m")
            text = (await model.complete(REQUEST)).text
            await model.close()
            return text

        assert [asyncio.run(one()) for _ in range(3)] == ["ok"] * 3


@pytest.mark.parametrize("variable", ["OPENAI_API_BASE", "OPENAI_BASE_URL"])
async def test_openais_rows_go_where_the_environment_says_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for address, hints in (
        ("", []),
        ("http://127.0.0.1:9/v1", [f"langchain/openai:m: rows go to http://127.0.0.1:9/v1 ({variable})"]),
    ):
        monkeypatch.setenv(variable, address)
        model = LangChainModel("langchain/openai:m", "openai", "m")
        await model._ready()
        assert str(model._client.root_async_client.base_url) == f"{address or 'https://api.openai.com/v1'}/"
        assert model.hints == hints
        await model.close()


@pytest.mark.parametrize("provider", ["ollama", "no_such_provider"])
async def test_a_provider_that_cannot_be_started_stops_the_run_and_is_named(provider: str) -> None:
    with pytest.raises(RunRefused, match=provider) as caught:
        await LangChainModel(f"langchain/{provider}:m", provider, "m").complete(REQUEST)
    assert caught.value.__cause__ is not None


async def test_a_provider_that_knows_no_max_retries_starts_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import langchain.chat_models

    def start(model: str, **options: Any) -> Any:
        if options:
            raise TypeError(f"unexpected keyword argument {next(iter(options))!r}")
        return Chat(reply(f"this is {model}"))

    monkeypatch.setattr(langchain.chat_models, "init_chat_model", start)
    completion = await LangChainModel("langchain/own:m", "own", "m").complete(REQUEST)
    assert completion.text == "this is own:m"


# -- tracing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", TRACING)
async def test_tracing_is_switched_off_even_if_langsmith_has_already_looked(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    from langsmith.utils import get_env_var, tracing_is_enabled

    monkeypatch.setenv(variable, "true")
    get_env_var.cache_clear()  # type: ignore[attr-defined]
    tracing_is_enabled()
    await model_of(reply("ok")).complete(REQUEST)
    assert variable not in os.environ
    assert not tracing_is_enabled()


async def test_tracing_stays_on_for_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_ALLOW_TRACING", "1")
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    await model_of(reply("ok")).complete(REQUEST)
    assert os.environ["LANGSMITH_TRACING"] == "true"


# -- requests and replies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "seeded"), [("openai", True), ("anthropic", False)])
async def test_only_standard_parameters_are_passed(provider: str, seeded: bool) -> None:
    chat = Chat(reply("ok"))
    request = replace(REQUEST, seed=5, stop=("END",), choices=("a",), json_schema="{}", logprobs=3)
    await LangChainModel("m", provider, "m", chat=chat).complete(request)
    expected: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Which team?"}],
        "max_tokens": 16,
        "temperature": 0.0,
        "stop": ["END"],
    }
    assert chat.calls == [expected | {"seed": 5} if seeded else expected]


@pytest.mark.parametrize(
    "written", [{"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50}, {"ephemeral_5m_input_tokens": 200}]
)
async def test_tokens_that_are_noted_for_a_time_of_their_own_are_counted_once(written: dict[str, int]) -> None:
    from langchain.chat_models import init_chat_model

    usage = {"input_tokens": 10, "cache_creation_input_tokens": 200, "cache_creation": written, "output_tokens": 4}
    body = {"type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "ok"}]}
    with WireServer(lambda messages, sent: Fault(body=body | {"stop_reason": "end_turn", "usage": usage})) as server:
        chat = init_chat_model("anthropic:m", base_url=server.root, api_key=KEY, max_retries=0, timeout=next(TIMEOUTS))
        got = (await LangChainModel("m", "anthropic", "m", chat=chat).complete(REQUEST)).usage
    assert got == Usage(210, 4, 0, 200)


async def test_tokens_of_the_cache_and_of_reasoning_are_read() -> None:
    for used, wanted in (
        ({"input_tokens": 90, "input_token_details": {"cache_read": 64}, "total_tokens": 92}, Usage(90, 2, 64)),
        ({"input_tokens": 100, "total_tokens": 902}, Usage(100, 802)),  # in the total alone
    ):
        usage = {"output_tokens": 2, **used}
        assert (await model_of(reply("ok", usage_metadata=usage)).complete(REQUEST)).usage == wanted


async def test_a_message_has_a_text_or_a_reason_to_have_none() -> None:
    blocks = [{"type": "text", "text": "bil"}, {"type": "text", "text": "ling"}]
    reasons = {
        "stop": {"finish_reason": "stop"},
        "length": {"stop_reason": "max_tokens"},
        "refusal": {"finish_reason": "SAFETY"},
        "other": {},
    }
    for message, wanted in (
        (reply(blocks), ("billing", "other")),
        (reply("", additional_kwargs={"refusal": "I cannot."}), ("I cannot.", "refusal")),
        (reply("a", response_metadata={"done_reason": "length"}), ("a", "length")),
        *((reply("a", response_metadata=metadata), ("a", finish)) for finish, metadata in reasons.items()),
    ):
        got = await model_of(message).complete(REQUEST)
        assert (got.text, got.finish) == wanted
    assert (await model_of(reply("")).complete(replace(REQUEST, stop=("END",)))).text == "", "the sequence explains it"
    for error, message, says in (
        (BadResponse, reply(""), None),
        (BadResponse, reply("bil", response_metadata={"finish_reason": "error"}), "failed within its reply"),
        (RowRefused, TypeError("unexpected keyword argument 'stop'"), "unexpected keyword argument 'stop'"),
    ):
        with pytest.raises(error, match=says):
            await model_of(message).complete(REQUEST)


async def test_langchains_own_errors_without_a_status_are_told_apart() -> None:
    from langchain_core import exceptions as lc

    cases = {
        lc.ModelRateLimitError: RateLimited,
        lc.ModelTimeoutError: TransportUnknown,
        lc.ModelConnectionError: TransportUnknown,
        lc.ModelAPIError: Transient,
        lc.ModelAuthenticationError: RunRefused,
        lc.ModelPermissionDeniedError: RunRefused,
        lc.ModelNotFoundError: RunRefused,
        lc.ModelInvalidRequestError: RowRefused,
        lc.ContextOverflowError: RowRefused,
        lc.ModelRefusalError: RowRefused,
        ConnectionResetError: TransportUnknown,
        ConnectionRefusedError: Transient,
        KeyError: BadResponse,
    }
    for raised, expected in cases.items():
        with pytest.raises(expected) as caught:
            await model_of(raised("it failed")).complete(REQUEST)
        assert "it failed" in str(caught.value)


async def test_a_model_whose_langchain_class_refuses_temperature_never_gets_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from langchain.chat_models import init_chat_model

    with WireServer(ok) as server:
        chat = init_chat_model(
            "anthropic:claude-sonnet-5-5", base_url=server.root, api_key=KEY, max_retries=0, timeout=next(TIMEOUTS)
        )
        model = LangChainModel("m", "anthropic", "claude-sonnet-5-5", chat=chat)
        with pytest.raises(Transient, match="temperature"):
            await model.complete(REQUEST)
        assert (await model.complete(REQUEST)).text == "ok"
    assert ["temperature" in seen.body for seen in server.requests] == [False]


# -- OpenAI's responses, and Azure -------------------------------------------------------------------------------------


def responding(server: WireServer) -> LangChainModel:
    """A model that LangChain asks by OpenAI's responses."""
    from langchain.chat_models import init_chat_model

    chat = init_chat_model(
        "openai:m", base_url=server.url, api_key=KEY, max_retries=0, timeout=next(TIMEOUTS), use_responses_api=True
    )
    return LangChainModel("langchain/openai:m", "openai", "m", chat=chat)


async def test_a_reply_of_openais_responses_is_read_with_its_reason_to_end() -> None:
    refused, *ended = (RESPONSES.reply([], {}, "") for _ in range(3))
    refused["output"][0]["content"] = [{"type": "refusal", "refusal": "I cannot."}]
    for body, reason in zip(ended, ("max_output_tokens", "content_filter"), strict=True):
        body |= {"output": [], "status": "incomplete", "incomplete_details": {"reason": reason}}
    faults = iter([Fault(), Fault(body=refused), *(Fault(body=body) for body in ended)])
    request = replace(REQUEST, timeout=120.0)  # the first call imports the SDK's part for them
    with WireServer(lambda messages, sent: next(faults)) as server:
        model = responding(server)
        first, *others = [await model.complete(request) for _ in range(4)]
    assert {seen.path for seen in server.requests} == {RESPONSES_PATH}
    assert (first.text, first.finish, first.usage) == ("ok", "stop", Usage(2, 1))
    assert [(got.text, got.finish) for got in others] == [("I cannot.", "refusal"), ("", "length"), ("", "refusal")]


async def test_openais_responses_know_no_seed_and_never_get_one_again() -> None:
    with WireServer(ok) as server:
        model = responding(server)
        with pytest.raises(ParameterRefused, match="seed"):
            await model.complete(replace(REQUEST, seed=3))
        assert (await model.complete(replace(REQUEST, seed=3))).text == "ok"
    assert len(server.requests) == 1


async def test_an_azure_deployment_that_wants_max_completion_tokens_never_gets_the_old_name_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    def reply(messages: list[dict[str, Any]], sent: dict[str, Any]) -> str | Fault:
        return Fault(status=400, body={"error": {"message": words}}) if "max_tokens" in sent else "ok"

    with WireServer(reply) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.root)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
        model = LangChainModel("langchain/azure_openai:m", "azure_openai", "m")
        with pytest.raises(ParameterRefused, match="max_completion_tokens"):
            await model.complete(REQUEST)
        assert (await model.complete(REQUEST)).text == "ok"
        await model.close()
    limits = [{key: value for key, value in seen.body.items() if "tokens" in key} for seen in server.requests]
    assert limits == [{"max_tokens": 16}, {"max_completion_tokens": 16}]
