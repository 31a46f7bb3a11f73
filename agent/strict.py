"""Files, TOML and JSON from elsewhere, within limits: what is too large or too deep, or a key twice, is refused; and
their data as typed values.

The standard library's parsers are used for what is small and flat: `tomllib` takes time with the square of a dotted
key's parts, both run out of stack on deep nesting, and `json` takes the last of two equal keys. Knows no file of ours.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

MAX_TOML = 1_000_000
"""Characters of a TOML text; at this size the slowest that is still parsed takes about a second."""
MAX_TOML_DEPTH = 50
"""Levels of tables and arrays in a TOML text, and parts of a dotted key."""
MAX_JSON_DEPTH = 500
"""Levels of objects and arrays in a JSON text, well within the interpreter's stack."""

TOML_STRING = (  # one that is never closed goes to the end: each character is looked at once
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
)
_TOML_TOKEN = TOML_STRING + r"|(?P<mark>\.|[\[{]|[\]}]|[=,\n]|#[^\n]*+)"
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)


class BadToml(ValueError):
    """A TOML text that is not valid or beyond the limits, with the `line` (from 1)."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """All of a regular file of at most `most` bytes. Raises OSError or ValueError, and waits for no pipe or device."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return data


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """`json.loads` of at most MAX_JSON_DEPTH levels, and with no key twice in an object. Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
        _require_shallow(text)  # before: at the end of the stack the interpreter prints of finalizers that failed, too
    return json.loads(text, object_pairs_hook=_once, **hooks)


def _require_shallow(text: str) -> None:
    """Raises ValueError for brackets in brackets beyond MAX_JSON_DEPTH; what is no JSON may pass."""
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > MAX_JSON_DEPTH:
            raise ValueError("JSON nested too deeply; flatten it")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands twice; keep one")
    return made


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text of at most MAX_TOML characters and MAX_TOML_DEPTH levels. Raises BadToml."""
    import tomllib

    if len(text) > MAX_TOML:
        raise BadToml(f"it is longer than {MAX_TOML:,} characters", 1)
    _require_flat(text)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also an integer of thousands of digits, whose line is not given
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        if at is None:
            raise BadToml(str(error), 1) from None
        raise BadToml(str(error)[: at.start()], int(at[1] or text.rstrip().count("\n") + 1)) from None


def _require_flat(text: str) -> None:
    """Raises BadToml for a dotted key, or for brackets in brackets, beyond MAX_TOML_DEPTH; what is no TOML may pass."""
    depth = dots = 0
    for token in re.finditer(_TOML_TOKEN, text, re.DOTALL):
        mark = token["mark"]
        if mark is None:  # a string: perhaps a part of a key
            continue
        dots = dots + 1 if mark == "." else 0
        depth += (mark in "[{") - (mark in "]}")
        if dots >= MAX_TOML_DEPTH or depth > MAX_TOML_DEPTH:
            raise BadToml(f"it is nested deeper than {MAX_TOML_DEPTH} levels", text.count("\n", 0, token.start()) + 1)


# -- data as a type ----------------------------------------------------------------------------------------------------


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
    """A whole number from `least` to `most`."""
    start, end = least > -MOST_WHOLE, most < MOST_WHOLE
    words = f" from {least:,} to {most:,}" if start and end else f" of at least {least:,}" if start else ""
    return Rule(f"a whole number{words}", lambda value: _is_number(value, int) and least <= value <= most)


def at_least(least: float) -> Rule:
    """A number of at least `least`."""
    return Rule(f"a number of at least {least:g}", lambda value: _is_number(value, int | float) and value >= least)


def one_of(names: Collection[str]) -> Rule:
    """One of some texts."""
    return Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def matching(pattern: str, words: str) -> Rule:
    """A text that a regular expression matches whole."""
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
    """The type of each field of a dataclass, and whether it has no default."""
    types = get_type_hints(kind, include_extras=True)
    return {
        field.name: (types[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if field.init
    }


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
