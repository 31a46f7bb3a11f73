"""The text of a worked example: titles, labels and answers as our own layouts write them. Standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def label_text(value: Any) -> str:
    """A label as the answer of a demo: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def title(name: str) -> str:
    """The name of a field as it stands before its value.

    >>> title("due_date")
    'Due date'
    """
    return name.replace("_", " ").capitalize()


def answer_text(
    outputs: Sequence[str], answers: Mapping[str, str], rationale: str = "", *, reasoning: bool = False
) -> str:
    """The assistant's turn of an example in our own layouts.

    Args:
        outputs: The names of the output fields, in the order of the signature.
        answers: The text of each.
        rationale: The reasons before the answer.
        reasoning: Whether the prompt asks for reasons.

    >>> answer_text(["team", "urgent"], {"team": "billing", "urgent": "no"})
    'team: billing\\nurgent: no'
    """
    if len(outputs) == 1:
        answer = answers[outputs[0]]
        return f"{rationale.strip()}\nAnswer: {answer}".lstrip() if reasoning else answer
    lines = "\n".join(f"{name}: {answers[name]}" for name in outputs)
    return f"{rationale.strip()}\n{lines}".lstrip() if reasoning else lines


def worked_text(
    inputs: Mapping[str, str],
    outputs: Sequence[str],
    answers: Mapping[str, str],
    rationale: str = "",
    *,
    reasoning: bool = False,
) -> str:
    """An example as one text, as the layout `inline` has it.

    Args:
        inputs: The text of each input, in the order of the signature.
        outputs: The names of the output fields, in the order of the signature.
        answers: The text of each.
        rationale: The reasons before the answer.
        reasoning: Whether the prompt asks for reasons.

    >>> worked_text({"message": "Late."}, ["team"], {"team": "delivery"})
    'Message: Late.\\nTeam: delivery'
    """
    lines = [f"{title(name)}: {text}" for name, text in inputs.items()]
    answer = answer_text(outputs, answers, rationale, reasoning=reasoning)
    if len(outputs) == 1 and not reasoning:
        answer = f"{title(outputs[0])}: {answer}"
    return "\n".join([*lines, answer])
