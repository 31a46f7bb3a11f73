"""Tools in a request and tool calls in a reply, as each provider writes them, and as one text.

A reply to a request with tools is read as the JSON list of its calls, [] for none, with what the model says besides on
the lines after it. So what comes after the model (ledger, parser, metrics, proofs of exports) knows no tool calls. What
a model wrote as arguments stands as it came, also where it is no JSON: that is the model's answer, and scores as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agent.errors import BadResponse
from agent.metrics.calls import calls_in
from agent.types import Message, Request, Tool

NONE = "No tool fits."
"""What a demo without calls says to a provider, whose turns may not be empty."""
DONE = "done"
"""The result of a call in a demo."""
Call = tuple[str, Any]
"""Name and arguments: an object, or the text that is no JSON object."""


def calls_text(calls: Sequence[Call], said: str = "") -> str:
    """The text of a reply.

    >>> calls_text([("stop", {})], "As you wish.")
    '[{"name": "stop", "arguments": {}}]\\nAs you wish.'
    """
    written = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls], ensure_ascii=False)
    return f"{written}\n{said}" if said.strip() else written


def calls_of(text: str) -> list[Call] | None:
    """The calls in a message that is nothing but their list, in any form that a label may have; None for another."""
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
    """The messages, with calls of the assistant as OpenAI writes them, each answered."""
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
    """The text of a reply's message. Raises BadResponse where its calls are no calls."""
    calls = message.get("tool_calls") or []
    try:
        return calls_text([_openai_call(call["function"]) for call in calls], said)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadResponse(f"the reply has tool calls without name and arguments ({error!r}); try again") from error


def _openai_call(function: dict[str, Any]) -> Call:
    name, text = function["name"], function.get("arguments") or "{}"
    if not isinstance(name, str):
        raise TypeError("a name that is no text")
    return name, arguments_in(text)


def arguments_in(text: Any) -> Any:
    """The arguments in a text: an object, or the text itself where it holds none."""
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
    """The calls of an assistant's message as blocks, and the blocks of their results, for the next message; None for a
    message that is no list of calls. Ids are numbered on from `made`, the calls before: each occurs once."""
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
    """The text of a reply's blocks. Raises BadResponse where its calls are no calls."""
    calls = [(block.get("name"), block.get("input")) for block in blocks if block.get("type") == "tool_use"]
    if not all(isinstance(name, str) for name, _ in calls):
        raise BadResponse("the reply has a tool call without a name; try again")
    return calls_text([(str(name), {} if arguments is None else arguments) for name, arguments in calls], said)


def described(tools: Sequence[Tool]) -> str:
    """Tools as words of a system message, as chat templates of open models have them, but for the list in the reply."""
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
