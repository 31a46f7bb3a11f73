"""The limits of a task for a text answer: its words, and texts that it must or must not hold. Pure.

A reply that breaks one counts like a reply that does not parse: it scores 0, and the proposer reads the reason.
"""

from __future__ import annotations

from typing import Any

from agent.shipped import Field, composed


def _letters(text: str) -> str:
    return composed(text).casefold()


def broken_limit(field: Field, value: Any) -> str:
    """The limit of `field` that the answer `value` breaks, as a sentence; "" for none. Case is folded."""
    if not isinstance(value, str):
        return ""
    words, text = len(value.split()), _letters(value)
    counted = f"The {field.name} has {words} word{'s' * (words != 1)}"
    if field.max_words is not None and words > field.max_words:
        return f"{counted}, at most {field.max_words} are allowed."
    if field.min_words is not None and words < field.min_words:
        return f"{counted}, at least {field.min_words} are wanted."
    if found := next((part for part in field.forbidden if _letters(part) in text), None):
        return f"The {field.name} holds {found!r}, which is forbidden."
    if missing := next((part for part in field.required if _letters(part) not in text), None):
        return f"The {field.name} lacks {missing!r}, which is required."
    return ""
