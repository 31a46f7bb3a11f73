"""Tool calls in JSON, in the forms of OpenAI, Anthropic and others. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from agent.metrics.comparison import short

NO_CALL = "(no call)"
"""A placeholder for a missing call; no tool can have this name."""
EXTRA_CALL = "(extra call)"
"""The label of a call beyond those that a row asks for."""
ABSENT = ""
"""An accepted value of an argument that may be left out."""

EXCLUDES = "not"
"""The key of a label {"not": [NAME, ...]}: any answer that calls none of these tools is right."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


def calls_in(value: Any) -> list[ToolCall]:
    """Read one call or a list of calls. Raises ValueError.

    Forms: {"name", "arguments"}, {"name"}, {NAME: arguments}, OpenAI ("function", arguments as text) and Anthropic
    ("input").

    >>> calls_in({"lights_on": {"room": "hall"}})
    [ToolCall(name='lights_on', arguments={'room': 'hall'})]
    """
    return [_call(each) for each in _each(value)]


def names_in(value: Any) -> list[str]:
    """Return the names of the called tools. Raises ValueError."""
    return [_parts(each)[0] for each in _each(value)]


def excluded_in(label: Any) -> list[str]:
    """Return the tools that a label excludes; [] for any other label.

    >>> excluded_in({"not": ["play"]}), excluded_in([])
    (['play'], [])
    """
    names = label.get(EXCLUDES) if isinstance(label, Mapping) and len(label) == 1 else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def require_accepted(calls: Iterable[ToolCall]) -> None:
    """Raise ValueError if an argument is not a list of accepted values."""
    for call in calls:
        for name, values in call.arguments.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{call.name}.{name} is no list of accepted values: {short(values, 60)}")


def one_answer(labels: Mapping[str, Any], accepted: Collection[str]) -> dict[str, Any]:
    """Return labels as one answer, with the first accepted value of each argument."""
    return {
        name: [{"name": call.name, "arguments": _first_of_each(call.arguments)} for call in calls_in(value)]
        if name in accepted
        else value
        for name, value in labels.items()
    }


def _first_of_each(accepted: Mapping[str, Any]) -> dict[str, Any]:
    first = {name: values[0] for name, values in accepted.items() if values and values[0] != ABSENT}
    return {name: _first_of_each(value) if has_accepted(value) else value for name, value in first.items()}


def has_accepted(value: Any) -> bool:
    """Whether an accepted value is an object of lists of accepted values."""
    return isinstance(value, Mapping) and all(isinstance(values, list) for values in value.values())


def paired_names(wanted: Sequence[str], said: Sequence[str]) -> list[tuple[str, str]]:
    """Pair expected tools with called ones; `NO_CALL` for a missing or extra one.

    >>> paired_names(["play", "set_scene"], ["set_light", "play"])
    [('play', 'play'), ('set_scene', 'set_light')]
    """
    left, over = Counter(wanted), Counter(said)
    both = left & over
    pairs = [(name, name) for name in sorted(both.elements())]
    missing, extra = sorted((left - both).elements()), sorted((over - both).elements())
    pairs += zip_longest(missing, extra, fillvalue=NO_CALL)
    return pairs or [(NO_CALL, NO_CALL)]


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _call(value: Any) -> ToolCall:
    name, arguments = _parts(value)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise ValueError(f"the arguments of {short(name, 60)} are not JSON: {short(arguments, 60)}") from None
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {short(name, 60)} are no object: {short(arguments, 60)}")
    return ToolCall(name, arguments)


def _parts(value: Any) -> tuple[str, Any]:
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
    return str(name), arguments
