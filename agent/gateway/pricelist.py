"""The user's own price list: `prices.toml` in the current folder, or the file that OPTIMIZE_PRICES names.

    [[price]]
    model = "openai/x"
    from = 2026-11-01      # the first day on which it holds
    input = 0.15           # dollars per million tokens
    output = 0.6
    cached_input = 0.075   # of tokens that the provider had in its cache; may be left out: then as `input`
    cache_write = 0.19     # of tokens that it noted there (Anthropic); may be left out: then as `input`

Knows the file and its mistakes; knows no call and no other source of prices.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.task.input_files import TomlLines, decode, parse_toml, read_bytes
from agent.task.words import near, problem, quoted, shown

FILE = "prices.toml"
VARIABLE = "OPTIMIZE_PRICES"
_AMOUNTS = ("input", "output", "cached_input", "cache_write")
_REQUIRED = ("model", "from", "input", "output")
_KEYS = (*_REQUIRED, "cached_input", "cache_write")

Fault = tuple[tuple[str | int, ...], str]
"""Where in the file, as a path of keys, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one model costs from a day on, in dollars per million tokens."""

    model: str
    start: date
    input: float
    output: float
    cached_input: float
    cache_write: float


@dataclass(frozen=True, slots=True)
class PriceList:
    """The entries of one file. `sha256` is its whole digest, so that a run can say which prices it used."""

    name: str
    sha256: str
    entries: tuple[Entry, ...]

    def of(self, model: str, today: date | None = None) -> Entry | None:
        """The newest entry of `model` that holds on `today` (UTC)."""
        day = today or datetime.now(UTC).date()
        held = [entry for entry in self.entries if entry.model == model and entry.start <= day]
        return max(held, key=lambda entry: entry.start, default=None)


def read_price_list() -> PriceList | None:
    """The user's price list; None where there is none. Raises `ProblemsError` with all that is wrong in it."""
    named = os.environ.get(VARIABLE)
    path = Path(named or FILE)
    if not named and not path.exists():
        return None
    data, where = read_bytes(path), shown(path)
    lines, problems = decode(data, where)
    if problems:
        raise ProblemsError(tuple(problems))
    text = "\n".join(line or "" for line in lines)
    raw = parse_toml(text, where)
    faults = list(_faults(raw))
    if faults:
        place = TomlLines(text)
        found = sorted((place.of(path), what) for path, what in faults)
        raise ProblemsError(tuple(problem(where, line, what) for line, what in found))
    entries = tuple(
        Entry(table["model"], table["from"], *(float(table.get(name, table["input"])) for name in _AMOUNTS))
        for table in raw.get("price", [])
    )
    return PriceList(path.name, hashlib.sha256(data).hexdigest(), entries)


def _faults(raw: dict[str, Any]) -> Iterator[Fault]:
    yield from (((key,), f"unknown key {quoted(key)}{near(key, ['price'])}") for key in raw if key != "price")
    tables = raw.get("price", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        yield ("price",), "price: write each price as a table under [[price]]"
        return
    seen: set[tuple[Any, Any]] = set()
    for number, table in enumerate(tables):
        found = list(_table_faults(table))
        yield from ((("price", number, *path), what) for path, what in found)
        if not found:
            key = table["model"], table["from"]
            if key in seen:
                yield (
                    ("price", number, "from"),
                    f"a second price of {quoted(key[0])} from {key[1]}; keep one of the two",
                )
            seen.add(key)


def _table_faults(table: dict[str, Any]) -> Iterator[Fault]:
    yield from (((key,), f"unknown key {quoted(key)}{near(key, _KEYS)}") for key in table if key not in _KEYS)
    yield from (((), f"{key}: is missing; {_FORMS[key]}") for key in _REQUIRED if key not in table)
    if "model" in table and not (isinstance(table["model"], str) and table["model"].strip()):
        yield ("model",), f"model: {quoted(table['model'])} is no name; {_FORMS['model']}"
    start = table.get("from")
    if start is not None and (not isinstance(start, date) or isinstance(start, datetime)):
        yield ("from",), f"from: {quoted(start)} is no date; {_FORMS['from']}"
    for key in _AMOUNTS:
        value = table.get(key, 0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            yield (key,), f"{key}: {quoted(value)} is no amount; {_FORMS[key]}"


_AMOUNT = "write dollars per million tokens, 0 or more"
_FORMS = {
    "model": 'write it as on the command line, such as "openai/gpt-4o-mini"',
    "from": "write a day without quotes, such as 2026-11-01",
    "input": _AMOUNT,
    "output": _AMOUNT,
    "cached_input": _AMOUNT,
    "cache_write": _AMOUNT,
}
