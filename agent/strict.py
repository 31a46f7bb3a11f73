"""Data from outside as typed values: a dataclass from a table, a tuple from a list. Knows no file of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words that follow "must be", and the check: metadata of an `Annotated` type."""

    words: str
    holds: Callable[[Any], bool]


TEXT = Rule("a text", lambda value: isinstance(value, str))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TABLE = Rule("a table", lambda value: isinstance(value, dict))
LIST = Rule("a list", lambda value: isinstance(value, list))
REAL = Rule("a number", lambda value: _is_number(value, int | float))
MOST_WHOLE = 2**53


def whole(least: int = -MOST_WHOLE, most: int = MOST_WHOLE) -> Rule:
    start, end = least > -MOST_WHOLE, most < MOST_WHOLE
    words = f" from {least:,} to {most:,}" if start and end else f" of at least {least:,}" if start else ""
    return Rule(f"a whole number{words}", lambda value: _is_number(value, int) and least <= value <= most)


def at_least(least: float) -> Rule:
    return Rule(f"a number of at least {least:g}", lambda value: _is_number(value, int | float) and value >= least)


def one_of(names: Collection[str]) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def matching(pattern: str, words: str) -> Rule:
    return Rule(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


_RULES = {str: TEXT, bool: FLAG, int: whole(), float: REAL, dict: TABLE, Mapping: TABLE, tuple: LIST}


def read_as(kind: Any, value: Any, where: str) -> Any:
    """Read data from elsewhere as a type: a dataclass from a table, a tuple from a list.

    Args:
        kind: str, bool, int, float, Any, a Literal, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, a table of types, a
            dataclass (a key with a default may be missing), or one of these `Annotated` with a Rule.
        value: JSON or TOML data.
        where: The path of the value.

    Raises:
        ValueError: `WHERE must be WORDS, not VALUE`, for the first value that does not fit.
    """
    rules = []
    if get_origin(kind) is Annotated:
        kind, *rules = get_args(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        rules.append(one_of(inner))
    elif kind is not Any and origin not in (Union, UnionType):
        rules.append(TABLE if isinstance(kind, dict) else _RULES.get(origin or kind, TABLE))
    for rule in rules:
        if not rule.holds(value):
            raise ValueError(f"{where} must be {rule.words}, not {value!r:.60}")
    if origin in (Union, UnionType):
        return None if value is None else read_as(inner[0], value, where)
    if isinstance(kind, dict):
        require_keys(value, where, kind, kind)
        return {key: read_as(kind[key], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        known = _fields_of(kind)
        require_keys(value, where, [key for key, (_, required) in known.items() if required], known)
        return kind(**{key: read_as(known[key][0], item, f"{where}.{key}") for key, item in value.items()})
    if origin is tuple:
        return tuple(read_as(inner[0], item, f"{where}[{at}]") for at, item in enumerate(value))
    if origin in (dict, Mapping):
        return {key: read_as(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    return float(value) if kind is float else value


def require_keys(table: Mapping[str, Any], where: str, needed: Iterable[str], known: Collection[str]) -> None:
    """Raises ValueError for a key that is missing or unknown."""
    if missing := [key for key in needed if key not in table]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown := [key for key in table if key not in known]:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r:.60}; known are {', '.join(known)}")


@cache
def _fields_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    types = get_type_hints(kind, include_extras=True)
    return {
        field.name: (types[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if field.init
    }


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
