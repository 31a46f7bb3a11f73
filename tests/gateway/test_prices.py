"""Prices: known ones are positive, the user's own are exact, and none is guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.gateway.prices import (
    assumed_free,
    fixed_price,
    in_a_batch,
    price_of,
    prices_for,
    prices_version,
    read_price_list,
)
from agent.types import Budget, Spend, Usage

MINI, SONNET, HERE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "openai-compatible/m@http://127.0.0.1:1/v1"
THERE = "openai-compatible/m@http://h/v1"
MILLION = 10**6


def cost(name: str, *usage: int) -> float:
    price = price_of(name)
    assert price is not None
    return price(Usage(*usage))


@pytest.mark.parametrize("name", [MINI, "langchain/openai:gpt-4o-mini", "anthropic/claude-3-5-haiku-latest"])
def test_a_known_model_costs_more_the_more_it_reads_and_writes(name: str) -> None:
    assert 0 < cost(name, 1000, 0) < cost(name, 2000, 0) < cost(name, 2000, 1000)
    assert cost(name, 1000, 0, 1000) < cost(name, 1000, 0), "cached tokens are cheaper"


def test_anthropics_cache_writes_cost_a_quarter_more() -> None:
    assert cost(SONNET, 10_000, 0, 0, 10_000) == pytest.approx(1.25 * cost(SONNET, 10_000, 0)) == pytest.approx(0.0375)
    assert cost(MINI, 10_000, 0, 0, 10_000) == cost(MINI, 10_000, 0)


def test_models_on_this_machine_are_free_and_an_unknown_price_is_none() -> None:
    for name in ("local/smollm2-135m", "local/a.gguf", "scripted/f.jsonl"):
        assert cost(name, MILLION, MILLION) == 0.0
    for name in ("openai/no-such-model-at-all", "openai-compatible/gpt-4o@http://h/v1", "nobody/x"):
        assert price_of(name) is None


def test_a_given_price_is_for_unknown_models_and_an_earlier_one_and_a_local_address_come_after_it() -> None:
    models, usage = [HERE, THERE, MINI, "local/smollm2-135m"], Usage(500_000, 250_000)
    given, earlier = fixed_price(2.0, 8.0), {THERE: fixed_price(1.0, 0.0)}
    found = prices_for(models, Budget(max_cost=1.0), given, earlier)
    assert [found[name](usage) for name in models] == pytest.approx([3.0, 3.0, cost(MINI, 500_000, 250_000), 0.0])
    found = prices_for(models, Budget(max_cost=1.0), None, earlier)
    assert [found[name](usage) for name in models[:2]] == [0.0, 0.5]
    assert [line.partition(": ")[0] for line in assumed_free(models, None, earlier)] == [HERE]
    assert assumed_free(models, given) == assumed_free([HERE], None, {HERE: given}) == []
    assert prices_for([THERE], Budget(max_calls=9), None) == {}
    for budget in (Budget(), Budget(max_calls=9, max_cost=1.0)):
        with pytest.raises(InputError, match=rf"^{re.escape(THERE)}: unknown price; give --price"):
            prices_for([THERE], budget, None)
    assert in_a_batch(Spend(1, 10, 3.0)) == Spend(1, 10, 1.5)


# -- the user's price list ---------------------------------------------------------------------------------------------


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Writes the price list of the current folder."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "prices.toml").write_text


def entry(model: str = MINI, start: str = "2020-01-01", **amounts: float) -> str:
    lines = [f"{key} = {value}" for key, value in ({"input": 1.0, "output": 2.0} | amounts).items()]
    return "\n".join(["[[price]]", f'model = "{model}"', f"from = {start}", *lines, ""])


def test_a_listed_price_wins_over_bundled_and_given_ones(prices: Any) -> None:
    prices(
        entry(input=100, output=300) + entry(THERE, input=3) + entry("local/smollm2-135m") + entry("langchain/own:m")
    )
    assert cost(MINI, MILLION, MILLION) == pytest.approx(400.0)
    assert cost("langchain/openai:gpt-4o-mini", MILLION, 0) == pytest.approx(100.0)
    assert cost("openai/gpt-4o", MILLION, 0) < 100
    assert [cost(name, MILLION, 0) for name in ("local/smollm2-135m", "langchain/own:m")] == [1.0, 1.0]
    found = prices_for([THERE], Budget(max_cost=1.0), fixed_price(1.0, 1.0))
    assert found[THERE](Usage(MILLION)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("amounts", "dollars"),
    [({}, 1.0), ({"cached_input": 0.5}, 0.8), ({"cached_input": 0.5, "cache_write": 1.25}, 0.4 + 0.2 + 0.25)],
)
def test_cached_and_written_tokens_have_their_price_or_that_of_the_others(
    prices: Any, amounts: dict[str, float], dollars: float
) -> None:
    prices(entry(SONNET, **amounts))
    assert cost(SONNET, MILLION, 0, 400_000, 200_000) == pytest.approx(dollars)


def test_the_newest_price_that_is_valid_today_counts(prices: Any) -> None:
    prices("".join(entry(start=f"{day}-01", input=n) for day, n in (("2026-03", 3), ("2026-01", 1), ("9999-12", 9))))
    found = read_price_list()
    assert found is not None
    days = {date(2025, 12, 31): None, date(2026, 1, 1): 1.0, date(2026, 2, 28): 1.0, date(2026, 3, 1): 3.0}
    for day, amount in days.items():
        held = found.of(MINI, day)
        assert (held and held.input) == amount
    assert cost(MINI, MILLION, 0) == 3.0


def test_the_variable_names_another_file_that_must_exist(
    prices: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices(entry())
    other = tmp_path / "other.toml"
    other.write_text(entry(input=7))
    monkeypatch.setenv("OPTIMIZE_PRICES", str(other))
    assert cost(MINI, MILLION, 0) == pytest.approx(7.0)
    other.unlink()
    with pytest.raises(InputError, match=r"other\.toml:1: no such file"):
        price_of(MINI)


def test_the_version_changes_with_the_list_and_names_models_without_a_price(prices: Any) -> None:
    bundled = prices_version()
    assert re.fullmatch(r"genai-prices [\d.]+", bundled)
    prices(entry())
    one = prices_version(["m"])
    assert re.fullmatch(re.escape(bundled) + r"; prices\.toml sha256 [0-9a-f]{8}; no price of m", one)
    prices(entry(input=5))
    assert prices_version(["m"]) != one


def test_all_mistakes_are_reported_at_once_with_their_lines(prices: Any) -> None:
    prices(
        '[[price]]\nmodel = ""\nfrom = "2026-11-01"\ninput = -1\noutput = nan\ncached_input = true\n'
        '[[price]]\nmodle = "openai/x"\nfrom = 2026-11-01T00:00:00\ninput = 1\noutput = inf\n'
        f"{entry()}{entry()}[prices]\nx = 1\n"
    )
    with pytest.raises(InputError) as caught:
        price_of(MINI)
    lines = [line.split(":")[1] for line in str(caught.value).split("\n")]
    assert lines == ["2", "3", "4", "5", "6", "7", "8", "9", "11", "19", "22"]
    assert "did you mean 'model'?" in str(caught.value)
    assert "did you mean 'price'?" in str(caught.value)


@pytest.mark.parametrize("text", ["price = 3", "[price]\nx = 1", "[[price]\n", "price = [1]", "[[price]]\n"])
def test_a_file_of_another_shape_is_refused_with_its_line(prices: Any, text: str) -> None:
    prices(text)
    with pytest.raises(InputError, match=r"^prices\.toml:\d+: "):
        read_price_list()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_price_list_or_a_mistake_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("prices") / "p.toml"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, suppress(InputError):
        patch.setenv("OPTIMIZE_PRICES", str(path))
        read_price_list()
