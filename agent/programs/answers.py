"""What a program of the user's own says, as the typed fields of the task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from agent.prompt.render import label_text
from agent.prompt.reply_parser import parse_reply
from agent.types import Prediction, Signature, canonical


def read_fields(value_of: Callable[[str], Any], signature: Signature, what: str) -> Prediction:
    """The outputs that `value_of` knows by name, each read like a reply that holds nothing else; None is none. `what`
    is the word for what holds them."""
    texts: dict[str, str] = {}
    fields: dict[str, Any] = {}
    errors = []
    for field in signature.outputs:
        value = value_of(field.name)
        if value is None:
            errors.append(f"The {what} lacks {field.name}.")
            continue
        value = plain(value)
        texts[field.name] = label_text(value) if isinstance(value, str | int | float | dict | list) else str(value)
        found = parse_reply(texts[field.name], (field,))
        fields.update(found.fields)
        errors += [f"{field.name}: {found.error}"] if found.error else []
    return Prediction(fields, json.dumps(texts, ensure_ascii=False), " ".join(errors))


def plain(value: Any) -> Any:
    """A value of a typed output as JSON has it: pydantic models as objects, members of an Enum as their values."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=canonical)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
