"""Tools in requests and tool calls in replies, in each provider's format and as one text.

A reply to a request with tools is read as the JSON list of its calls, [] for none, followed by the model's text on the
next lines. So ledger, parser, metrics and exports need to know nothing about tool calls. Arguments are kept as the
model wrote them, even invalid JSON: that is the model's answer, and is scored as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from agent.errors import BadResponse
from agent.metrics.calls import calls_in
from agent.turns import Call, calls_text, turns
from agent.turns import turn_of as turn_of
from agent.types import Message, Request, Tool

NONE = "No tool fits."  # text of a demo without calls, as providers refuse empty turns
DONE = "done"  # result of a call in a demo


def calls_of(text: str) -> list[Call] | None:
    """Read a message that is only calls, in any form of a label; else None."""
    try:
        value = json.loads(text)
        return [(call.name, call.arguments) for call in calls_in(value)] if isinstance(value, list) else None
    except (ValueError, RecursionError):
        return None


def openai_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": json.loads(t.parameters)},
        }
        for t in tools
    ]


def openai_messages(request: Request) -> list[dict[str, Any]]:
    """Convert messages to OpenAI's format, with the assistant's calls, each answered."""
    return list((_openai_messages if is_prompt(request) else _openai_turns)(request.messages))


def is_prompt(request: Request) -> bool:
    """Whether the answer is a list of calls, and assistant messages are demos."""
    return bool(request.tools) and not request.tool_choice


def _openai_messages(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    made = 0
    for message in messages:
        calls = calls_of(message.content) if message.role == "assistant" else None
        if not calls:
            yield {"role": message.role, "content": message.content if calls is None else NONE}
            continue
        ids = [f"call_{made + number}" for number in range(len(calls))]
        made += len(calls)
        functions = [{"name": name, "arguments": _argument_text(arguments)} for name, arguments in calls]
        pairs = zip(ids, functions, strict=True)
        tool_calls = [{"id": i, "type": "function", "function": function} for i, function in pairs]
        yield {"role": "assistant", "content": None, "tool_calls": tool_calls}
        yield from ({"role": "tool", "tool_call_id": i, "content": DONE} for i in ids)


def _openai_turns(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    for turn in turns(messages):
        calls = [openai_call(call.id, call.name, call.arguments) for call in turn.calls]
        if calls:
            yield {"role": turn.role, "content": turn.said or None, "tool_calls": calls}
        else:
            yield {"role": turn.role, "content": turn.said}
        yield from ({"role": "tool", "tool_call_id": call.id, "content": call.result} for call in turn.calls)


def openai_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": _argument_text(arguments)}}


def openai_choice(request: Request) -> str | dict[str, Any] | None:
    """Return OpenAI's `tool_choice`; None for its default."""
    choice = request.tool_choice if request.tools else ""
    if choice in ("", "auto", "none", "required"):
        return None if choice == "auto" else choice or None
    return {"type": "function", "function": {"name": choice}}


def openai_calls(message: dict[str, Any], said: str) -> str:
    """Return the text of a reply's message. Raises BadResponse for malformed calls."""
    calls = message.get("tool_calls") or []
    try:
        return calls_text([_openai_call(call["function"]) for call in calls], said)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadResponse(f"the reply has tool calls without name and arguments ({error!r}); try again") from error


def _openai_call(function: dict[str, Any]) -> Call:
    name, text = function["name"], function.get("arguments") or "{}"
    if not isinstance(name, str):
        raise TypeError("a name that is not a text")
    return name, arguments_in(text)


def arguments_in(text: Any) -> Any:
    """Parse arguments: an object, or the text itself otherwise."""
    if not isinstance(text, str):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _argument_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def anthropic_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [{"name": t.name, "description": t.description, "input_schema": json.loads(t.parameters)} for t in tools]


def anthropic_choice(request: Request) -> dict[str, Any] | None:
    """Return Anthropic's `tool_choice`; None for its default."""
    choice = request.tool_choice if request.tools else "none"
    if choice in ("", "auto"):
        return None
    kind = {"none": "none", "required": "any"}.get(choice)
    return {"type": kind} if kind else {"type": "tool", "name": choice}


def tools_to_send(request: Request) -> tuple[Tool, ...]:
    """Return the tools, or stubs of called ones, since Anthropic refuses calls of undeclared tools."""
    names = dict.fromkeys(call.name for turn in turns(request.messages) for call in turn.calls)
    return request.tools or tuple(Tool(name, "", '{"type": "object", "properties": {}}') for name in names)


def anthropic_messages(request: Request) -> Iterator[tuple[str, Any]]:
    """Return role and content of messages but the system's; calls and results are blocks."""
    messages = _with_results(request.messages) if is_prompt(request) else request.messages
    for turn in turns(message for message in messages if message.role != "system"):
        said = [{"type": "text", "text": turn.said}] if turn.said else []
        if not turn.calls:
            yield turn.role, said if turn.role == "assistant" and turn.said == NONE else turn.said
            continue
        yield turn.role, [*said, *(anthropic_call(call.id, call.name, call.arguments) for call in turn.calls)]
        yield "user", [{"type": "tool_result", "tool_use_id": call.id, "content": call.result} for call in turn.calls]


def anthropic_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    given = arguments if isinstance(arguments, dict) else {}
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def _with_results(messages: Iterable[Message]) -> Iterator[Message]:
    for message in messages:
        calls = calls_of(message.content) if message.role == "assistant" else None
        yield message if calls is None else Message(message.role, calls_text(calls) if calls else NONE)
        yield from (Message("tool", DONE) for _ in calls or ())


def anthropic_calls(blocks: Sequence[dict[str, Any]], said: str) -> str:
    """Return the text of a reply's blocks. Raises BadResponse for malformed calls."""
    calls = [(block.get("name"), block.get("input")) for block in blocks if block.get("type") == "tool_use"]
    if not all(isinstance(name, str) for name, _ in calls):
        raise BadResponse("the reply has a tool call without a name; try again")
    return calls_text([(str(name), {} if arguments is None else arguments) for name, arguments in calls], said)


def described(tools: Sequence[Tool], may_speak: bool = False) -> str:
    """Describe tools for a system message, as templates of open models do. Only the reply is another: a list."""
    return "\n".join([*_BEFORE, "<tools>", tools_text(tools), "</tools>", "", *(_HOW_OR_WORDS if may_speak else _HOW)])


@lru_cache(maxsize=64)
def tools_text(tools: Sequence[Tool]) -> str:
    """Return the tools as JSON, one a line."""
    return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in openai_tools(tools))


_BEFORE = (
    "# Tools",
    "",
    "You may call one or more functions to assist with the user query.",
    "",
    "You are provided with function signatures within <tools></tools> XML tags:",
)
_LIST = '[{"name": <function-name>, "arguments": <args-json-object>}]'
_HOW = (
    "Return a JSON list with an object for each function call, with function name and arguments:",
    _LIST,
    "Return [] where no function fits.",
)
_HOW_OR_WORDS = (
    "To call functions, return only a JSON list with an object for each call, with function name and arguments:",
    _LIST,
    "You then get their results. When no call is needed, answer the user in plain words.",
)
_MARKED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_LISTED = re.compile(r"^(?:```(?:json)?[ \t]*\n)?(?=\[)", re.MULTILINE)
MOST_LISTS = 5  # places where a list of calls may begin
_FENCED = re.compile(r"\A```(?:json)?[ \t]*+\n(.*)\n```\Z", re.DOTALL)


def spoken_calls(text: str, tools: Sequence[Tool]) -> str:
    """Return an open model's reply in the form of `calls_text`.

    Calls are a JSON list, in marks or in a code block. A list may also end the reply, after a few words.

    >>> spoken_calls('<tool_call>{"name": "stop", "arguments": {}}</tool_call>', [Tool("stop", "", "{}")])
    '[{"name": "stop", "arguments": {}}]'
    """
    said = text.strip()
    calls, rest = turn_of(said)
    if said == rest:
        marked = _MARKED.findall(said)
        found = [_in_any_form(part) for part in marked or _FENCED.findall(said)]
        calls, rest = [call for part in found for call in part], _MARKED.sub("", said).strip() if marked else ""
        if not calls:
            calls, rest = _at_the_end(said)
    is_known = {name for name, _ in calls} <= {tool.name for tool in tools}
    return calls_text(calls, rest) if calls and is_known else calls_text([], text)


def _at_the_end(said: str) -> tuple[list[Call], str]:
    whole = said.removesuffix("```").rstrip()
    for start in islice(_LISTED.finditer(whole), MOST_LISTS):
        calls, after = turn_of(whole[start.end() :])
        if calls and not after.strip():
            return calls, whole[: start.start()].strip()
    return [], ""


def _in_any_form(text: str) -> list[Call]:
    try:
        return [(call.name, dict(call.arguments)) for call in calls_in(json.loads(text))]
    except (ValueError, RecursionError):
        return []
