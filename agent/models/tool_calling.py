"""Tools in requests and tool calls in replies, in each provider's format and as one text.

A reply to a request with tools is read as the JSON list of its calls, [] for none, followed by the model's text on the
next lines. So ledger, parser, metrics and exports need to know nothing about tool calls. Arguments are kept as the
model wrote them, even invalid JSON: that is the model's answer, and is scored as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agent.errors import BadResponse
from agent.metrics.calls import calls_in
from agent.types import Message, Request, Tool

NONE = "No tool fits."
"""Text of a demo without calls, as providers refuse empty turns."""
DONE = "done"
"""Result of a call in a demo."""
Call = tuple[str, Any]
"""Name and arguments: an object, or text that is no JSON object."""


def calls_text(calls: Sequence[Call], said: str = "") -> str:
    """Return the text of a reply with calls.

    >>> calls_text([("stop", {})], "As you wish.")
    '[{"name": "stop", "arguments": {}}]\\nAs you wish.'
    """
    written = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls], ensure_ascii=False)
    return f"{written}\n{said}" if said.strip() else written


def calls_of(text: str) -> list[Call] | None:
    """Return the calls of a message that is only a list of calls, in any form a label may have; else None."""
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
    return list(_openai_messages(request.messages)) if request.tools else [m.as_dict() for m in request.messages]


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


def anthropic_blocks(content: str, made: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """Return a message's calls as blocks, and their result blocks; None if it is no list of calls.

    Ids continue from `made`, the number of earlier calls, so that each is unique.
    """
    calls = calls_of(content)
    if calls is None:
        return None
    if not calls:
        return [{"type": "text", "text": NONE}], []
    ids = [f"call_{made + number}" for number in range(len(calls))]
    pairs = zip(ids, calls, strict=True)
    used = [{"type": "tool_use", "id": i, "name": n, "input": a if isinstance(a, dict) else {}} for i, (n, a) in pairs]
    return used, [{"type": "tool_result", "tool_use_id": i, "content": DONE} for i in ids]


def anthropic_calls(blocks: Sequence[dict[str, Any]], said: str) -> str:
    """Return the text of a reply's blocks. Raises BadResponse for malformed calls."""
    calls = [(block.get("name"), block.get("input")) for block in blocks if block.get("type") == "tool_use"]
    if not all(isinstance(name, str) for name, _ in calls):
        raise BadResponse("the reply has a tool call without a name; try again")
    return calls_text([(str(name), {} if arguments is None else arguments) for name, arguments in calls], said)


def described(tools: Sequence[Tool]) -> str:
    """Describe tools for a system message, as chat templates of open models do, except for the list in the reply."""
    lines = [json.dumps(tool, ensure_ascii=False) for tool in openai_tools(tools)]
    return "\n".join([*_BEFORE, "<tools>", *lines, "</tools>", "", *_HOW])


_BEFORE = (
    "# Tools",
    "",
    "You may call one or more functions to assist with the user query.",
    "",
    "You are provided with function signatures within <tools></tools> XML tags:",
)
_HOW = (
    "Return a JSON list with an object for each function call, with function name and arguments:",
    '[{"name": <function-name>, "arguments": <args-json-object>}]',
    "Return [] where no function fits.",
)
