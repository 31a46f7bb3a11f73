"""Whether a label is calls of the tools of a task, with arguments that these take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.metrics.calls import ABSENT, calls_in, has_accepted, require_accepted
from agent.task.examples import json_checker
from agent.task.words import near, quoted
from agent.types import Tool

FORM = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
}


def calls_checker(tools: Sequence[Tool], accepted: bool = False) -> Callable[[Any], str]:
    """A function from a label to what is wrong with it, said after the label, "" for nothing.

    Args:
        tools: those that may be called.
        accepted: each argument of a label is the list of its right values, and each of them is checked.
    """
    form = json_checker(json.dumps(FORM))
    by_name = {tool.name: json_checker(tool.parameters) for tool in tools}

    def check(label: Any) -> str:
        fault = form(label) or (_no_lists(label) if accepted else "")
        return fault or next((why for call in label if (why := _fault(call, by_name, accepted))), "")

    return check


def accepted_checker(schema: str | None) -> Callable[[Any], str]:
    """The same of labels whose arguments are lists of accepted values, under the schema of their field."""
    check = json_checker(schema) if schema else None
    return lambda label: (check(label) if check else "") or _no_lists(label)


def _no_lists(label: Any) -> str:
    try:
        require_accepted(calls_in(label))
    except ValueError as error:
        return f"cannot be used with accepted = true: {error}; write [VALUE, ...]"
    return ""


def _fault(call: Mapping[str, Any], by_name: Mapping[str, Callable[[Any], str]], accepted: bool) -> str:
    name, arguments = call["name"], call["arguments"]
    if name not in by_name:
        return f"calls {quoted(name)}, which is none of the tools{near(name, by_name)}"
    given = _single(arguments) if accepted else [arguments]
    return next(
        (f"calls {name} with {quoted(each)}, which {fault}" for each in given if (fault := by_name[name](each))), ""
    )


def _single(accepted: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Arguments of one value each, so that every accepted value stands in one of them."""
    choices = {name: [one for value in values for one in _values(value)] for name, values in accepted.items()}
    first = {name: values[0] for name, values in choices.items() if values}
    yield first
    for name, values in choices.items():
        yield from ({**first, name: value} for value in values[1:])


def _values(value: Any) -> list[Any]:
    """The plain values of an accepted one: none where the argument may be left out, and those of an object whose fields
    are lists of accepted values, too."""
    if value == ABSENT:
        return []
    return [*_single(value)] if has_accepted(value) else [value]
