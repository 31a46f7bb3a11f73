"""Frozen dataclasses that are objects of JSON: read with what an older version left out, and written as they were."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from functools import cache
from typing import Any, Self, cast, get_args, get_origin, get_type_hints

from agent.errors import InputError

NOT_IN_JSON: Mapping[str, Any] = {"json": False}
IF_SET: Mapping[str, Any] = {"if_set": True}
"""A field that JSON has only where there is something in it."""


def if_set() -> Any:
    """A field of a text that JSON has only where there is one."""
    return field(default="", metadata=IF_SET)


class JsonPart:
    """A dataclass whose fields are the keys of a JSON object, in their order."""

    __slots__ = ()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Keys that are not known are left out. Raises InputError where one is missing that every version writes."""
        return cls(**read(cls, found))

    def to_json(self) -> dict[str, Any]:
        return write(self)


def read(part: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a part out of a JSON object. Raises as `Part.from_json`."""
    given = typed(part, found)
    always = (name for name, (each, _) in _fields(part).items() if each.default is each.default_factory is MISSING)
    require(given, always)
    return given


def typed(part: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a part that a JSON object has."""
    return {
        name: _typed(found[name], hint)
        for name, (_, hint) in _fields(part).items()
        if name in found and (found[name] is not None or _may_be_none(hint))
    }


def write(part: JsonPart) -> dict[str, Any]:
    """A part as a JSON object: tuples are lists, and a field that is `if_set` and empty is left out."""
    found, kind = {}, cast(Any, type(part))
    for name, (each, _) in _fields(kind).items():
        value = getattr(part, name)
        if each.metadata.get("json", True) and (value or not each.metadata.get("if_set")):
            found[name] = _plain(value)
    return found


def require(found: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises InputError where a name is missing."""
    if lost := [name for name in names if name not in found]:
        raise InputError(f"a result without {', '.join(lost)}: it was not written by this tool")


@cache
def _fields(part: Any) -> Mapping[str, tuple[Field[Any], Any]]:
    """The fields of a part that JSON has, by name, each with its type."""
    hints = get_type_hints(part)
    return {each.name: (each, hints[each.name]) for each in fields(part) if each.init}


def _may_be_none(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _typed(value: Any, hint: Any) -> Any:
    if value is None:
        return None
    if _may_be_none(hint):
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple:
        return tuple(_typed(each, get_args(hint)[0]) for each in value)
    return hint.from_json(value) if isinstance(hint, type) and issubclass(hint, JsonPart) else value


def _plain(value: Any) -> Any:
    if isinstance(value, JsonPart):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return dict(value) if isinstance(value, Mapping) else value
