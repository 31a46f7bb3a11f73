"""Files, TOML and JSON from elsewhere, within limits: what is too large or too deep, or a key twice, is refused.

The standard library's parsers are used for what is small and flat: `tomllib` takes time with the square of a dotted
key's parts, both run out of stack on deep nesting, and `json` takes the last of two equal keys. Knows no file of ours.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any

MAX_TOML = 1_000_000
"""Characters of a TOML text; at this size the slowest that is still parsed takes about a second."""
MAX_DEPTH = 50
"""Levels of tables and arrays in a TOML text, and parts of a dotted key."""
MAX_JSON_DEPTH = 500
"""Levels of objects and arrays in a JSON text, well within the interpreter's stack."""

_TOML_TOKEN = (  # a string that is never closed goes to the end: each character is looked at once
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|(?P<mark>\.|[\[{]|[\]}]|[=,\n]|#[^\n]*+)"
)

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
