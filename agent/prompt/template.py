r"""Literal, one-pass `{{field}}` substitution: the only way values enter a prompt. And the text of a worked example.

Fixed text may itself hold `{{field}}`: `escape` writes it as `\{{field}}`, and doubles each backslash right before a
mark, so that `fill(escape(text), values) == text` for every text. Values are never scanned again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import cycle

from agent.conversation import AS_TURNS, after
from agent.shipped import ChatRole, Message
from agent.shipped import label_text as label_text

PICKED = "picked examples"
"""The template field of the examples picked for each input; no input can have this name."""
Parts = list[str | tuple[str]]
"""A text in pieces: a str is fixed text, a 1-tuple `(field,)` a placeholder."""
_TURNS = re.compile(r"\{\{([A-Za-z]\w*)" + AS_TURNS + r"\}\}")
DEMO_ROLES: tuple[ChatRole, ChatRole] = ("user", "assistant")


@lru_cache(maxsize=64)
def _mark(names: tuple[str, ...]) -> re.Pattern[str]:
    inner = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(r"(?<!\\)(\\*)\{\{(" + inner + r")\}\}") if names else re.compile(r"(?!)")


def placeholder(name: str) -> str:
    """Return the mark of one field."""
    return "{{" + name + "}}"


def escape(text: str, names: Iterable[str]) -> str:
    r"""Make fixed text of a template: marks in `text` stay literal. Before a placeholder use `join`.

    >>> print(escape("Write {{city}} as it is.", ["city"]))
    Write \{{city}} as it is.
    """
    return _mark(tuple(names)).sub(lambda m: m[1] * 2 + "\\{{" + m[2] + "}}", text)


def join(parts: Iterable[str | tuple[str]], names: Iterable[str]) -> str:
    """Make a template of parts: a str is fixed text, a 1-tuple `(field,)` a placeholder.

    >>> join(["City: ", ("city",)], ["city"])
    'City: {{city}}'
    """
    names = tuple(names)
    pieces: list[str] = []
    for part in _merged(parts):
        if isinstance(part, tuple):
            before = pieces[-1] if pieces else ""
            slashes = len(before) - len(before.rstrip("\\"))
            pieces.append("\\" * slashes + placeholder(part[0]))
        else:
            pieces.append(escape(part, names))
    return "".join(pieces)


def _merged(parts: Iterable[str | tuple[str]]) -> list[str | tuple[str]]:
    # a mark across two neighbouring fixed texts must be escaped, too
    merged: list[str | tuple[str]] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace the marks of `values`, in one pass; marks of other names stay.

    >>> fill("City: {{city}}", {"city": "{{city}}"})
    'City: {{city}}'
    """

    def put(match: re.Match[str]) -> str:
        slashes, name = match[1], match[2]
        kept = "\\" * (len(slashes) // 2)
        return kept + (placeholder(name) if len(slashes) % 2 else values[name])

    return _mark(tuple(values)).sub(put, template)


def fill_messages(
    template: Iterable[Message], values: Mapping[str, str], shown: Sequence[Sequence[str]] | None = None
) -> tuple[Message, ...]:
    """Do `fill` over the contents of messages; the messages of a conversation replace its mark.

    `shown`: for a template with the mark of the picked demos the texts of each: of its turns, the user's first, which
    replace a message that is only the mark, or one text that goes into a message.
    """
    template, inner = tuple(template), dict(values)
    filled: list[tuple[ChatRole, str]] = []
    if (name := turns_input(template)) in values:
        inner[f"{name}{AS_TURNS}"] = ""
    if shown is not None:
        inner[PICKED] = "".join(texts[0] for texts in shown if len(texts) == 1)
    for message in template:
        if shown is not None and message.content == placeholder(PICKED):
            filled += [turn for texts in shown for turn in zip(cycle(DEMO_ROLES), texts)]
        elif name in values and message.content == placeholder(f"{name}{AS_TURNS}"):
            filled = after(filled, values[name])
        else:
            assert message.role != "tool"  # only agents have them
            filled.append((message.role, fill(message.content, inner)))
    return tuple(Message(role, content) for role, content in filled)


def turns_input(template: Iterable[Message]) -> str:
    """Return the conversation input that the template has a mark for, or ""."""
    return next((found[1] for message in template if (found := _TURNS.fullmatch(message.content))), "")


def marks(text: str, names: Iterable[str]) -> set[str]:
    """Return the fields whose unescaped placeholders `text` holds."""
    return {match[2] for match in _mark(tuple(names)).finditer(text) if len(match[1]) % 2 == 0}


def split(text: str, names: Iterable[str]) -> list[str | tuple[str]]:
    """Split a user's text with `{{field}}` marks into the parts that `join` takes."""
    parts: list[str | tuple[str]] = []
    end = 0
    for match in _mark(tuple(names)).finditer(text):
        slashes = match[1]
        parts.append(text[end : match.start()] + "\\" * (len(slashes) // 2))
        parts.append(placeholder(match[2]) if len(slashes) % 2 else (match[2],))
        end = match.end()
    parts.append(text[end:])
    return [part for part in parts if part != ""]


# -- the text of a worked example: titles, labels and answers as our own layouts write them ----------------------------


def title(name: str) -> str:
    """Write the name of a field before its value.

    >>> title("due_date")
    'Due date'
    """
    return name.replace("_", " ").capitalize()


def row_layout(layout: str, inputs: Sequence[str], outputs: Sequence[str], *, reasoning: bool = False) -> Parts:
    """Return the user's turn of an instruction that places no inputs.

    >>> row_layout("labelled-turns", ["message"], ["team"])
    ['Message: ', ('message',), '\\n', 'Team:']
    """
    if layout == "turns" and len(inputs) == 1:
        return [(inputs[0],)]
    parts: Parts = []
    for name in inputs:
        parts += [f"{title(name)}: ", (name,), "\n"]
    if layout != "turns" and not reasoning and len(outputs) == 1:
        parts.append(f"{title(outputs[0])}:")
    else:
        parts[-1] = ""
    return parts


def answer_text(
    outputs: Sequence[str], answers: Mapping[str, str], rationale: str = "", *, reasoning: bool = False
) -> str:
    """Write the assistant's turn of an example in our own layouts.

    `outputs`: their names, in the order of the signature.

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
    """Write an example as one text in the layout `inline`. Arguments as of `answer_text`.

    >>> worked_text({"message": "Late."}, ["team"], {"team": "delivery"})
    'Message: Late.\\nTeam: delivery'
    """
    lines = [f"{title(name)}: {text}" for name, text in inputs.items()]
    answer = answer_text(outputs, answers, rationale, reasoning=reasoning)
    if len(outputs) == 1 and not reasoning:
        answer = f"{title(outputs[0])}: {answer}"
    return "\n".join([*lines, answer])
