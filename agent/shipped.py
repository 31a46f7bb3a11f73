"""The types that a shipped prompt needs: messages, fields, predictions, content ids.

`types.py` re-exports them. They are apart so that a program that only loads a prompt starts fast: each frozen dataclass
costs half a millisecond.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ChatRole = Literal["system", "user", "assistant"]
MessageRole = ChatRole | Literal["tool"]
FieldType = Literal["text", "choice", "number", "json", "conversation"]
FormatName = Literal["turns", "labelled-turns", "inline", "dspy-chat", "dspy-json", "dspy-xml"]
REASONED = ("chain-of-thought", "few-shot-cot")
"""Techniques that reason before the answer."""


MAX_NUMBER = 1e15
"""The largest number that is read from a reply, and the largest label."""


def canonical(value: Any) -> str:
    """Format JSON with sorted keys and no spaces: the text that is hashed.

    >>> canonical({"b": 1, "a": "é"})
    '{"a":"é","b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def label_text(value: Any) -> str:
    """Write a value as text: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def content_id(tag: str, value: Any) -> str:
    """Return `tag`, "_" and 16 hex digits of a SHA-256, that of `value` as JSON."""
    digest = hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{tag}_{digest[:16]}"


def composed(text: str) -> str:
    """Return `text` in composed letters (NFC), so that accents compare equal however they were typed."""
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Return `text` in lower case, with single spaces and composed letters, for comparison.

    >>> fold("  Billing\\n TEAM ")
    'billing team'
    """
    return " ".join(composed(text).casefold().split())


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; "tool": the result of a call that the message before it made."""

    role: MessageRole
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call; `parameters` is the JSON schema of its arguments, as a JSON text."""

    name: str
    description: str
    parameters: str

    def as_dict(self) -> dict[str, str]:
        """Return the fields, JSON-ready."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output of a signature.

    `choices` belong to type choice, `schema` (JSON text) to type json; type conversation is for inputs. An `optional`
    input may be empty. An output of type text may have limits: a reply that exceeds one counts as unparsable.
    """

    name: str
    type: FieldType = "text"
    description: str = ""
    choices: tuple[str, ...] = ()
    schema: str | None = None
    min_words: int | None = None
    max_words: int | None = None
    forbidden: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    optional: bool = False

    @property
    def has_schema(self) -> bool:
        """Whether it has a schema that is not just `true` or `false`."""
        return self.schema not in (None, "true", "false")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A parsed reply; `raw` is the reply itself, `error` what did not parse ("": nothing).

    `confidence` in [0, 1] is the probability of the answer among the labels; None without log-probabilities or labels.
    `passages` are the passages that the prompt showed for the input, numbered; "" without any. `conversation` is the
    text before the reply, if it is longer than the row's, `trace` what was done for the answer, if it took several
    calls, `reported` the score that the user's own code gave it, and `calls` how many model calls an agent made.
    """

    fields: Mapping[str, Any]
    raw: str
    error: str = ""
    confidence: float | None = None
    passages: str = ""
    conversation: str = ""
    trace: str = ""
    reported: float | None = None
    calls: int | None = None
