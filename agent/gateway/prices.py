"""What a call costs, in US dollars: by the user's own price list, else by the prices bundled with genai-prices.

Nothing is fetched. The price list is `prices.toml` in the current folder, or the file that OPTIMIZE_PRICES names:

    [[price]]
    model = "openai/x"
    from = 2026-11-01      # the first day on which it holds
    input = 0.15           # dollars per million tokens
    output = 0.6
    cached_input = 0.075   # of tokens that the provider had in its cache; may be left out: then as `input`
    cache_write = 0.19     # of tokens that it wrote to its cache (Anthropic); may be left out: then as `input`
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from agent.errors import InputError, ProblemsError
from agent.ledger.query import NO_PRICE
from agent.task.input_files import TomlLines, decoded, parse_toml, read_bytes
from agent.task.words import near, problem, quoted, shown
from agent.types import Budget, Spend, Usage

Price = Callable[[Usage], float]
"""Tokens of one call -> dollars."""

NONE: Mapping[str, Price] = MappingProxyType({})


def prices_for(
    models: Iterable[str], budget: Budget, given: Price | None, earlier: Mapping[str, Price] = NONE
) -> dict[str, Price]:
    """A price for each model: its own where that is known, else the `given` one, else that of an `earlier` run, else
    none at a local address.

    Raises:
        InputError: the price of a model is not known, and not calls but dollars are capped.
    """
    prices = {}
    for model in models:
        if (price := price_for(model, given, earlier)) is not None:
            prices[model] = price
        elif budget.max_cost is not None or budget.max_calls is None:
            raise InputError(
                f"{model}: nobody knows its price; give --price IN,OUT ($ per million tokens), put it into "
                "prices.toml, or cap --max-calls instead of dollars"
            )
    return prices


def price_for(model: str, given: Price | None, earlier: Mapping[str, Price] = NONE) -> Price | None:
    """The price of one model, as of `prices_for`; None when it is not known."""
    return price_of(model) or given or earlier.get(model) or (_free if is_local(model) else None)


def assumed_free(models: Iterable[str], given: Price | None, earlier: Mapping[str, Price] = NONE) -> list[str]:
    """A line for each model that costs nothing only because its address is on this machine."""
    if given is not None:
        return []
    free = [model for model in models if model not in earlier and is_local(model) and price_of(model) is None]
    return [f"{model}: a local address, so $0 is assumed; --price IN,OUT says otherwise" for model in free]


def is_local(model: str) -> bool:
    """Whether the model's address is this machine's own: localhost, or a loopback address such as 127.0.0.1."""
    kind, _, rest = model.partition("/")
    if kind != "openai-compatible":
        return False
    from agent.models.openai import OpenAIServer

    server = OpenAIServer.compatible(rest.partition("@")[2])
    try:
        host = urlsplit(server.url if server else "").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _free(usage: Usage) -> float:
    return 0.0


def price_of(model: str) -> Price | None:
    """The price of a model as the user names it; None when it is not known. Models on this machine are free.

    The price list may name `langchain/openai:x` as `openai/x` too.

    Raises:
        ProblemsError: the price list has mistakes.
    """
    kind, _, rest = model.partition("/")
    if kind == "langchain":
        kind, _, rest = rest.partition(":")
    listed = read_price_list()
    if listed is not None and (price := listed.of(model) or listed.of(f"{kind}/{rest}")) is not None:
        return price
    if kind in ("local", "recorded", "scripted"):
        return _free
    if kind == "openai-compatible":
        return None
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    def bundled(usage: Usage) -> float:
        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_prompt_tokens,
            cache_write_tokens=usage.written_prompt_tokens,
        )
        return float(calc_price(tokens, rest, provider_id=kind).total_price)

    try:
        bundled(Usage(1, 1))
    except LookupError:
        return None
    return bundled


def fixed_price(dollars_in: float, dollars_out: float) -> Price:
    """A price that the user gives, in dollars per million tokens in and out.

    >>> round(fixed_price(1.0, 2.0)(Usage(1_000_000, 500_000)), 6)
    2.0
    """
    return lambda usage: (usage.prompt_tokens * dollars_in + usage.completion_tokens * dollars_out) / 1e6


BATCH_PART = 0.5
"""Of the price of a live call, what the same call costs in a batch: at OpenAI and Anthropic alike (November 2026)."""


def in_a_batch(worst: Spend) -> Spend:
    return replace(worst, usd=BATCH_PART * worst.usd)


def prices_version(unpriced: Sequence[str] = ()) -> str:
    """Which prices were used, for the ledger: `genai-prices 0.2.3; prices.toml sha256 ab12cd34; no price of MODEL`."""
    from importlib.metadata import version

    listed = read_price_list()
    own = [] if listed is None else [f"{listed.name} sha256 {listed.sha256[:8]}"]
    return "; ".join([f"genai-prices {version('genai-prices')}", *own, *(f"{NO_PRICE}{model}" for model in unpriced)])


# -- the price list ---------------------------------------------------------------------------------------------------

_AMOUNTS = ("input", "output", "cached_input", "cache_write")
_REQUIRED = ("model", "from", "input", "output")
_KEYS = (*_REQUIRED, "cached_input", "cache_write")

Fault = tuple[tuple[str | int, ...], str]
"""Where in the file, as a path of keys, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """The price of one model from the day `start` on, in dollars per million tokens."""

    model: str
    start: date
    input: float
    output: float
    cached_input: float
    cache_write: float

    def __call__(self, usage: Usage) -> float:
        """Dollars of these tokens."""
        cached, written = usage.cached_prompt_tokens, usage.written_prompt_tokens
        fresh = usage.prompt_tokens - cached - written
        prompt = fresh * self.input + cached * self.cached_input + written * self.cache_write
        return (prompt + usage.completion_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices of one file; the ledger names a run's by the file's digest."""

    name: str
    sha256: str
    prices: tuple[ListedPrice, ...]

    def of(self, model: str, today: date | None = None) -> ListedPrice | None:
        """The newest price of `model` that holds on `today` (UTC)."""
        day = today or datetime.now(UTC).date()
        valid = [price for price in self.prices if price.model == model and price.start <= day]
        return max(valid, key=lambda price: price.start, default=None)


def read_price_list() -> PriceList | None:
    """The user's price list, if any. Raises ProblemsError with all that is wrong in it."""
    named = os.environ.get("OPTIMIZE_PRICES")
    path = Path(named or "prices.toml")
    if not named and not path.exists():
        return None
    data, where = read_bytes(path), shown(path)
    text = decoded(data, where)
    raw = parse_toml(text, where)
    faults = list(_faults(raw))
    if faults:
        place = TomlLines(text)
        by_line = sorted((place.of(path), what) for path, what in faults)
        raise ProblemsError(tuple(problem(where, line, what) for line, what in by_line))
    prices = tuple(
        ListedPrice(table["model"], table["from"], *(float(table.get(name, table["input"])) for name in _AMOUNTS))
        for table in raw.get("price", [])
    )
    return PriceList(path.name, hashlib.sha256(data).hexdigest(), prices)


def _faults(raw: dict[str, Any]) -> Iterator[Fault]:
    yield from (((key,), f"unknown key {quoted(key)}{near(key, ['price'])}") for key in raw if key != "price")
    tables = raw.get("price", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        yield ("price",), "price: write each price as a table under [[price]]"
        return
    keys: set[tuple[Any, Any]] = set()
    for number, table in enumerate(tables):
        faults = list(_table_faults(table))
        yield from ((("price", number, *path), what) for path, what in faults)
        if not faults:
            model, start = key = table["model"], table["from"]
            if key in keys:
                yield ("price", number, "from"), f"a second price of {quoted(model)} from {start}; keep one of the two"
            keys.add(key)


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


_FORMS = {
    "model": 'write it as on the command line, such as "openai/gpt-4o-mini"',
    "from": "write a day without quotes, such as 2026-11-01",
    **dict.fromkeys(_AMOUNTS, "write dollars per million tokens, 0 or more"),
}
