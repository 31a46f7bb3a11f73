"""The messages of an agent, read: text, tool calls and their results."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from agent.errors import RowRefused
from agent.shipped import Message, MessageRole

Call = tuple[str, Any]  # name and arguments: an object, or text that is no JSON object
_DECODER = json.JSONDecoder()


class Called(NamedTuple):
    """A tool call with its result; ids count the calls of a conversation."""

    id: str
    name: str
    arguments: Any
    result: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What one message says, and an assistant's calls."""

    role: MessageRole
    said: str
    calls: tuple[Called, ...] = ()


def calls_text(calls: Sequence[Call], said: str = "") -> str:
    """Return the text of a reply with calls.

    >>> calls_text([("stop", {})], "As you wish.")
    '[{"name": "stop", "arguments": {}}]\\nAs you wish.'
    """
    written = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls], ensure_ascii=False)
    return f"{written}\n{said}" if said.strip() else written


def turn_of(content: str) -> tuple[list[Call], str]:
    """Read what `calls_text` wrote; any other text is only said.

    >>> turn_of('[{"name": "stop", "arguments": {}}]\\nAs you wish.')
    ([('stop', {})], 'As you wish.')
    """
    try:
        value, end = _DECODER.raw_decode(content)
    except (ValueError, RecursionError):
        return [], content
    if not isinstance(value, list) or content[end : end + 1].strip("\n") or not all(map(_is_call, value)):
        return [], content
    return [(call["name"], call["arguments"]) for call in value], content[end + 1 :]


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"name", "arguments"} and isinstance(value["name"], str)


def turns(messages: Iterable[Message]) -> list[Turn]:
    """Join calls with their results; a message without results is text. Raises RowRefused if their numbers differ."""
    found: list[Turn] = []
    waiting, ids = deque(messages), count()
    while waiting:
        message, results = waiting.popleft(), list[str]()
        while waiting and waiting[0].role == "tool":
            results.append(waiting.popleft().content)
        calls, said = turn_of(message.content) if results else ([], message.content)
        if message.role == "tool" or len(calls) != len(results):
            counts = f"{len(calls)} tool calls have {len(results)} results"
            raise RowRefused(f"messages: {counts}; send one result per call, in the order of the calls")
        called = [Called(f"call_{next(ids)}", *call, result) for call, result in zip(calls, results, strict=True)]
        found.append(Turn(message.role, said, tuple(called)))
    return found
