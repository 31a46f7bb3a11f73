"""Anthropic's Messages, as agents speak it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from agent.gateway.dialects import Conversation, Dialect, Given, Json, WireCall
from agent.models.tool_calling import anthropic_call
from agent.turns import Call
from agent.types import Completion


class Messages(Dialect):
    parameters = "messages system tools tool_choice max_tokens temperature stop_sequences output_config output_format"
    schema, kinds = "input_schema", ("custom", None)

    def messages(self, body: Given, turns: Conversation) -> str | None:
        if system := body.joined("system", ""):
            turns.say("system", system, "system")
        for message in body.listed("messages"):
            message.carries("role content cache_control")
            _read_blocks(turns, message)
        config = body.inner("output_config", {})
        config.carries("format")
        return (config.inner("format") if config else body.inner("output_format", {"type": "text"})).schema()

    def reply(self, asked: WireCall, completion: Completion) -> Json:
        (said, calls), usage = asked.said(completion), completion.usage
        content: list[Json] = [{"type": "text", "text": said}] if said else []
        stop = {"refusal": "refusal", "length": "max_tokens"}.get(completion.finish)
        return {
            "id": asked.id("msg", completion),
            "type": "message",
            "role": "assistant",
            "model": asked.body["model"],
            "content": content + [anthropic_call(*call) for call in calls],
            "stop_reason": stop or ("tool_use" if calls else "end_turn"),
            "stop_sequence": None,
            "usage": {
                "input_tokens": max(0, usage.prompt_tokens - usage.cached_prompt_tokens - usage.written_prompt_tokens),
                "cache_read_input_tokens": usage.cached_prompt_tokens,
                "cache_creation_input_tokens": usage.written_prompt_tokens,
                "output_tokens": usage.completion_tokens,
            },
        }

    def events(self, asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
        yield "message_start", {"message": {**reply, "content": [], "stop_reason": None}}
        for index, block in enumerate(reply["content"]):
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block.get("text")}
            if block["type"] == "tool_use":
                given = json.dumps(block["input"])
                empty, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": given}
            yield "content_block_start", {"index": index, "content_block": empty}
            yield "content_block_delta", {"index": index, "delta": delta}
            yield "content_block_stop", {"index": index}
        ended = {"stop_reason": reply["stop_reason"], "stop_sequence": None}
        yield "message_delta", {"delta": ended, "usage": reply["usage"]}
        yield "message_stop", {}


def _read_blocks(turns: Conversation, message: Given) -> None:
    role, where, has_results = message.get("role"), message.where, False
    if role not in ("user", "assistant"):
        raise ValueError(f"{where}.role: must be user or assistant, not {str(role)[:60]!r}")
    if isinstance(content := message.get("content"), str):
        message["content"] = [{"type": "text", "text": content}]
    texts, calls = list[str](), list[tuple[str, Call]]()
    for block in message.listed("content"):
        kind = block.get("type")
        if role == "assistant" and kind == "tool_use":
            block.carries("type id name input cache_control caller")
            calls.append((block.name("id"), (block.name(), block.read(Json, "input"))))
        elif role == "user" and kind == "tool_result":
            block.carries("type tool_use_id content is_error cache_control")
            turns.result(block.get("tool_use_id"), block.joined(usual=""), block.where)
            has_results = True
        elif role != "assistant" or kind not in ("thinking", "redacted_thinking"):
            texts.append(block.text())
    if role == "assistant":
        turns.turn("".join(texts), calls, where)
    elif texts or not has_results:
        turns.say(role, "".join(texts), where)
