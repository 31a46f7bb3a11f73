"""Tool calls in JSON, in whichever form they are written. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.metrics.comparison import short


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call of one tool."""

    name: str
    arguments: Mapping[str, Any]


def calls_in(value: Any) -> list[ToolCall]:
    """The calls in a JSON value: one or a list of them, as {"name", "arguments"} (without arguments: none),
    {NAME: arguments}, or as OpenAI ("function", with the arguments as a text) and Anthropic ("input") write them.

    Raises:
        ValueError: The value holds something else; the message says what.

    >>> calls_in({"lights_on": {"room": "hall"}})
    [ToolCall(name='lights_on', arguments={'room': 'hall'})]
    """
    if value is None:
        return []
    return [_call(each) for each in (value if isinstance(value, list) else [value])]


def _call(value: Any) -> ToolCall:
    if not isinstance(value, Mapping):
        raise ValueError(f"{short(value, 60)} is no call")
    inner = value.get("function")
    if isinstance(inner, Mapping):
        value = inner
    if isinstance(value.get("name"), str) and (len(value) == 1 or value.keys() & {"arguments", "input"}):
        name, arguments = value["name"], value.get("arguments", value.get("input", {}))
    elif len(value) == 1:
        ((name, arguments),) = value.items()
    else:
        raise ValueError(f"{short(value, 60)} is no call: it has no name and arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise ValueError(f"the arguments of {short(name, 60)} are not JSON: {short(arguments, 60)}") from None
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {short(name, 60)} are no object: {short(arguments, 60)}")
    return ToolCall(str(name), arguments)
