"""Price of a call in US dollars: the user's price list first, then the prices bundled with genai-prices.

Nothing is downloaded. The price list is `prices.toml` in the current folder, or the file named by OPTIMIZE_PRICES:

    [[price]]
    model = "openai/x"
    from = 2026-11-01      # first day on which the price is valid
    input = 0.15           # dollars per million tokens
    output = 0.6
    cached_input = 0.075   # tokens read from the provider's cache; default: as `input`
    cache_write = 0.19     # tokens written to the provider's cache (Anthropic); default: as `input`
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import InputError, ProblemsError
from agent.ledger.query import NO_PRICE
from agent.safe_data import KeyPath, TomlLines, parse_toml
from agent.safe_file import decoded, read_bytes
from agent.safe_text import near, problem, quoted, shown
from agent.types import Budget, Spend, Usage

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Price = Callable[[Usage], float]  # tokens of one call -> dollars

NONE: Mapping[str, Price] = MappingProxyType({})


def prices_for(
    models: Iterable[str], budget: Budget, given: Price | None, earlier: Mapping[str, Price] = NONE
) -> dict[str, Price]:
    """Map models to prices. Raises InputError for an unknown one unless calls, and not dollars, are capped."""
    prices = {}
    for model in models:
        if (price := price_for(model, given, earlier)) is not None:
            prices[model] = price
        elif budget.max_cost is not None or budget.max_calls is None:
            raise InputError(
                f"{model}: unknown price; give --price IN,OUT ($ per million tokens), add it to prices.toml, "
                "or cap --max-calls"
            )
    return prices


def price_for(model: str, given: Price | None, earlier: Mapping[str, Price] = NONE) -> Price | None:
    """Return the price of one model, as in `prices_for`; None if unknown."""
    return price_of(model) or given or earlier.get(model) or (_free if is_local(model) else None)


def assumed_free(models: Iterable[str], given: Price | None, earlier: Mapping[str, Price] = NONE) -> list[str]:
    """Return a line for each model priced at $0 only because its address is local."""
    if given is not None:
        return []
    free = [model for model in models if model not in earlier and is_local(model) and price_of(model) is None]
    return [f"{model}: local address, priced at $0; set --price IN,OUT if it is not free" for model in free]


def is_local(model: str) -> bool:
    """Return whether the model's address is localhost or a loopback address."""
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
    """Return the price of a model by its name; None if unknown. Raises ProblemsError for a bad price list."""
    kind, _, rest = model.partition("/")
    if kind == "langchain":
        kind, _, rest = rest.partition(":")
    listed = read_price_list()
    if listed is not None and (price := listed.of(model) or listed.of(f"{kind}/{rest}")) is not None:
        return price
    if kind in ("local", "recorded", "scripted"):
        return _free
    if kind == "command":  # of the user's own, which reports what it costs
        return lambda usage: usage.usd
    if kind == "openai-compatible":
        return None
    import genai_prices

    def bundled(usage: Usage) -> float:
        tokens = genai_prices.Usage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_prompt_tokens,
            cache_write_tokens=usage.written_prompt_tokens,
        )
        return float(genai_prices.calc_price(tokens, rest, provider_id=kind).total_price)

    try:
        bundled(Usage(1, 1))
    except LookupError:
        return None
    return bundled


def fixed_price(dollars_in: float, dollars_out: float) -> Price:
    """Return a price from dollars per million tokens in and out.

    >>> round(fixed_price(1.0, 2.0)(Usage(1_000_000, 500_000)), 6)
    2.0
    """
    return lambda usage: (usage.prompt_tokens * dollars_in + usage.completion_tokens * dollars_out) / 1e6


def dearest_call(price: Price, tokens_in: int, max_tokens: int) -> float:
    """Return the most dollars a call can cost. The prompt is billed as new, or as a cache write."""
    written = Usage(tokens_in, max_tokens, written_prompt_tokens=tokens_in)
    return max(price(Usage(tokens_in, max_tokens)), price(written))


BATCH_PART = 0.5  # price of a batched call as a share of a live one, at OpenAI and Anthropic alike (November 2026)


def in_a_batch(worst: Spend) -> Spend:
    return replace(worst, usd=BATCH_PART * worst.usd)


def prices_version(unpriced: Sequence[str] = ()) -> str:
    """Describe the prices used: `genai-prices 0.2.3; prices.toml sha256 ab12cd34; no price of MODEL`."""
    listed = read_price_list()
    own = [] if listed is None else [f"{listed.name} sha256 {listed.sha256[:8]}"]
    return "; ".join([f"genai-prices {version('genai-prices')}", *own, *(f"{NO_PRICE}{model}" for model in unpriced)])


# -- the price list ---------------------------------------------------------------------------------------------------


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # dollars per million tokens


class ListedPrice(BaseModel):
    """The price of one model from the day `start` on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Annotated[str, Field(pattern=r"\S")]
    start: date = Field(alias="from")
    input: Amount
    output: Amount
    cached_input: Amount | None = None
    cache_write: Amount | None = None

    def __call__(self, usage: Usage) -> float:
        cached, written = usage.cached_prompt_tokens, usage.written_prompt_tokens
        fresh = usage.prompt_tokens - cached - written
        of_cached = self.input if self.cached_input is None else self.cached_input
        of_written = self.input if self.cache_write is None else self.cache_write
        prompt = fresh * self.input + cached * of_cached + written * of_written
        return (prompt + usage.completion_tokens * self.output) / 1e6


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    price: list[ListedPrice] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices of one file, identified in the ledger by its digest."""

    name: str
    sha256: str
    prices: tuple[ListedPrice, ...]

    def of(self, model: str, today: date | None = None) -> ListedPrice | None:
        """Return the newest price of `model` valid on `today` (UTC)."""
        day = today or datetime.now(UTC).date()
        valid = [price for price in self.prices if price.model == model and price.start <= day]
        return max(valid, key=lambda price: price.start, default=None)


def read_price_list() -> PriceList | None:
    """Read the user's price list, if any. Raises ProblemsError with all its problems."""
    named = os.environ.get("OPTIMIZE_PRICES")
    path = Path(named or "prices.toml")
    if not named and not path.exists():
        return None
    data, where = read_bytes(path), shown(path)
    text = decoded(data, where)
    raw = parse_toml(text, where)
    problems, prices = dict[KeyPath, str](), list[ListedPrice]()
    try:
        prices = _PriceFile.model_validate(raw).price
    except ValidationError as error:
        problems = {each["loc"]: _said(each) for each in error.errors()}
    tables = raw["price"] if isinstance(raw.get("price"), list) else []
    keys = [(table.get("model"), table.get("from")) if isinstance(table, dict) else ("", "") for table in tables]
    for number, (model, start) in enumerate(keys):
        if model and (model, start) in keys[:number]:
            problems["price", number, "from"] = f"a second price of {quoted(model)} from {start}; keep one of the two"
    if problems:
        lines = TomlLines(text)
        by_line = sorted((lines.of(path), what) for path, what in problems.items())
        raise ProblemsError(tuple(problem(where, line, what) for line, what in by_line))
    return PriceList(path.name, hashlib.sha256(data).hexdigest(), tuple(prices))


def _said(error: ErrorDetails) -> str:
    key = str(error["loc"][-1])
    if error["type"] == "extra_forbidden":
        return f"unknown key {quoted(key)}{near(key, _FORMS if len(error['loc']) > 1 else ['price'])}"
    if key not in _FORMS:
        return "price: write each price as a table under [[price]]"
    what, form = _FORMS[key]
    wrong = "missing" if error["type"] == "missing" else f"{quoted(error['input'])} is not a valid {what}"
    return f"{key}: {wrong}; {form}"


_FORMS = {
    "model": ("name", 'write it as on the command line, such as "openai/gpt-4o-mini"'),
    "from": ("date", "write a day without quotes, such as 2026-11-01"),
    **dict.fromkeys(
        ("input", "output", "cached_input", "cache_write"), ("amount", "write dollars per million tokens, 0 or more")
    ),
}
