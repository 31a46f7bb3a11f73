"""What only the OpenAI model does: which key goes where, which parameters, logprobs, cached tokens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import BadResponse, InputError, ParameterRefused, RowRefused, RunRefused
from agent.gateway.prices import is_local
from agent.models.hosted import HostedModel
from agent.models.model_registry import create_model
from agent.models.openai import OFFICIAL_URL, OpenAIModel
from agent.types import Message, Request, Usage
from tests.wire import Fault, WireServer, ok

REQUEST = Request(messages=(Message("user", "Which team?"),), max_tokens=16, timeout=10.0)


async def ask(model: OpenAIModel, request: Request = REQUEST) -> Any:
    try:
        return await model.complete(request)
    finally:
        await model.close()


# -- keys and addresses ------------------------------------------------------------------------------------------------


async def test_a_missing_key_stops_the_run_and_names_its_variable() -> None:
    with pytest.raises(RunRefused, match="OPENAI_API_KEY"):
        await ask(OpenAIModel("openai/m", "m"))


@pytest.mark.parametrize("key", ["two words", "naïve", "line\nbreak"])
async def test_a_key_that_cannot_be_sent_is_refused_unshown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(RunRefused, match="OPENAI_API_KEY") as caught:
        await ask(OpenAIModel("openai/m", "m"))
    assert key not in str(caught.value)


async def test_nothing_of_openai_in_the_environment_reaches_a_foreign_address(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-of-openai-1",
        "OPENAI_ADMIN_KEY": "sk-of-openai-2",
        "OPENAI_ORG_ID": "org-of-openai-3",
        "OPENAI_PROJECT_ID": "proj-of-openai-4",
        "OPENAI_CUSTOM_HEADERS": "X-Own: of-openai-5\nauthorization: Bearer of-openai-6",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with WireServer(ok) as server:
        assert (await ask(OpenAIModel("m", "m", base_url=server.url))).text == "ok"
    assert "of-openai" not in json.dumps(dict(server.requests[0].headers))
    assert "of-openai" not in json.dumps(dict(server.requests[0].body))


async def test_openai_itself_is_asked_where_no_address_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    for address in (None, "", " ", f"{OFFICIAL_URL}/"):
        if address is not None:
            monkeypatch.setenv("OPENAI_BASE_URL", address)
        model = OpenAIModel("openai/m", "m")
        await model._ready()
        assert str(model._client.base_url).rstrip("/") == OFFICIAL_URL
        assert model._client.max_retries == 0
        assert (model.endpoint, model.hints) == ("", [])
        await model.close()


async def test_a_gateway_gets_openais_rows_and_key_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "key-of-another-server")
    with WireServer(ok) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
        model = create_model("openai/m")
        assert isinstance(model, OpenAIModel)
        assert (await ask(model)).text == "ok"
    (seen,) = server.requests
    assert seen.headers["authorization"] == "Bearer sk-of-openai"
    assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", "m")
    assert model.endpoint == server.url
    assert model.hints == [f"openai/m: rows go to {server.url} (OPENAI_BASE_URL)"]


async def test_a_compatible_model_without_an_address_is_asked_at_openai_base_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    with pytest.raises(InputError, match=r"write openai-compatible/NAME@http://host:port/v1, or set OPENAI_BASE_URL"):
        create_model("openai-compatible/m")
    with WireServer(ok) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        model = create_model("openai-compatible/m")
        assert isinstance(model, OpenAIModel)
        assert (await ask(model)).text == "ok"
    (seen,) = server.requests
    assert seen.body["model"] == "m"
    assert "of-openai" not in json.dumps(dict(seen.headers))
    assert model.hints == [f"openai-compatible/m: rows go to {server.url} (OPENAI_BASE_URL)"]
    named = create_model(f"openai-compatible/m@{server.url}")
    assert isinstance(named, OpenAIModel)
    assert (named.endpoint, named.hints) == ("", [])
    assert is_local("openai-compatible/m")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    assert not is_local("openai-compatible/m")


@pytest.mark.parametrize("name", ["openai/m", "openai-compatible/m", "langchain/openai:m"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:pass-word-1@h/v1", "no name or password in the address"),
        ("http://h/v1?key=pass-word-1", "no query in the address"),
        ("user:pass-word-1@h/v1", "no name or password in the address"),
        ("gateway.example/v1", "'gateway.example/v1' is not a web address"),
    ],
)
async def test_an_address_of_the_environment_that_cannot_be_asked_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, says: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    model = create_model(name)
    assert isinstance(model, HostedModel)
    with pytest.raises(RunRefused, match=says) as caught:
        await model.complete(REQUEST)
    assert "OPENAI_BASE_URL" in str(caught.value)
    assert "pass-word-1" not in str(caught.value) + model.endpoint + "".join(model.hints)


@pytest.mark.parametrize(
    ("url", "official"),
    [
        (None, True),
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://evil.example/api.openai.com", False),
        ("https://api.openai.com@evil.example/v1", False),
        ("https://notapi.openai.com.example", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_only_openai_itself_is_official(url: str | None, official: bool) -> None:
    parameters = OpenAIModel("m", "m", base_url=url).body(REQUEST)
    assert ("max_completion_tokens" in parameters) is official
    assert ("max_tokens" in parameters) is not official


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://[half/v1"])
async def test_an_address_that_is_none_stops_the_run_and_is_shown(url: str) -> None:
    with pytest.raises(RunRefused, match="web address") as caught:
        await ask(OpenAIModel("m", "m", base_url=url))
    assert url in str(caught.value)


# -- parameters --------------------------------------------------------------------------------------------------------


async def test_a_plain_request_sends_nothing_that_was_not_asked_for() -> None:
    with WireServer(ok) as server:
        await ask(OpenAIModel("m", "m", base_url=server.url), replace(REQUEST, choices=("a", "b")))
    assert server.requests[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Which team?"}],
        "max_tokens": 16,
        "temperature": 0.0,
    }


async def test_a_schema_a_seed_and_logprobs_are_sent_in_openais_form() -> None:
    schema = {"type": "object", "properties": {"team": {"type": "string"}}}
    request = replace(REQUEST, json_schema=json.dumps(schema), seed=3, logprobs=50)
    with WireServer(ok) as server:
        await ask(OpenAIModel("m", "m", base_url=server.url), request)
    body = server.requests[0].body
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    assert (body["seed"], body["logprobs"], body["top_logprobs"]) == (3, True, 20)


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("response_format", {"json_schema": "{}"}, 400,
     "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."),
    ("logprobs", {"logprobs": 5}, 400, "Unsupported parameter: 'logprobs' is not supported with this model."),
    ("logprobs", {"logprobs": 5}, 403, "You are not allowed to request logprobs from this model."),
    ("seed", {"seed": 3}, 400, "Unsupported parameter: 'seed' is not supported with this model."),
    ("seed", {"seed": 3}, 400, "seed: Extra inputs are not permitted"),
    ("max_tokens", {}, 400,
     "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "status", "words"), REFUSED)
async def test_a_refused_parameter_is_never_sent_again(
    name: str, parameters: dict[str, Any], status: int, words: str
) -> None:
    """Calls in flight are all refused for what the first of them teaches."""

    def reply(messages: list[dict[str, Any]], sent: dict[str, Any]) -> str | Fault:
        return Fault(status, body={"error": {"message": words, "param": name}}) if name in sent else "ok"

    with WireServer(reply) as server:
        model, request = OpenAIModel("m", "m", base_url=server.url), replace(REQUEST, **parameters)
        found = await asyncio.gather(*(model.complete(request) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [ParameterRefused] * 3
        assert (await ask(model, request)).text == "ok"
    last = server.requests[-1].body
    assert name not in last
    assert last.get("max_tokens", last.get("max_completion_tokens")) == 16


async def test_a_limit_that_is_too_large_is_not_taken_for_a_name_that_is_not_known() -> None:
    words = "'max_tokens' or 'max_completion_tokens' is too large: 16. The maximum context length is 8 tokens."
    content = {"error": {"message": words}}
    with WireServer(lambda messages, sent: Fault(status=400, body=content)) as server, pytest.raises(RowRefused):
        await ask(OpenAIModel("m", "m", base_url=server.url))


async def test_a_schema_that_is_no_json_is_refused_before_any_request() -> None:
    with WireServer(ok) as server, pytest.raises(RowRefused, match="schema"):
        await ask(OpenAIModel("m", "m", base_url=server.url), replace(REQUEST, json_schema="{"))
    assert server.requests == []


# -- replies -----------------------------------------------------------------------------------------------------------


def body(message: Any, finish: str = "stop", **extra: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **extra}


async def answer(content: dict[str, Any], **more: Any) -> Any:
    with WireServer(lambda messages, sent: Fault(body=content)) as server:
        return await ask(OpenAIModel("m", "m", base_url=server.url), replace(REQUEST, **more))


async def test_tokens_that_are_noted_in_the_cache_are_read() -> None:
    details = {"cached_tokens": 10, "cache_write_tokens": 70}
    usage = {"prompt_tokens": 90, "completion_tokens": 2, "total_tokens": 92, "prompt_tokens_details": details}
    assert (await answer(body({"content": "ok"}, usage=usage))).usage == Usage(90, 2, 10, 70)


@pytest.mark.parametrize(
    ("total", "completion"), [(902, 802), (102, 2), (50, 2), (0, 2), (-1, 2), (1 << 60, 2), ("902", 2), (None, 2)]
)
async def test_tokens_of_reasoning_that_stand_in_the_total_alone_are_of_the_reply(total: Any, completion: int) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": total}
    assert (await answer(body({"content": "ok"}, usage=usage))).usage == Usage(100, completion)


async def test_a_total_without_the_tokens_of_the_prompt_tells_nothing() -> None:
    assert (await answer(body({"content": "ok"}, usage={"total_tokens": 902}))).usage.completion_tokens < 10


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": "many", "completion_tokens": -1, "prompt_tokens_details": 3},
        {"prompt_tokens": None, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": "x"}},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
async def test_counts_that_cannot_be_true_are_estimated(usage: Any) -> None:
    got = (await answer(body({"content": "fine, thanks"}, usage=usage))).usage
    assert got.prompt_tokens >= 2
    assert got.completion_tokens >= 2
    assert got.cached_prompt_tokens == 0


async def test_a_refusal_field_wins_over_the_finish_reason() -> None:
    got = await answer(body({"content": None, "refusal": "I cannot."}))
    assert (got.finish, got.text) == ("refusal", "I cannot.")


async def test_an_empty_text_is_a_reply_and_a_missing_one_is_not() -> None:
    assert (await answer(body({"content": ""}))).text == ""
    with pytest.raises(BadResponse, match="no text"):
        await answer(body({"content": None, "tool_calls": []}, "tool_calls"))


@pytest.mark.parametrize(
    "changes", [{"finish_reason": "error"}, {"error": {"code": 502, "message": "Provider disconnected"}}]
)
async def test_a_provider_that_failed_within_its_reply_gave_none(changes: dict[str, Any]) -> None:
    content = body({"content": "bil"})
    content["choices"][0] |= changes
    with pytest.raises(BadResponse, match="failed within its reply"):
        await answer(content)


async def test_a_text_in_blocks_is_joined() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    blocks = [thinking, {"type": "text", "text": "bil"}, {"type": "text", "text": "ling"}]
    assert (await answer(body({"content": blocks}))).text == "billing"
    for none in ([], [thinking], [{"type": "text", "text": 3}], ["billing"]):
        with pytest.raises(BadResponse, match="no text"):
            await answer(body({"content": none}))
    assert (await answer(body({"content": [thinking]}, "length"))).text == ""


async def test_logprobs_come_back_per_token() -> None:
    top = [{"token": "yes", "logprob": -0.1, "bytes": None}, {"token": "no", "logprob": -2.5, "bytes": None}]
    content = body({"content": "yes"})
    content["choices"][0]["logprobs"] = {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": top}]}
    assert (await answer(content, logprobs=2)).logprobs == ((("yes", -0.1), ("no", -2.5)),)


@pytest.mark.parametrize("logprobs", [None, [], {"content": None}, {"content": [{"token": "a"}]}])
async def test_logprobs_of_another_shape_are_left_out(logprobs: Any) -> None:
    content = body({"content": "yes"})
    content["choices"][0]["logprobs"] = logprobs
    assert (await answer(content)).logprobs == ()
