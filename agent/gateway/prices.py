"""What a call costs, in US dollars. Prices come bundled with the package genai-prices: nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable

from agent.types import Usage

Price = Callable[[Usage], float]
"""Tokens of one call -> dollars."""


def price_of(model: str) -> Price | None:
    """The price of the model that the user named, or None when nobody knows it. Models on this machine are free."""
    kind, _, rest = model.partition("/")
    if kind in ("local", "scripted"):
        return lambda usage: 0.0
    if kind == "langchain":
        kind, _, rest = rest.partition(":")
    if kind == "openai-compatible":
        return None
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    def price(usage: Usage) -> float:
        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_prompt_tokens,
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
