"""A confirmed answer against the outputs of a released prompt: its fields, their types, choices and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.prompt.answer_limits import broken_limit
from agent.shipped import MAX_NUMBER, Field
from agent.strict import parse_json

MOST_NAMED = 20


def answers_of(outputs: Sequence[Field], answer: Any) -> Mapping[str, Any]:
    """An answer by output: a mapping as it is, and any other value as that of the one output.

    Args:
        outputs: The output fields of the prompt.
        answer: A value, or values by the names of outputs. A mapping is the value itself where the one output is JSON
            and the mapping has not its name alone.

    >>> answers_of([Field("team")], "billing")
    {'team': 'billing'}
    """
    if len(outputs) != 1:
        return answer if isinstance(answer, Mapping) else {"": answer}
    (only,) = outputs
    if isinstance(answer, Mapping) and (only.type != "json" or set(answer) == {only.name}):
        return answer
    return {only.name: answer}


def wrong_answers(outputs: Sequence[Field], answers: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of the outputs, each as a phrase; nothing where all fit."""
    names = [output.name for output in outputs]
    wrong = [f"{name} is missing" for name in names if name not in answers]
    wrong += [f"{name!r:.60} is unknown" for name in answers if name not in names]
    found = (_wrong(output, answers[output.name]) for output in outputs if output.name in answers)
    return [*wrong, *filter(None, found)]


def _wrong(field: Field, value: Any) -> str:
    if field.type == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
        return "" if is_number else f"{field.name} is {value!r:.60}, not a number from -1e15 to 1e15"
    if field.type == "json":
        try:
            parse_json(json.dumps(value, allow_nan=False))  # also no two keys that are one as text
        except (TypeError, ValueError, RecursionError):
            return f"{field.name} is a {type(value).__name__} that is no JSON"
        return ""
    if not isinstance(value, str) or not value.strip():
        return f"{field.name} is {value!r:.60}, not a text"
    if field.type == "choice" and value not in field.choices:
        more = f" and {len(field.choices) - MOST_NAMED} more" if len(field.choices) > MOST_NAMED else ""
        return f"{field.name} is {value!r:.60}, not one of {', '.join(field.choices[:MOST_NAMED])}{more}"
    return broken_limit(field, value).rstrip(".")
