"""Files, TOML and JSON from elsewhere, within limits: what is too large or too deep, or a key twice, is refused; and
whether the data in them has the shape that it should have.

The standard library's parsers are used for what is small and flat: `tomllib` takes time with the square of a dotted
key's parts, both run out of stack on deep nesting, and `json` takes the last of two equal keys. Knows no file of ours.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

MAX_TOML = 1_000_000
"""Characters of a TOML text; at this size the slowest that is still parsed takes about a second."""
MAX_DEPTH = 50
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
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)


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
    for token in _JSON_TOKEN.finditer(text):
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
    """The tables of a TOML text of at most MAX_TOML characters and MAX_DEPTH levels. Raises BadToml."""
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
    """Raises BadToml for a dotted key, or for brackets in brackets, beyond MAX_DEPTH; what is no TOML may pass."""
    depth = dots = 0
    for token in re.finditer(_TOML_TOKEN, text, re.DOTALL):
        mark = token["mark"]
        if mark is None:  # a string: perhaps a part of a key
            continue
        dots = dots + 1 if mark == "." else 0
        depth += (mark in "[{") - (mark in "]}")
        if dots >= MAX_DEPTH or depth > MAX_DEPTH:
            raise BadToml(f"it is nested deeper than {MAX_DEPTH} levels", text.count("\n", 0, token.start()) + 1)


# -- the shape of data -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is no list and no table: what it must be, in words that follow "must be", and the check."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Maybe:
    """The shape of a key that may be missing."""

    shape: Shape


Shape: TypeAlias = Leaf | list["Shape"] | Mapping[str, "Shape | Maybe"]
"""A list has the shape of its items; a table has exactly these keys."""
TEXT = Leaf("a text", lambda value: isinstance(value, str))
FLAG = Leaf("true or false", lambda value: isinstance(value, bool))
TABLE = Leaf("a table", lambda value: isinstance(value, dict))
REAL = Leaf("a number", lambda value: _is_number(value, int | float))
MOST_WHOLE = 2**53


def whole(least: int = -MOST_WHOLE, most: int = MOST_WHOLE) -> Leaf:
    """A whole number from `least` to `most`."""
    start, end = least > -MOST_WHOLE, most < MOST_WHOLE
    words = f" from {least:,} to {most:,}" if start and end else f" of at least {least:,}" if start else ""
    return Leaf(f"a whole number{words}", lambda value: _is_number(value, int) and least <= value <= most)


def at_least(least: float) -> Leaf:
    """A number of at least `least`."""
    return Leaf(f"a number of at least {least:g}", lambda value: _is_number(value, int | float) and value >= least)


def one_of(names: Collection[str]) -> Leaf:
    """One of some texts."""
    return Leaf(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def matching(pattern: str, words: str) -> Leaf:
    """A text that a regular expression matches whole."""
    return Leaf(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def mismatch(value: Any, shape: Shape, where: str) -> str:
    """Where data from elsewhere first differs from a shape: `WHERE must be WORDS, not VALUE`; "" where it fits."""
    if isinstance(shape, Leaf):
        return "" if shape.holds(value) else f"{where} must be {shape.words}, not {value!r:.60}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} must be a list, not {value!r:.60}"
        found = (mismatch(item, shape[0], f"{where}[{at}]") for at, item in enumerate(value))
        return next(filter(None, found), "")
    if not isinstance(value, dict):
        return f"{where} must be a table, not {value!r:.60}"
    if missing := [key for key, inner in shape.items() if key not in value and not isinstance(inner, Maybe)]:
        return f"{where} lacks {', '.join(missing)}"
    if unknown := [key for key in value if key not in shape]:
        return f"{where} has the unknown key {unknown[0]!r:.60}; known are {', '.join(shape)}"
    inner = {key: each.shape if isinstance(each, Maybe) else each for key, each in shape.items()}
    return next(filter(None, (mismatch(item, inner[key], f"{where}.{key}") for key, item in value.items())), "")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
