"""What a call costs, in US dollars. The user's own price list comes first, then the prices bundled with the package
genai-prices: nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit

from agent.errors import InputError
from agent.gateway.pricelist import Entry, read_price_list
from agent.ledger.query import NO_PRICE
from agent.types import Budget, Usage

Price = Callable[[Usage], float]
"""Tokens of one call -> dollars."""

NONE: Mapping[str, Price] = MappingProxyType({})


def prices_for(
    models: Iterable[str], budget: Budget, given: Price | None, earlier: Mapping[str, Price] = NONE
) -> dict[str, Price]:
    """A price for each model: its own where that is known, else the `given` one, else that of an `earlier` run, else
    none at a local address.

    Raises InputError for a model whose price is not known, unless calls and not dollars are capped.
    """
    prices = {}
    for model in models:
        price = price_of(model) or given or earlier.get(model) or (_free if is_local(model) else None)
        if price is not None:
            prices[model] = price
        elif budget.max_cost is not None or budget.max_calls is None:
            raise InputError(
                f"{model}: nobody knows its price; give --price IN,OUT ($ per million tokens), put it into "
                "prices.toml, or cap --max-calls instead of dollars"
            )
    return prices


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
    try:
        host = urlsplit(rest.partition("@")[2]).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _free(usage: Usage) -> float:
    return 0.0


def price_of(model: str) -> Price | None:
    """The price of the model that the user named, or None when it is not known. Models on this machine are free.

    The price list may name `langchain/openai:x` as `openai/x` too. Raises InputError for a price list with mistakes.
    """
    kind, _, rest = model.partition("/")
    if kind == "langchain":
        kind, _, rest = rest.partition(":")
    if (listed := read_price_list()) is not None:
        entry = listed.of(model) or listed.of(f"{kind}/{rest}")
        if entry is not None:
            return _listed_price(entry)
    if kind in ("local", "scripted"):
        return _free
    if kind == "openai-compatible":
        return None
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    def price(usage: Usage) -> float:
        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_prompt_tokens,
            cache_write_tokens=usage.written_prompt_tokens,
        )
        return float(calc_price(tokens, rest, provider_id=kind).total_price)

    try:
        price(Usage(1, 1))
    except LookupError:
        return None
    return price


def fixed_price(dollars_in: float, dollars_out: float) -> Price:
    """A price that the user gives, in dollars per million tokens in and out."""
    return lambda usage: (usage.prompt_tokens * dollars_in + usage.completion_tokens * dollars_out) / 1e6


def prices_version(unpriced: Sequence[str] = ()) -> str:
    """Which prices were used, for the ledger: `genai-prices 0.2.3; prices.toml sha256 ab12cd34; no price of MODEL`."""
    from importlib.metadata import version

    bundled = f"genai-prices {version('genai-prices')}"
    listed = read_price_list()
    known = [bundled] if listed is None else [bundled, f"{listed.name} sha256 {listed.sha256[:8]}"]
    return "; ".join([*known, *(f"{NO_PRICE}{model}" for model in unpriced)])


def _listed_price(entry: Entry) -> Price:
    def price(usage: Usage) -> float:
        cached, written = usage.cached_prompt_tokens, usage.written_prompt_tokens
        fresh = usage.prompt_tokens - cached - written
        prompt = fresh * entry.input + cached * entry.cached_input + written * entry.cache_write
        return (prompt + usage.completion_tokens * entry.output) / 1e6

    return price
