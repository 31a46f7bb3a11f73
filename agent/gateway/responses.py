"""OpenAI's Responses, as agents speak it. Conversations are not stored: each call has the whole input."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from agent.gateway.dialects import HINTS, Conversation, Dialect, Given, Json, WireCall, counted
from agent.shipped import label_text
from agent.turns import Call
from agent.types import Completion


class Responses(Dialect):
    parameters = "input instructions tools tool_choice text max_output_tokens temperature"

    def messages(self, body: Given, turns: Conversation) -> str | None:
        if "instructions" in body:
            turns.say("system", body.read(str, "instructions"), "instructions")
        if isinstance(given := body.get("input"), str):
            turns.say("user", given, "input")
        else:
            items = [item for item in body.listed("input") if item.get("type") != "reasoning"]
            for is_own, group in groupby(items, _is_own):
                (_turn if is_own else _told)(turns, list(group))
        said = body.inner("text", {})
        said.carries("format", verbosity="medium")
        return said.inner("format", {"type": "text"}).schema()

    def reply(self, asked: WireCall, completion: Completion) -> Json:
        said, calls = asked.said(completion)
        is_cut, output = completion.finish == "length", list[Json]()
        status = "incomplete" if is_cut else "completed"
        if said or not calls:
            part: Json = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
            if completion.finish == "refusal":
                part = {"type": "refusal", "refusal": said}
            message = {"type": "message", "id": asked.id("msg", completion), "role": "assistant"}
            output.append({**message, "status": status, "content": [part]})
        for call_id, name, given in calls:
            call = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name}
            output.append({**call, "arguments": label_text(given), "status": "completed"})
        echoed = {"tools": [], "tool_choice": "auto", "text": {}}
        counts = counted(completion.usage, "input_tokens", "output_tokens")
        return {
            "id": asked.id("resp", completion),
            "object": "response",
            "created_at": 0,
            "model": asked.body["model"],
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "error": None,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": asked.request.temperature,
            **{name: asked.body.get(name, usual) for name, usual in echoed.items()},
            "usage": {**counts, "output_tokens_details": {"reasoning_tokens": 0}},
        }

    def events(self, asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
        for number, (name, data) in enumerate(_parts(reply)):
            yield f"response.{name}", {"sequence_number": number, **data}


def _is_own(item: Given) -> bool:
    """Whether the item is of the model's turn, whose text and calls are separate items."""
    kind = item.get("type", "message")
    return kind == "function_call" or (kind == "message" and item.get("role") == "assistant")


def _turn(turns: Conversation, items: list[Given]) -> None:
    said, calls = list[str](), list[tuple[str, Call]]()
    for item in items:
        if item.get("type") == "function_call":
            item.carries("type call_id name arguments id status")
            calls.append((item.name("call_id"), item.call()))
        else:
            item.carries("type role content id status phase")
            said.append(item.joined())
    turns.turn("\n".join(said), calls, items[-1].where)


def _told(turns: Conversation, items: list[Given]) -> None:
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call_output":
            item.carries("type call_id output id status")
            turns.result(item.get("call_id"), item.joined("output"), item.where)
        elif kind == "message":
            item.carries("type role content id status")
            turns.say(item.get("role"), item.joined(), item.where)
        else:
            hint = HINTS["item_reference"] if kind == "item_reference" else ""
            raise ValueError(f"{item.where}: the gateway cannot carry {str(kind)[:60]!r}; leave it out{hint}")


def _parts(reply: Json) -> Iterator[tuple[str, Json]]:
    begun = {**reply, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield "created", {"response": begun}
    yield "in_progress", {"response": begun}
    for index, item in enumerate(reply["output"]):
        at: Json = {"output_index": index, "item_id": item["id"]}
        is_call = item["type"] == "function_call"
        empty = {"status": "in_progress", "arguments" if is_call else "content": "" if is_call else []}
        yield "output_item.added", {"output_index": index, "item": {**item, **empty}}
        if is_call:
            yield "function_call_arguments.delta", {**at, "delta": item["arguments"]}
            yield "function_call_arguments.done", {**at, "name": item["name"], "arguments": item["arguments"]}
        else:
            at["content_index"] = 0
            (part,) = item["content"]
            name, event = ("refusal", "refusal") if "refusal" in part else ("text", "output_text")
            yield "content_part.added", {**at, "part": {**part, name: ""}}
            yield f"{event}.delta", {**at, "delta": part[name], "logprobs": []}
            yield f"{event}.done", {**at, name: part[name], "logprobs": []}
            yield "content_part.done", {**at, "part": part}
        yield "output_item.done", {"output_index": index, "item": item}
    yield reply["status"], {"response": reply}
