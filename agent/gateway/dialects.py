"""What the wire formats that agents speak have in common. Chat Completions, Responses and Messages are files here.

A body becomes a `Request`, a `Completion` becomes a reply or its events. A parameter that may change the answer and
that a request cannot carry is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from agent.errors import InputError
from agent.models.tool_calling import arguments_in
from agent.models.wire_format import MOST_TOKENS
from agent.safe_data import Rule, read_as
from agent.shipped import content_id
from agent.turns import Call, calls_text, turn_of
from agent.types import Completion, Message, Request, Tool, Usage

Json = dict[str, Any]
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
_ALL, _SETTINGS = " and send the whole input each time", " (openai-agents: Agent(model_settings=ModelSettings()))"
HINTS: Mapping[str, str] = {
    "previous_response_id": f"{_ALL} (LangChain: use_previous_response_id=False)",
    "conversation": _ALL,
    "item_reference": _ALL,
    "reasoning": _SETTINGS,
    "verbosity": _SETTINGS,
    "thread": " (anthropic: tool_runner(..., thread=False))",
}
"""How to leave out what frameworks send by themselves."""
CHOICES = ("auto", "none", "required")
TEMPERATURE = Annotated[float, Rule("a number from 0 to 2", lambda value: 0 <= value <= 2)]
_OWN_ID = re.compile(r"call_(\d{1,9})")


class Given(dict[str, Any]):
    """An object in a body: without nulls, and with its place, "" for the body. What does not fit raises ValueError."""

    def __init__(self, value: Any, where: str = "") -> None:
        super().__init__(_bare(read_as(Json, value, where)))
        self.where = where

    def read(self, kind: Any, name: str, usual: Any = None) -> Any:
        """Read the value of a name as a type."""
        return read_as(kind, self.get(name, usual), self._place(name))

    def name(self, key: str = "name") -> str:
        if not (name := str(self.read(str, key))):
            raise ValueError(f"{self._place(key)}: is empty")
        return name

    def call(self) -> Call:
        return self.name(), arguments_in(self.read(str, "arguments", "") or "{}")

    def inner(self, name: str, usual: Any = None) -> Given:
        return Given(self.get(name, usual), self._place(name))

    def listed(self, name: str, usual: Any = None) -> list[Given]:
        return [
            Given(each, f"{self._place(name)}[{at}]") for at, each in enumerate(self.read(tuple[Any, ...], name, usual))
        ]

    def joined(self, name: str = "content", usual: Any = None) -> str:
        """Return the text of a content: a string, or a list of parts."""
        content = self.get(name, usual)
        return content if isinstance(content, str) else "".join(part.text() for part in self.listed(name, usual))

    def text(self) -> str:
        """Return the text of this part of a content."""
        kind = self.get("type")
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise ValueError(f"{self.where}: the gateway carries texts only, not {str(kind)[:60]!r}")
        name = "refusal" if kind == "refusal" else "text"
        self.carries(f"type {name} cache_control annotations logprobs citations")
        return str(self.read(str, name))

    def schema(self) -> str | None:
        """Return the JSON schema of this format of an answer; None for text."""
        kind, form = self.get("type"), self.inner("json_schema") if "json_schema" in self else self
        if kind in ("text", "json_object"):
            return None if kind == "text" else '{"type": "object"}'
        if kind != "json_schema":
            what = f"text, json_object and json_schema, not {str(kind)[:60]!r}"
            raise ValueError(f"{self.where}: the gateway carries {what}")
        about = {"description": form["description"]} if isinstance(form.get("description"), str) else {}
        return _written({**about, **form.read(Json, "schema")})

    def carries(self, names: str, **defaults: Any) -> None:
        """Raise ValueError for a name that is neither listed nor at its default."""
        for name, value in self.items():
            is_usual = name in defaults and (_bare(value) if isinstance(value, dict) else value) == defaults[name]
            if name not in names.split() and not is_usual:
                other = f" other than {json.dumps(defaults[name])}" if name in defaults else ""
                what, hint = f"{name[:60]!r}{other} of {self.where or 'a call'}", HINTS.get(name, "")
                raise ValueError(f"the gateway cannot carry {what}; leave it out{hint}")

    def _place(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name


def _bare(value: Json) -> Json:
    return {name: each for name, each in value.items() if each is not None}


def _written(schema: Json) -> str:
    return json.dumps(schema, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class WireCall:
    """A call of an agent, and the number of the next id of a tool call."""

    body: Given
    request: Request
    made: int

    def id(self, kind: str, completion: Completion) -> str:
        """Return an id that is the same after a resume, and unique in a conversation."""
        return content_id(kind, [self.body["model"], self.request.identity(), completion.text])

    def said(self, completion: Completion) -> tuple[str, list[tuple[str, str, Any]]]:
        """Return what a reply says, and its calls as id, name and arguments."""
        if not self.request.tools or completion.finish == "refusal":
            return completion.text, []
        calls, said = turn_of(completion.text)
        return said, [(f"call_{self.made + at}", *call) for at, call in enumerate(calls)]


class Dialect:
    """How a wire format reads a body, writes a reply, and streams that reply as named events.

    `parameters` of a body are those of this format; `schema`, `kinds` and `inside` say how it writes tools.
    """

    parameters: str
    schema = "parameters"
    kinds: Sequence[str | None] = ("function",)
    inside = ""
    end = ""

    def messages(self, body: Given, turns: Conversation) -> str | None:
        """Add the messages of a body; return the JSON schema of the answer, if any. Raises ValueError."""
        raise NotImplementedError

    def reply(self, asked: WireCall, completion: Completion) -> Json:
        raise NotImplementedError

    def events(self, asked: WireCall, reply: Json) -> Iterator[tuple[str, Json]]:
        raise NotImplementedError

    def read(self, value: Json) -> WireCall:
        """Read a body. Raises InputError."""
        try:
            body, turns = Given(value), Conversation()
            body.carries(self.parameters + IGNORED, **DEFAULTS)
            form, tools = self.messages(body, turns), tuple(self._tools(body))
            turns.answered("the end of the messages")
            if not turns.messages:
                raise ValueError("there are no messages")
            limits = (_whole(body, f"max_{kind}tokens", 1, MOST_TOKENS) for kind in ("completion_", "", "output_"))
            stop = body.get("stop", body.get("stop_sequences", []))
            request = Request(
                tuple(turns.messages),
                next(filter(None, limits), 0),
                read_as(TEMPERATURE, body.get("temperature", 1.0), "temperature:"),
                _whole(body, "seed", -(2**63), 2**63 - 1),
                read_as(tuple[str, ...], [stop] if isinstance(stop, str) else stop, "stop"),
                form,
                tools=tools,
                tool_choice=_choice(body, [tool.name for tool in tools]),
            )
            body.name("model")
            body.read(bool, "stream", False)
            return WireCall(body, request, turns.made)
        except ValueError as error:
            raise InputError(str(error)) from None

    def stream(self, asked: WireCall, reply: Json) -> str:
        """Return a finished reply as server-sent events."""
        written = ""
        for name, data in self.events(asked, reply):
            head = f"event: {name}\n" if name else ""
            written += f"{head}data: {json.dumps({'type': name, **data} if name else data)}\n\n"
        return written + self.end

    def _tools(self, body: Given) -> Iterator[Tool]:
        names = set[str]()
        for tool in body.listed("tools", []):
            if tool.get("type") not in self.kinds:
                kind = str(tool.get("type"))[:60]
                raise ValueError(f"{tool.where}: the gateway carries functions only, not {kind!r}")
            if self.inside:
                tool.carries(f"type strict {self.inside}")
                tool = tool.inner(self.inside)
            tool.carries(f"name description {self.schema} type strict cache_control eager_input_streaming")
            if (name := tool.name()) in names:
                raise ValueError(f"{tool.where}: there are two tools {name[:60]!r}")
            names.add(name)
            parameters = tool.read(Json, self.schema, {"type": "object", "properties": {}})
            yield Tool(name, tool.read(str, "description", ""), _written(parameters))


def _whole(body: Given, name: str, least: int, most: int) -> int | None:
    rule = Rule(f"from {least} to {most}, a whole number", lambda value: least <= value <= most)
    return None if name not in body else int(read_as(Annotated[int, rule], body[name], f"{name}:"))


def _choice(body: Given, tools: Sequence[str]) -> str:
    """Return `Request.tool_choice`."""
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        form = body.inner("tool_choice")
        form.carries("type name function", disable_parallel_tool_use=False)
        if form.get("type") in ("function", "tool"):
            name = (form.inner("function") if "function" in form else form).name()
            if name in CHOICES or name not in tools:
                raise ValueError(f"tool_choice: no tool {name[:60]!r} can be chosen")
            return name
        choice = {"any": "required"}.get(str(form.get("type")), form.get("type"))
    if choice not in CHOICES or (choice == "required" and not tools):
        raise ValueError("tool_choice: must be auto, none, required, or one of the tools")
    return str(choice) if tools else ""


class Conversation:
    """Messages of a request, in which results follow the calls in their order, however they came."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.made = 0
        self._results: dict[str, str | None] = {}  # of the last turn's calls, by id

    def say(self, role: Any, said: str, where: str) -> None:
        self.answered(where)
        if role not in ("system", "developer", "user"):
            raise ValueError(f"{where}.role: must be a known role, not {str(role)[:60]!r}")
        self.messages.append(Message("user" if role == "user" else "system", said))

    def turn(self, said: str, calls: Sequence[tuple[str, Call]], where: str) -> None:
        """Add a message of the model; calls by their ids."""
        self.answered(where)
        self._results = {call_id: None for call_id, _ in calls}
        if len(self._results) < len(calls):
            raise ValueError(f"{where}: two calls have the same id")
        own = [int(found[1]) + 1 for call_id in self._results if (found := _OWN_ID.fullmatch(call_id))]
        self.made = max(self.made + len(calls), *own, 0)  # past all ids, also if earlier turns were left out
        self.messages.append(Message("assistant", calls_text([call for _, call in calls], said) if calls else said))

    def result(self, call_id: Any, said: str, where: str) -> None:
        if not isinstance(call_id, str) or call_id not in self._results:
            raise ValueError(f"{where}: no call {str(call_id)[:60]!r} in the turn before; results follow their calls")
        if self._results[call_id] is not None:
            raise ValueError(f"{where}: the call {call_id[:60]!r} has two results")
        self._results[call_id] = said

    def answered(self, where: str) -> None:
        """Move the results to the messages. Raises ValueError if one is missing."""
        for call_id, said in self._results.items():
            if said is None:
                raise ValueError(f"{where}: the result of the call {call_id[:60]!r} is missing; it must come before")
            self.messages.append(Message("tool", said))
        self._results = {}


def counted(usage: Usage, prompt: str, completion: str) -> Json:
    """Write token counts in OpenAI's form under these names."""
    counts = {prompt: usage.prompt_tokens, completion: usage.completion_tokens, "total_tokens": usage.tokens}
    return {**counts, f"{prompt}_details": {"cached_tokens": usage.cached_prompt_tokens}}
