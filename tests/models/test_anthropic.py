"""What only the Anthropic model does: system text, turns, cache marks, cached tokens, its own reasons to stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadResponse, ModelError, RunRefused
from agent.models.anthropic import AnthropicModel, _turns
from agent.types import Completion, Message, Request, Usage
from tests.models.replies import assert_read, completed, replies
from tests.wire import WireServer, ok

KEY = "secret-0123456789"
MARK = {"type": "ephemeral"}
DEMOS = (
    Message("system", "Route the message."),
    Message("user", "I was charged twice."),
    Message("assistant", "billing"),
    Message("user", "The app crashes."),
    Message("assistant", "technical"),
    Message("user", "Where is my parcel?"),
)
REQUEST = Request(messages=DEMOS, max_tokens=16, timeout=10.0)


async def ask(server: WireServer, request: Request = REQUEST) -> Completion:
    model = AnthropicModel("anthropic/m", "m", base_url=server.root, api_key=KEY)
    try:
        return await model.complete(request)
    finally:
        await model.close()


async def test_a_schema_becomes_a_structured_output_without_limits_on_length() -> None:
    schema = {"type": "object", "properties": {"reason": {"type": "string", "maxLength": 9}}}
    with WireServer(ok) as server:
        await ask(server, replace(REQUEST, json_schema=json.dumps(schema)))
    asked = server.requests[0].body["output_config"]["format"]
    assert asked == {"type": "json_schema", "schema": {"type": "object", "properties": {"reason": {"type": "string"}}}}


async def test_an_address_with_a_login_stops_the_run_before_a_call_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with WireServer(ok) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://user:pass-word-1@{server.root.partition('//')[2]}")
        with pytest.raises(RunRefused, match="no name or password in the address; set ANTHROPIC_API_KEY") as caught:
            await AnthropicModel("anthropic/m", "m", api_key=KEY).complete(REQUEST)
    assert "pass-word-1" not in str(caught.value)
    assert server.requests == []


async def test_the_system_text_and_the_last_demo_are_marked_for_the_cache() -> None:
    with WireServer(ok) as server:
        await ask(server)
        await ask(server, replace(REQUEST, messages=DEMOS[-1:]))
    body, plain = (seen.body for seen in server.requests)
    assert body["system"] == [{"type": "text", "text": "Route the message.", "cache_control": MARK}]
    assert body["messages"] == [
        {"role": "user", "content": "I was charged twice."},
        {"role": "assistant", "content": "billing"},
        {"role": "user", "content": "The app crashes."},
        {"role": "assistant", "content": [{"type": "text", "text": "technical", "cache_control": MARK}]},
        {"role": "user", "content": "Where is my parcel?"},
    ]
    assert body["max_tokens"] == 16
    assert "system" not in plain
    assert plain["messages"] == body["messages"][-1:], "without system text or demos nothing is marked"


def test_the_last_demo_is_marked_when_the_reply_is_begun_for_the_model() -> None:
    turns = _turns([*((m.role, m.content) for m in DEMOS[1:]), ("assistant", "{")])
    assert [isinstance(turn["content"], list) for turn in turns] == [False, False, False, True, False, False]


async def test_messages_of_one_role_in_a_row_are_joined_with_a_blank_line() -> None:
    messages = (
        Message("system", "One."),
        Message("system", "Two."),
        Message("user", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
        Message("user", "d"),
    )
    with WireServer(ok) as server:
        await ask(server, replace(REQUEST, messages=messages))
    body = server.requests[0].body
    assert body["system"][0]["text"] == "One.\n\nTwo."
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == "a\n\nb"


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1))
def test_turns_alternate_lose_no_text_and_carry_at_most_one_mark(pairs: list[tuple[Any, str]]) -> None:
    turns = _turns(pairs)
    assert all(a["role"] != b["role"] for a, b in pairwise(turns))
    marked = [turn for turn in turns if isinstance(turn["content"], list)]
    assert len(marked) <= 1
    texts = [t["content"] if isinstance(t["content"], str) else t["content"][0]["text"] for t in turns]
    for role in ("user", "assistant"):
        ours = "\n\n".join(text for turn, text in zip(turns, texts, strict=True) if turn["role"] == role)
        assert ours == "\n\n".join(content for r, content in pairs if r == role)


def body(content: Any, reason: str | None = "end_turn", **extra: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "model": "m-1", "content": content, "stop_reason": reason, **extra}


def text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": value}


async def answers(bodies: Sequence[dict[str, Any]]) -> list[Completion | ModelError]:
    return await replies(
        lambda server: AnthropicModel("anthropic/m", "m", base_url=server.root, api_key=KEY), REQUEST, bodies
    )


CACHED = {"cache_creation_input_tokens": 200, "cache_read_input_tokens": 3000}


async def test_tokens_of_the_cache_are_of_the_prompt_and_counts_that_cannot_be_true_are_estimated() -> None:
    usages: list[Any] = [{"input_tokens": 10, "output_tokens": 4, **CACHED}, None, [], {}]
    usages.append({"input_tokens": "x", "output_tokens": None})
    counted, *estimated = completed(await answers([body([text("ok then")], usage=usage) for usage in usages]))
    assert counted.usage == Usage(3210, 4, cached_prompt_tokens=3000, written_prompt_tokens=200)
    for got in estimated:
        assert got.usage.prompt_tokens >= 15
        assert got.usage.completion_tokens >= 2


BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "x"}, text("bil"), text("ling")]
FINISHES: dict[str | None, str] = {
    **dict.fromkeys(("end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "model_context_window_exceeded"), "length"),
    "refusal": "refusal",
    **dict.fromkeys(("pause_turn", None), "other"),
}
REPLIES = [
    (body(BLOCKS), ("billing", "stop")),
    *((body([text("a")], reason), ("a", finish)) for reason, finish in FINISHES.items()),
    *((body([], reason), ("", FINISHES[reason])) for reason in ("end_turn", "stop_sequence", "max_tokens", "refusal")),
]
NO_REPLIES = [
    *(body(content) for content in (None, "text", [3], [{"type": "thinking"}], [text(3)])),
    *(body([], reason) for reason in ("pause_turn", "tool_use", None)),
]


async def test_a_reply_has_a_text_or_a_reason_to_have_none() -> None:
    found = await answers([*(sent for sent, _ in REPLIES), *NO_REPLIES])
    assert_read(found, [wanted for _, wanted in REPLIES], [(BadResponse, "")] * len(NO_REPLIES))
