"""OpenAI's Chat Completions, as agents speak it."""

from __future__ import annotations

from collections.abc import Iterator

from agent.gateway.dialects import Conversation, Dialect, Given, Json, WireCall, counted
from agent.models.tool_calling import openai_call
from agent.types import Completion

ECHOED = "annotations reasoning reasoning_content reasoning_details"  # of replies, which change no answer


class ChatCompletions(Dialect):
    parameters = "messages tools tool_choice response_format max_tokens max_completion_tokens temperature seed stop"
    inside, end = "function", "data: [DONE]\n\n"

    def messages(self, body: Given, turns: Conversation) -> str | None:
        body.inner("stream_options", {})
        for message in body.listed("messages"):
            role, where = message.get("role"), message.where
            said = message.joined(usual="" if role == "assistant" else None)
            if role == "assistant":
                message.carries(f"role content tool_calls refusal {ECHOED}")
                calls = [(call.name("id"), call.inner("function").call()) for call in message.listed("tool_calls", [])]
                turns.turn(said or message.read(str, "refusal", ""), calls, where)
            elif role == "tool":
                message.carries("role content tool_call_id name")
                turns.result(message.get("tool_call_id"), said, where)
            else:
                message.carries("role content")
                turns.say(role, said, where)
        return body.inner("response_format", {"type": "text"}).schema()

    def reply(self, asked: WireCall, completion: Completion) -> Json:
        said, calls = asked.said(completion)
        refusal = said or None if completion.finish == "refusal" else None
        message: Json = {"role": "assistant", "content": said or (None if calls else ""), "refusal": refusal}
        if calls:
            message["tool_calls"] = [openai_call(*call) for call in calls]
        ended = {"refusal": "content_filter", "length": "length"}.get(completion.finish)
        finish = {"finish_reason": ended or ("tool_calls" if calls else "stop")}
        return {
            "id": asked.id("chatcmpl", completion),
            "object": "chat.completion",
            "created": 0,
            "model": asked.body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, **finish}],
            "usage": counted(completion.usage, "prompt_tokens", "completion_tokens"),
        }

    def events(self, asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
        (choice,) = reply["choices"]
        message = choice["message"]
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{name: message[name]} for name in ("content", "refusal") if message[name]]
        deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(message.get("tool_calls", []))]
        head = {**reply, "object": "chat.completion.chunk", "usage": None}
        for delta in [*deltas, {}]:
            finish = None if delta else choice["finish_reason"]
            yield "", {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        if asked.body.get("stream_options", {}).get("include_usage") is True:
            yield "", {**head, "choices": [], "usage": reply["usage"]}
