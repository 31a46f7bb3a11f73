"""Parse JSON and TOML from outside within limits, with line numbers of keys, and convert it to typed values.

The parsers of the standard library are safe for small and flat texts only: `tomllib` needs time with the square of a
dotted key's parts, both run out of stack on deep nesting, and `json` keeps the last of two equal keys.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from agent.safe_text import quoted, refused

MAX_TOML = 1_000_000  # characters; at this size the slowest that is still parsed takes about a second
MAX_TOML_DEPTH = 50  # levels of tables and arrays, also in the JSON of rows, and parts of a dotted key
MAX_JSON_DEPTH = 500  # levels, well within the interpreter's stack
COLUMNS = 1_000  # columns, also of all JSON rows together
ROWS = 1_000_000
LINES = 2_000_000  # lines of a text file; a cell may span several
CELLS = 5_000_000  # cells of all rows, and values inside of JSON
CELL_TEXT = 1_000_000  # characters of one cell, or of one text inside of JSON
PACKED_TEXT = 100_000_000  # characters of all cells of a workbook or Parquet file, which are packed
POSITIONS = 50_000_000  # cells of a sheet, empty ones to the left of others included
FILE = 200 * 1024 * 1024  # bytes of a file
LINE = 64 * 1024 * 1024  # bytes of a line, and of a .json file, which is read as a whole
YAML = 4 * 1024 * 1024  # bytes of a YAML file, whose reader is slow
YAML_NODES = 50_000  # names, values and lists in it
MEMORY = 1024 * 1024 * 1024  # bytes of memory of the process that reads a workbook or Parquet file
MOST_FILES = 1_000  # documents of a task
MOST_BYTES = 20_000_000  # of one document
MOST_LETTERS = 4_000_000  # of all documents together: a release holds every passage
MOST_PAGES = 2_000  # of a PDF
MOST_TOOLS = 128  # as many as OpenAI takes
MOST_SCHEMA = 100_000  # characters of the schema of a tool: to check it takes seconds
MOST_STEPS = 100  # from reference to reference of an OpenAPI document
MOST_PARTS = 100_000  # of one: one that refers to itself twice at each of 30 levels would fill the memory
MOST_LEVELS = 60  # of a schema inside another, with its references in place

KeyPath = tuple[str | int, ...]
"""The place of a TOML key: names of tables and keys, and indices of arrays."""


class TooMuch(ValueError):
    """A file exceeds a limit; says which and what to do."""


def more_than(most: int, what: str, fix: str = "") -> TooMuch:
    """Return the error of a limit."""
    return TooMuch(f"more than {most:,} {what}; {fix or 'take fewer'}")


# -- JSON --------------------------------------------------------------------------------------------------------------

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{,]', re.DOTALL)


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """Parse JSON of at most MAX_JSON_DEPTH levels, and with no key twice in an object. Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
        depth = 0
        for token in _BRACKETS.finditer(text):  # before: at the end of its stack the interpreter prints of finalizers
            depth += (token[0] in "[{") - (token[0] in "]}")
            if depth > MAX_JSON_DEPTH:
                raise ValueError("JSON nested too deeply; flatten it")
    return json.loads(text, object_pairs_hook=_once, **hooks)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands twice; keep one")
    return made


def parse_data(text: str) -> Any:
    """Parse a user's strict JSON within all limits. Raises ValueError with a reason of one line."""
    if text.count(",") + text.count("[") + text.count("{") > CELLS:
        values = 0
        for token in _JSON_MARK.finditer(text):
            values += not token[0].startswith('"')
            if values > CELLS:
                raise more_than(CELLS, "values", "take fewer rows")
    value = parse_json(text, parse_constant=_number, parse_float=_number, parse_int=_number)
    for part, depth in walk(value):
        if depth > MAX_TOML_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_TOML_DEPTH} levels; flatten it")
        if isinstance(part, str) and len(part) > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a text", "shorten it")
        if isinstance(part, str) and (bad := _UNSAFE.search(part)):
            raise ValueError(f"{quoted(bad[0])} in the text {quoted(part)} is a NUL or half a character; remove it")
    return value


def parse_cell(text: str, fix: str) -> Any:
    """Parse the JSON of a table cell; a syntax error says to `fix` it."""
    try:
        return parse_data(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{quoted(text)} is not JSON: {error.msg}; {fix}") from error


def walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield every value and key inside JSON-like data with its depth (from 1), without recursion."""
    stack = [(value, 1)]
    while stack:
        part, depth = stack.pop()
        yield part, depth
        if isinstance(part, dict):
            stack += [(key, depth) for key in part]
            stack += [(item, depth + 1) for item in part.values()]
        elif isinstance(part, list):
            stack += [(item, depth + 1) for item in part]


def _number(text: str) -> int | float:
    value: int | float = float(text)  # also of NaN and Infinity, which are not JSON
    if not math.isfinite(value):
        raise ValueError(f"the number {quoted(text)} is not finite or too large; write another, or null")
    return int(text) if text.lstrip("-").isdigit() else value


# -- TOML --------------------------------------------------------------------------------------------------------------

TOML_STRING = (  # one that is never closed goes to the end: each character is looked at once
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
)
_TOML_TOKEN = TOML_STRING + r"|(?P<mark>\.|[\[{]|[\]}]|[=,\n]|#[^\n]*+)"
_HIDDEN = re.compile(TOML_STRING + r"|#[^\n]*+", re.DOTALL)
_DEEP = f"nested deeper than {MAX_TOML_DEPTH} levels; flatten it"
_PART = re.compile(r'"((?:\\.|[^"\\])*+)"?' + r"|'([^']*+)'?" + r"|([A-Za-z0-9_-]+)")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse a TOML text of at most MAX_TOML characters and MAX_TOML_DEPTH levels. Raises ProblemsError."""
    import tomllib

    if len(text) > MAX_TOML:
        raise refused(where, 1, f"longer than {MAX_TOML:,} characters; shorten it")
    depth = dots = 0
    for token in re.finditer(_TOML_TOKEN, text, re.DOTALL):
        if (mark := token["mark"]) is None:  # a string: perhaps a part of a key
            continue
        dots = dots + 1 if mark == "." else 0
        depth += (mark in "[{") - (mark in "]}")
        if dots >= MAX_TOML_DEPTH or depth > MAX_TOML_DEPTH:
            raise refused(where, text.count("\n", 0, token.start()) + 1, _DEEP)
    try:
        raw = tomllib.loads(text)
    except ValueError as error:  # also an integer of thousands of digits, whose line is not given
        what, _, place = str(error).partition(" (at ")
        line = text.rstrip().count("\n") + 1 if place else 1  # "end of document", or no place
        if number := re.match(r"line (\d+)", place):
            line = int(number[1])
        raise refused(where, line, f"not valid TOML: {what[:1].lower()}{what[1:]}; correct this line") from None
    if any(depth > MAX_TOML_DEPTH for _, depth in walk(raw)):
        raise refused(where, 1, _DEEP)
    return raw


class TomlLines:
    """Line numbers (from 1) of the keys and sections of a valid TOML text, scanned once.

    >>> TomlLines("a = 1\\n[b]\\nc = 2").of(("b", "c"))
    3
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n").split("\n")
        self._lines: dict[KeyPath, int] = {}
        section: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        depth = 0
        masked = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", "~", found[0]), "\n".join(self._text)).split("\n")
        for number, (line, mask) in enumerate(zip(self._text, masked, strict=True), start=1):
            bare = mask.strip()
            if depth == 0 and bare.startswith("["):
                section = _parts(line[: mask.find("]")])
                if bare.startswith("[["):
                    counts[section] = counts.get(section, -1) + 1
                    section = (*section, counts[section])
                self._note(section, number)
                continue
            if depth == 0 and "=" in mask:
                self._note((*section, *_parts(line[: mask.index("=")])), number)
            depth += sum(mask.count(c) for c in "[{") - sum(mask.count(c) for c in "]}")

    def _note(self, path: KeyPath, number: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], number)

    def of(self, path: KeyPath, holding: str = "") -> int:
        """Return the line of a key, or of its nearest section. With `holding` it is the first line with this text."""
        known = (self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines)
        line = next(known, 1)
        if holding:
            return next((n for n in range(line, len(self._text) + 1) if holding in self._text[n - 1]), line)
        return line


def _parts(dotted: str) -> KeyPath:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(dotted))


# -- data as a type ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A check of a value and its words, which follow "must be": metadata of an `Annotated` type."""

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
    """Read foreign data as a type: dataclasses from tables, tuples from lists.

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
    """Raise ValueError for a missing or unknown key."""
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
