"""The wire formats in which agents call models: Chat Completions, Responses and Anthropic's Messages.

A body becomes a `Request`, a `Completion` becomes a reply or its events. A parameter that may change the answer and
that a request cannot carry is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.errors import InputError
from agent.models.tool_calling import arguments_in
from agent.models.wire_format import MOST_TOKENS
from agent.shipped import content_id, label_text
from agent.turns import Call, calls_text, turn_of
from agent.types import Completion, Message, Request, Tool

Json = dict[str, Any]
T = TypeVar("T")
NOTHING: Mapping[str, Any] = {}
IGNORED = """
    model stream stream_options user metadata store service_tier safety_identifier include prompt_cache_key
    prompt_cache_options prompt_cache_retention betas cache_control inference_geo
"""
DEFAULTS: Mapping[str, Any] = {
    "n": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "background": False,
    "truncation": "disabled",
    "reasoning": {},
    "thinking": {"type": "disabled"},
}
"""Parameters that change no answer with this value; those of IGNORED change none with any."""
CHOICES = ("auto", "none", "required")
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
HINTS: Mapping[str, str] = {
    "previous_response_id": " and send the whole input each time (LangChain: use_previous_response_id=False)",
    "conversation": " and send the whole input each time",
    "item_reference": " and send the whole input each time",
    "reasoning": " (openai-agents: Agent(model_settings=ModelSettings()))",
    "verbosity": " (openai-agents: Agent(model_settings=ModelSettings()))",
    "thread": " (anthropic: tool_runner(..., thread=False))",
}
"""How to leave out what frameworks send by themselves."""
_OWN_ID = re.compile(r"call_(\d{1,9})")


@dataclass(frozen=True, slots=True)
class WireCall:
    """A call of an agent; `made`: the number of the next id of a call."""

    model: str
    request: Request
    streams: bool
    counts: bool  # whether a stream of chunks ends with the usage
    made: int
    echo: Mapping[str, Any]  # what a reply repeats of the body

    def id(self, kind: str, completion: Completion) -> str:
        """Return an id that is the same after a resume, and unique in a conversation."""
        return content_id(kind, [self.model, self.request.identity(), completion.text])

    def said(self, completion: Completion) -> tuple[str, list[tuple[str, str, Any]]]:
        """Return what a reply says, and its calls as id, name and arguments."""
        if not self.request.tools or completion.finish == "refusal":
            return completion.text, []
        calls, said = turn_of(completion.text)
        return said, [(f"call_{self.made + at}", *call) for at, call in enumerate(calls)]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a wire format reads a body, writes a reply, and streams that reply as named events."""

    read: Callable[[Json], WireCall]
    reply: Callable[[WireCall, Completion], Json]
    events: Callable[[WireCall, Json], Iterator[tuple[str, Json]]]
    end: str = ""

    def stream(self, asked: WireCall, reply: Json) -> str:
        """Return a finished reply as server-sent events."""
        events = [
            f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
            if name
            else f"data: {json.dumps(data)}\n\n"
            for name, data in self.events(asked, reply)
        ]
        return "".join([*events, self.end])


# -- reading ----------------------------------------------------------------------------------------------------------


def _carried(value: Json, where: str, names: str, defaults: Mapping[str, Any] = NOTHING) -> Json:
    """Return `value` without nulls. Raises InputError for a name that is neither listed nor at its default."""
    given, listed = {name: each for name, each in value.items() if each is not None}, names.split()
    for name, each in given.items():
        if name not in listed and not (name in defaults and each == defaults[name]):
            other = f" other than {json.dumps(defaults[name])}" if name in defaults else ""
            raise InputError(
                f"the gateway cannot carry {name[:60]!r}{other} of {where}; leave it out{HINTS.get(name, '')}"
            )
    return given


def _of(kind: type[T], value: Any, where: str, what: str) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where}: must be {what}, not {json.dumps(value)[:60]}")
    return value


def _text(value: Any, where: str) -> str:
    return _of(str, value, where, "a text")


def _name(value: Json, where: str, key: str = "name") -> str:
    if not (name := _text(value.get(key), f"{where}.{key}")):
        raise InputError(f"{where}.{key}: is empty")
    return name


def _object(value: Any, where: str) -> Json:
    return _of(dict, value, where, "an object")


def _objects(value: Any, where: str) -> list[tuple[str, Json]]:
    """Return the objects of a list, each after its place."""
    listed = enumerate(_of(list, value, where, "a list of objects"))
    return [(f"{where}[{at}]", _object(each, f"{where}[{at}]")) for at, each in listed]


def _whole(body: Json, name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is not None and not least <= _of(int, value, name, "a whole number") <= most:
        raise InputError(f"{name}: must be from {least} to {most}")
    return value


def _temperature(body: Json) -> float:
    value = body.get("temperature", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise InputError("temperature: must be a number from 0 to 2")
    return float(value)


def _joined(content: Any, where: str) -> str:
    """Return the text of a content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(_part(part, at) for at, part in _objects(content, where))


def _part(part: Json, where: str) -> str:
    kind = part.get("type")
    if kind not in ("text", "input_text", "output_text", "refusal"):
        raise InputError(f"{where}: the gateway carries texts only, not {str(kind)[:60]!r}")
    name = "refusal" if kind == "refusal" else "text"
    _carried(part, where, f"type {name} cache_control annotations logprobs citations")
    return _text(part.get(name), f"{where}.{name}")


def _tools(body: Json, schema: str, kinds: Sequence[str | None], inside: str = "") -> tuple[Tool, ...]:
    tools = {}
    for where, tool in _objects(body.get("tools", []), "tools"):
        if tool.get("type") not in kinds:
            raise InputError(f"{where}: the gateway carries functions only, not {str(tool.get('type'))[:60]!r}")
        if inside:
            tool = _object(_carried(tool, where, f"type strict {inside}").get(inside), where)
        tool = _carried(tool, where, f"name description {schema} type strict cache_control eager_input_streaming")
        name, parameters = _name(tool, where), _object(tool.get(schema, NO_PARAMETERS), f"{where}.{schema}")
        if name in tools:
            raise InputError(f"{where}: there are two tools {name[:60]!r}")
        tools[name] = Tool(name, _text(tool.get("description", ""), where), _written(parameters))
    return tuple(tools.values())


def _written(schema: Json) -> str:
    return json.dumps(schema, ensure_ascii=False, allow_nan=False)


def _choice(body: Json, tools: Sequence[Tool]) -> str:
    """Return `Request.tool_choice`."""
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        choice = _carried(choice, "tool_choice", "type name function", {"disable_parallel_tool_use": False})
        if choice.get("type") in ("function", "tool"):
            name = _name(_object(choice.get("function", choice), "tool_choice.function"), "tool_choice")
            if name not in {tool.name for tool in tools} - {*CHOICES}:
                raise InputError(f"tool_choice: no tool {name[:60]!r} can be chosen")
            return name
        choice = {"any": "required"}.get(str(choice.get("type")), choice.get("type"))
    if choice not in CHOICES or (choice == "required" and not tools):
        raise InputError("tool_choice: must be auto, none, required, or one of the tools")
    return str(choice) if tools else ""


def _schema(form: Any, where: str) -> str | None:
    """Return the JSON schema of a reply's format; None for text."""
    form = _object(form, where)
    kind = form.get("type")
    if kind in ("text", "json_object"):
        return None if kind == "text" else '{"type": "object"}'
    if kind != "json_schema":
        raise InputError(f"{where}: the gateway carries text, json_object and json_schema, not {str(kind)[:60]!r}")
    form = _object(form.get("json_schema", form), where)
    about = {"description": form["description"]} if isinstance(form.get("description"), str) else {}
    return _written({**about, **_object(form.get("schema"), f"{where}.schema")})


class _Conversation:
    """Messages of a request, in which results follow the calls in their order, however they came."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.made = 0
        self._results: dict[str, str | None] = {}  # of the last turn's calls, by id

    def say(self, role: Any, text: str, where: str) -> None:
        self.answered(where)
        if role not in ("system", "developer", "user"):
            raise InputError(f"{where}.role: must be a known role, not {str(role)[:60]!r}")
        self.messages.append(Message("user" if role == "user" else "system", text))

    def turn(self, said: str, calls: Sequence[tuple[str, Call]], where: str) -> None:
        """Add a message of the model; calls by their ids."""
        self.answered(where)
        self._results = {call_id: None for call_id, _ in calls}
        if len(self._results) < len(calls):
            raise InputError(f"{where}: two calls have the same id")
        own = [int(found[1]) + 1 for call_id in self._results if (found := _OWN_ID.fullmatch(call_id))]
        self.made = max(self.made + len(calls), *own, 0)  # past all ids, also if earlier turns were left out
        self.messages.append(Message("assistant", calls_text([call for _, call in calls], said) if calls else said))

    def result(self, call_id: Any, text: str, where: str) -> None:
        if not isinstance(call_id, str) or call_id not in self._results:
            raise InputError(f"{where}: no call {str(call_id)[:60]!r} in the turn before; results follow their calls")
        if self._results[call_id] is not None:
            raise InputError(f"{where}: the call {call_id[:60]!r} has two results")
        self._results[call_id] = text

    def answered(self, where: str) -> None:
        """Move the results to the messages. Raises InputError if one is missing."""
        for call_id, text in self._results.items():
            if text is None:
                raise InputError(f"{where}: the result of the call {call_id[:60]!r} is missing; it must come before")
            self.messages.append(Message("tool", text))
        self._results = {}


def _asked(
    body: Json, turns: _Conversation, tools: tuple[Tool, ...], schema: str | None, echo: Mapping[str, Any] = NOTHING
) -> WireCall:
    turns.answered("the end of the messages")
    if not turns.messages:
        raise InputError("there are no messages")
    limits = (_whole(body, f"max_{kind}tokens", 1, MOST_TOKENS) for kind in ("completion_", "", "output_"))
    stop = body.get("stop", body.get("stop_sequences", []))
    request = Request(
        tuple(turns.messages),
        next(filter(None, limits), 0),
        _temperature(body),
        _whole(body, "seed", -(2**63), 2**63 - 1),
        tuple(_text(each, "stop") for each in ([stop] if isinstance(stop, str) else _of(list, stop, "stop", "a list"))),
        schema,
        tools=tools,
        tool_choice=_choice(body, tools),
    )
    streams = _of(bool, body.get("stream", False), "stream", "true or false")
    counts = _object(body.get("stream_options", {}), "stream_options").get("include_usage") is True
    return WireCall(_name(body, "a call", "model"), request, streams, counts, turns.made, echo)


def _call(function: Json, where: str) -> Call:
    return _name(function, where), arguments_in(_text(function.get("arguments") or "{}", f"{where}.arguments"))


# -- Chat Completions -------------------------------------------------------------------------------------------------


def _read_chat(body: Json) -> WireCall:
    names = "messages tools tool_choice response_format max_tokens max_completion_tokens temperature seed stop"
    body = _carried(body, "a call", names + IGNORED, DEFAULTS)
    turns = _Conversation()
    for where, message in _objects(body.get("messages"), "messages"):
        role, content = message.get("role"), message.get("content")
        said = "" if content is None and role == "assistant" else _joined(content, f"{where}.content")
        if role == "assistant":
            echoed = "annotations reasoning reasoning_content reasoning_details"
            message = _carried(message, where, f"role content tool_calls refusal {echoed}")
            calls = []
            for at, call in _objects(message.get("tool_calls", []), f"{where}.tool_calls"):
                function = _object(call.get("function"), f"{at}.function")
                calls.append((_name(call, at, "id"), _call(function, at)))
            turns.turn(said or _text(message.get("refusal", ""), where), calls, where)
        elif role == "tool":
            _carried(message, where, "role content tool_call_id name")
            turns.result(message.get("tool_call_id"), said, where)
        else:
            _carried(message, where, "role content")
            turns.say(role, said, where)
    form = _schema(body.get("response_format", {"type": "text"}), "response_format")
    return _asked(body, turns, _tools(body, "parameters", ["function"], "function"), form)


def _chat_reply(asked: WireCall, completion: Completion) -> Json:
    (said, calls), usage = asked.said(completion), completion.usage
    refusal = said or None if completion.finish == "refusal" else None
    message: Json = {"role": "assistant", "content": said or (None if calls else ""), "refusal": refusal}
    if calls:
        made = [(call_id, {"name": name, "arguments": label_text(given)}) for call_id, name, given in calls]
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": each} for call_id, each in made]
    finish = {"refusal": "content_filter", "length": "length"}.get(completion.finish)
    finish = finish or ("tool_calls" if calls else "stop")
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    details = {"prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens}}
    return {
        "id": asked.id("chatcmpl", completion),
        "object": "chat.completion",
        "created": 0,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {**counts, "total_tokens": usage.tokens, **details},
    }


def _chat_events(asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
    (choice,) = reply["choices"]
    message = choice["message"]
    head = {**reply, "object": "chat.completion.chunk", "usage": None}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{name: message[name]} for name in ("content", "refusal") if message[name]]
    deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(message.get("tool_calls", []))]
    for delta in deltas:
        yield "", {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    yield "", {**head, "choices": [end]}
    if asked.counts:
        yield "", {**head, "choices": [], "usage": reply["usage"]}


# -- Responses --------------------------------------------------------------------------------------------------------


def _read_responses(body: Json) -> WireCall:
    if isinstance(body.get("reasoning"), dict):
        body = {**body, "reasoning": {name: each for name, each in body["reasoning"].items() if each is not None}}
    names = "input instructions tools tool_choice text max_output_tokens temperature"
    body = _carried(body, "a call", names + IGNORED, DEFAULTS)
    turns = _Conversation()
    if "instructions" in body:
        turns.say("system", _text(body["instructions"], "instructions"), "instructions")
    given = body.get("input")
    _read_items(turns, _objects([{"role": "user", "content": given}] if isinstance(given, str) else given, "input"))
    text = _carried(_object(body.get("text", {}), "text"), "text", "format", {"verbosity": "medium"})
    form = _schema(text.get("format", {"type": "text"}), "text.format")
    echo = {"tools": body.get("tools", []), "tool_choice": body.get("tool_choice", "auto"), "text": text}
    return _asked(body, turns, _tools(body, "parameters", ["function"]), form, echo)


def _read_items(turns: _Conversation, items: list[tuple[str, Json]]) -> None:
    said: list[str] = []  # in the model's turn, whose text and calls are separate items
    calls: list[tuple[str, Call]] = []
    end: Json = {}
    for where, item in [*items, ("the end of input", end)]:
        kind, role = item.get("type", "message"), item.get("role")
        if kind == "message" and role == "assistant":
            _carried(item, where, "type role content id status phase")
            said.append(_joined(item.get("content"), f"{where}.content"))
            continue
        if kind == "function_call":
            _carried(item, where, "type call_id name arguments id status")
            calls.append((_name(item, where, "call_id"), _call(item, where)))
            continue
        if kind == "reasoning":
            continue
        if said or calls:
            turns.turn("\n".join(said), calls, where)
            said, calls = [], []
        if item is end:
            return
        if kind == "function_call_output":
            _carried(item, where, "type call_id output id status")
            turns.result(item.get("call_id"), _joined(item.get("output"), f"{where}.output"), where)
        elif kind == "message":
            _carried(item, where, "type role content id status")
            turns.say(role, _joined(item.get("content"), f"{where}.content"), where)
        else:
            hint = HINTS["item_reference"] if kind == "item_reference" else ""
            raise InputError(f"{where}: the gateway cannot carry {str(kind)[:60]!r}; leave it out{hint}")


def _responses_reply(asked: WireCall, completion: Completion) -> Json:
    (said, calls), usage = asked.said(completion), completion.usage
    status = "incomplete" if completion.finish == "length" else "completed"
    output: list[Json] = []
    if said or not calls:
        part: Json = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        if completion.finish == "refusal":
            part = {"type": "refusal", "refusal": said}
        message = {"type": "message", "id": asked.id("msg", completion), "role": "assistant"}
        output.append({**message, "status": status, "content": [part]})
    for call_id, name, given in calls:
        call = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name}
        output.append({**call, "arguments": label_text(given), "status": "completed"})
    cached, thought = {"cached_tokens": usage.cached_prompt_tokens}, {"reasoning_tokens": 0}
    counts = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    return {
        "id": asked.id("resp", completion),
        "object": "response",
        "created_at": 0,
        "model": asked.model,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "error": None,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": asked.request.temperature,
        **asked.echo,
        "usage": {
            **counts,
            "total_tokens": usage.tokens,
            "input_tokens_details": cached,
            "output_tokens_details": thought,
        },
    }


def _responses_events(asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
    for number, (name, data) in enumerate(_responses_parts(reply)):
        yield f"response.{name}", {"sequence_number": number, **data}


def _responses_parts(reply: Json) -> Iterator[tuple[str, Json]]:
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


# -- Anthropic's Messages ---------------------------------------------------------------------------------------------


def _read_messages(body: Json) -> WireCall:
    names = "messages system tools tool_choice max_tokens temperature stop_sequences output_config output_format"
    body = _carried(body, "a call", names + IGNORED, DEFAULTS)
    turns = _Conversation()
    if system := _joined(body.get("system", ""), "system"):
        turns.say("system", system, "system")
    for where, message in _objects(body.get("messages"), "messages"):
        _carried(message, where, "role content cache_control")
        _read_blocks(turns, message, where)
    config = _carried(_object(body.get("output_config", {}), "output_config"), "output_config", "format")
    form = _schema(config.get("format", body.get("output_format", {"type": "text"})), "output_config.format")
    return _asked(body, turns, _tools(body, "input_schema", ["custom", None]), form)


def _read_blocks(turns: _Conversation, message: Json, where: str) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise InputError(f"{where}.role: must be user or assistant, not {str(role)[:60]!r}")
    texts: list[str] = []
    calls: list[tuple[str, Call]] = []
    has_results = False
    blocks = [(where, {"type": "text", "text": content})] if isinstance(content, str) else _objects(content, where)
    for at, block in blocks:
        kind = block.get("type")
        if role == "assistant" and kind == "tool_use":
            _carried(block, at, "type id name input cache_control caller")
            calls.append((_name(block, at, "id"), (_name(block, at), _object(block.get("input"), f"{at}.input"))))
        elif role == "user" and kind == "tool_result":
            _carried(block, at, "type tool_use_id content is_error cache_control")
            turns.result(block.get("tool_use_id"), _joined(block.get("content") or "", f"{at}.content"), at)
            has_results = True
        elif role != "assistant" or kind not in ("thinking", "redacted_thinking"):
            texts.append(_part(block, at))
    if role == "assistant":
        turns.turn("".join(texts), calls, where)
    elif texts or not has_results:
        turns.say(role, "".join(texts), where)


def _messages_reply(asked: WireCall, completion: Completion) -> Json:
    (said, calls), usage = asked.said(completion), completion.usage
    content: list[Json] = [{"type": "text", "text": said}] if said else []
    for call_id, name, given in calls:
        content.append(
            {"type": "tool_use", "id": call_id, "name": name, "input": given if isinstance(given, dict) else {}}
        )
    stop = {"refusal": "refusal", "length": "max_tokens"}.get(completion.finish)
    new = max(0, usage.prompt_tokens - usage.cached_prompt_tokens - usage.written_prompt_tokens)
    return {
        "id": asked.id("msg", completion),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": stop or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": new,
            "cache_read_input_tokens": usage.cached_prompt_tokens,
            "cache_creation_input_tokens": usage.written_prompt_tokens,
            "output_tokens": usage.completion_tokens,
        },
    }


def _messages_events(asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
    yield "message_start", {"message": {**reply, "content": [], "stop_reason": None}}
    for index, block in enumerate(reply["content"]):
        if block["type"] == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = (
                {**block, "input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        yield "content_block_start", {"index": index, "content_block": empty}
        yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    ended = {"stop_reason": reply["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": ended, "usage": reply["usage"]}
    yield "message_stop", {}


DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": Dialect(_read_chat, _chat_reply, _chat_events, "data: [DONE]\n\n"),
    "/v1/responses": Dialect(_read_responses, _responses_reply, _responses_events),
    "/v1/messages": Dialect(_read_messages, _messages_reply, _messages_events),
}
"""By the path below a rollout's address."""
