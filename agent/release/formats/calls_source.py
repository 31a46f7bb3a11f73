"""The messages of examples with tool calls as OpenAI takes them: this file stands whole in exported modules.

It imports the standard library alone.
"""

from __future__ import annotations

import json
from typing import Any


def called(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The messages to send with TOOLS: an example's list of calls as calls of the assistant, each with its result."""
    sent: list[dict[str, Any]] = []
    made = 0
    for message in messages:
        calls = _calls(message["content"]) if message["role"] == "assistant" else None
        if calls is None:
            sent.append(message)
        elif not calls:
            sent.append({"role": "assistant", "content": "No tool fits."})
        else:
            ids = [f"call_{made + number}" for number in range(len(calls))]
            made += len(calls)
            functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
            pairs = zip(ids, functions, strict=True)
            tool_calls = [{"id": i, "type": "function", "function": function} for i, function in pairs]
            sent.append({"role": "assistant", "content": None, "tool_calls": tool_calls})
            sent += [{"role": "tool", "tool_call_id": i, "content": "done"} for i in ids]
    return sent


def _calls(content: str) -> list[tuple[str, str]] | None:
    """Names and arguments of the calls in a text that is a list of them; None for another."""
    try:
        found = json.loads(content)
        return [_call(call) for call in found] if isinstance(found, list) else None
    except (ValueError, RecursionError):
        return None


def _call(call: Any) -> tuple[str, str]:
    """Raises ValueError for what is no call."""
    if not isinstance(call, dict):
        raise ValueError("no call")
    inner = call.get("function")
    call = inner if isinstance(inner, dict) else call
    if isinstance(call.get("name"), str) and (len(call) == 1 or call.keys() & {"arguments", "input"}):
        name, arguments = call["name"], call.get("arguments", call.get("input", {}))
    elif len(call) == 1:
        ((name, arguments),) = call.items()
    else:
        raise ValueError("no call")
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("no arguments")
    return str(name), json.dumps(arguments, ensure_ascii=False)
