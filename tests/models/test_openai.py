"""What only the OpenAI model does: which key goes where, which parameters, logprobs, cached tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import BadResponse, InputError, ModelError, ParameterRefused, RowRefused, RunRefused
from agent.gateway.prices import is_local
from agent.models.hosted import HostedModel
from agent.models.model_registry import create_model
from agent.models.openai import OFFICIAL_URL, OpenAIModel
from agent.types import Completion, Message, Request, Usage
from tests.models.replies import assert_read, completed, replies
from tests.wire import Fault, WireServer, ok

REQUEST = Request(messages=(Message("user", "Which team?"),), max_tokens=16, timeout=10.0)


async def ask(model: OpenAIModel, request: Request = REQUEST) -> Any:
    try:
        return await model.complete(request)
    finally:
        await model.close()


# -- keys and addresses ------------------------------------------------------------------------------------------------


async def test_a_key_that_cannot_be_sent_is_refused_unshown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key := "two words")
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


async def answers(bodies: Sequence[dict[str, Any]], **more: Any) -> list[Completion | ModelError]:
    return await replies(lambda server: OpenAIModel("m", "m", base_url=server.url), replace(REQUEST, **more), bodies)


def counted(total: Any) -> dict[str, Any]:
    return {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": total}


ESTIMATED = None
CACHED = {"cached_tokens": 10, "cache_write_tokens": 70}
USAGES: list[tuple[Any, Usage | None]] = [
    ({**counted(102), "prompt_tokens_details": CACHED}, Usage(100, 2, 10, 70)),
    (counted(902), Usage(100, 802)),  # tokens of reasoning that stand in the total alone
    *((counted(total), Usage(100, 2)) for total in (102, 50, 0, -1, 1 << 60, "902", None)),
    ({"total_tokens": 902}, ESTIMATED),
    *((usage, ESTIMATED) for usage in (None, [], {}, {"prompt_tokens": 0, "completion_tokens": 0})),
    ({"prompt_tokens": "many", "completion_tokens": -1, "prompt_tokens_details": 3}, ESTIMATED),
    ({"prompt_tokens": None, "completion_tokens": True, "prompt_tokens_details": {"cached_tokens": "x"}}, ESTIMATED),
]


async def test_tokens_are_read_and_counts_that_cannot_be_true_estimated() -> None:
    found = completed(await answers([body({"content": "fine, thanks"}, usage=usage) for usage, _ in USAGES]))
    for (usage, wanted), got in zip(USAGES, found, strict=True):
        if wanted is not ESTIMATED:
            assert got.usage == wanted, usage
        else:
            assert got.usage.prompt_tokens >= 2, usage
            assert 2 <= got.usage.completion_tokens < 10, usage
            assert got.usage.cached_prompt_tokens == 0, usage


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
BLOCKS = [THINKING, {"type": "text", "text": "bil"}, {"type": "text", "text": "ling"}]
REPLIES: list[tuple[dict[str, Any], tuple[str, str]]] = [
    (body({"content": None, "refusal": "I cannot."}), ("I cannot.", "refusal")),
    (body({"content": ""}), ("", "stop")),
    (body({"content": BLOCKS}), ("billing", "stop")),
    (body({"content": [THINKING]}, "length"), ("", "length")),
]
FAILED = {"index": 0, "message": {"content": "bil"}, "error": {"code": 502, "message": "Provider disconnected"}}
NO_REPLIES: list[tuple[dict[str, Any], str]] = [
    (body({"content": None, "tool_calls": []}, "tool_calls"), "no text"),
    *(
        (body({"content": blocks}), "no text")
        for blocks in ([], [THINKING], [{"type": "text", "text": 3}], ["billing"])
    ),
    (body({"content": "bil"}, "error"), "failed within its reply"),
    ({"choices": [FAILED]}, "failed within its reply"),
]


async def test_a_reply_has_a_text_or_a_reason_to_have_none() -> None:
    found = await answers([sent for sent, _ in (*REPLIES, *NO_REPLIES)])
    assert_read(found, [wanted for _, wanted in REPLIES], [(BadResponse, says) for _, says in NO_REPLIES])


async def test_logprobs_come_back_per_token_and_those_of_another_shape_are_left_out() -> None:
    top = [{"token": "yes", "logprob": -0.1, "bytes": None}, {"token": "no", "logprob": -2.5, "bytes": None}]
    told = {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": top}]}
    contents = [body({"content": "yes"}) for _ in range(5)]
    for content, logprobs in zip(
        contents, (told, None, [], {"content": None}, {"content": [{"token": "a"}]}), strict=True
    ):
        content["choices"][0]["logprobs"] = logprobs
    found = completed(await answers(contents, logprobs=2))
    assert [got.logprobs for got in found] == [((("yes", -0.1), ("no", -2.5)),), *[()] * 4]
