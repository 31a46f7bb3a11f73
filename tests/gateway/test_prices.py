"""Prices: known ones are positive, the user's own are exact, and nobody's is guessed."""

import pytest

from agent.gateway.prices import fixed_price, price_of
from agent.types import Usage


@pytest.mark.parametrize(
    "name", ["openai/gpt-4o-mini", "langchain/openai:gpt-4o-mini", "anthropic/claude-3-5-haiku-latest"]
)
def test_a_known_model_costs_more_the_more_it_reads_and_writes(name):
    price = price_of(name)
    assert price is not None
    assert 0 < price(Usage(1000, 0)) < price(Usage(2000, 0)) < price(Usage(2000, 1000))


def test_cached_prompt_tokens_cost_less_than_others():
    price = price_of("openai/gpt-4o-mini")
    assert price is not None
    assert price(Usage(1000, 0, 1000)) < price(Usage(1000, 0))


@pytest.mark.parametrize("name", ["openai/no-such-model-at-all", "openai-compatible/gpt-4o@http://h/v1", "nobody/x"])
def test_an_unknown_price_is_none(name):
    assert price_of(name) is None


@pytest.mark.parametrize("name", ["local/smollm2-135m", "local/a.gguf", "scripted/f.jsonl"])
def test_models_on_this_machine_are_free(name):
    price = price_of(name)
    assert price is not None
    assert price(Usage(10**6, 10**6)) == 0.0


def test_a_price_given_by_hand_is_per_million_tokens():
    assert fixed_price(2.0, 8.0)(Usage(500_000, 250_000)) == pytest.approx(3.0)
