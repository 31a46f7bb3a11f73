"""Cells that hold a conversation: a list of messages or its JSON; any other text is one message of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent.conversation import as_text, read_turns, waiting_text
from agent.task.input_files import parse_json_cell
from agent.task.tables import Rows
from agent.task.words import quoted

PLAYED = "its rows are conversations that go on with the model's own replies"
"""Why a task with [conversation] is refused, for a message."""


def messages_in(value: Any) -> Any:
    """Return the value of a cell; the list of messages where it is the JSON of one. Raises ValueError."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    return parse_json_cell(value, "write the list of messages")


def conversation_text(value: Any) -> str:
    """Return the text of a conversation that waits for an answer. Raises ValueError with all that is wrong with it."""
    return waiting_text(messages_in(value))


def reader_of(values: Sequence[Any], cells: bool) -> Callable[[Any], str]:
    """Return what reads the conversations of a column of outside rows.

    In `cells` of a table, which may hold lists of messages as JSON, they do where half of them or more are such lists,
    so that no single cell makes messages of a text.
    """
    return _listed_text if cells and _are_conversations([value for value in values if value]) else waiting_text


def script_text(value: Any) -> str:
    """Return the text of the user's messages, in a list of texts or of messages. Raises ValueError."""
    found = messages_in(value)
    if isinstance(found, list):
        found = [{"role": "user", "content": each} if isinstance(each, str) else each for each in found]
    turns = read_turns(found)
    if others := [f"message {n} is the {role}'s" for n, (role, _) in enumerate(turns, 1) if role == "assistant"]:
        raise ValueError(f"{'; '.join(others)}; the model replies by itself, so write the user's messages alone")
    if any(role == "system" for role, _ in turns[1:]) or turns[-1][0] == "system":
        raise ValueError("a message of the system may come first, before those of the user")
    return as_text(turns)


def goal_text(value: Any) -> str:
    """Return the goal of a user. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not a text; put it in quotes")
    return value


Faults = dict[tuple[str, str], list[int]]
"""The lines of each mistake, by column and what is wrong."""


def conversations_in(rows: Rows, names: Iterable[str]) -> tuple[Rows, frozenset[str], Faults]:
    """Return the rows with conversations as their texts, the columns out of `names` that hold some, and what is wrong
    with them. A column holds conversations where half of its values or more are lists of messages: a single odd row
    does not make texts of all others."""
    found = frozenset(name for name in names if _are_conversations([row[name] for _, row in rows if _holds(row, name)]))
    made: Rows = []
    wrong: Faults = {}
    for line, row in rows:
        texts = {}
        for name in found:
            if _holds(row, name):
                try:
                    texts[name] = _listed_text(row[name])
                except ValueError as error:
                    wrong.setdefault((name, f"{name}: {error}"), []).append(line)
        made.append((line, {**row, **texts}))
    return made, found, wrong


def _holds(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return bool(value.strip() if isinstance(value, str) else value)


def _are_conversations(values: Sequence[Any]) -> bool:
    return bool(values) and 2 * sum(map(_is_conversation, values)) >= len(values)


def _is_conversation(value: Any) -> bool:
    try:
        messages = messages_in(value)
    except ValueError:
        return False
    return isinstance(messages, list) and bool(messages) and all(isinstance(m, dict) and "role" in m for m in messages)


def _listed_text(value: Any) -> str:
    """The text of a conversation in a cell. Raises ValueError also for a text among lists of messages."""
    found = messages_in(value)
    if isinstance(found, str):
        fix = 'write [{"role": "user", "content": "..."}]'
        raise ValueError(f"{quoted(found, 60)} is a text, and the column holds lists of messages; {fix}")
    return waiting_text(found)
