"""The words of providers: finish reasons, token counts and JSON schemas, in whatever form a reply has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import RowRefused
from agent.types import FinishReason

MOST_TOKENS = 1 << 40  # of one call; a larger number is not a count
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "completed": "stop",
    "tool_calls": "stop",
    "tool_use": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
    "safety": "refusal",
    "prohibited_content": "refusal",
}


def finish_reason(value: object) -> FinishReason:
    """Map a provider's finish reason to ours; "other" if unknown.

    >>> finish_reason("end_turn")
    'stop'
    """
    return _FINISH.get(value.lower(), "other") if isinstance(value, str) else "other"


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def schema_of(text: str, without: tuple[str, ...] = ()) -> Any:
    """Parse a JSON schema and drop the keywords `without` at all depths. Raises RowRefused unless it is JSON."""
    try:
        return json.loads(text, object_hook=lambda part: {k: v for k, v in part.items() if k not in without})
    except ValueError as error:
        raise RowRefused(f"the JSON schema is not JSON: {text[:200]!r}; correct the field's schema") from error


def token_count(value: object) -> int | None:
    """Return `value` if it is a plausible token count, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


@dataclass(frozen=True, slots=True)
class WireUsage:
    """Dotted paths of token counts in a wire format; `prompt_is_new`: prompt tokens exclude cached ones."""

    prompt: str
    completion: str
    cached: str
    written: str
    total: str = ""
    prompt_is_new: bool = False

    def counts(self, usage: Mapping[str, Any]) -> tuple[int | None, ...]:
        """Return the plausible counts of prompt, completion, cached, written and total tokens."""
        paths = (self.prompt, self.completion, self.cached, self.written, self.total)
        return tuple(token_count(_at(usage, path)) for path in paths)


def _at(value: object, path: str) -> object:
    for name in path.split("."):
        value = mapping(value).get(name)
    return value
