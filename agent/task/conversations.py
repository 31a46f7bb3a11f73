"""Cells that hold a conversation: a list of messages, its JSON, or its text."""

from __future__ import annotations

import json
from typing import Any

from agent.conversation import as_text, order_faults, read_turns
from agent.task.input_files import parse_json
from agent.task.words import quoted


def messages_in(value: Any) -> Any:
    """The value of a cell; the list of messages where it is the JSON of one. Raises ValueError."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return parse_json(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{quoted(value)} is not JSON: {error.msg}; write the list of messages") from error


def conversation_text(value: Any) -> str:
    """The text of a conversation that waits for an answer. Raises ValueError, with all that is wrong with it."""
    turns = read_turns(messages_in(value))
    if wrong := list(order_faults(turns)):
        raise ValueError("; ".join(wrong))
    return as_text(turns)
