"""Prices: known ones are positive, the user's own are exact, and nobody's is guessed."""

import re
from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.gateway.prices import fixed_price, price_of, prices_for, prices_version, read_price_list
from agent.types import Budget, Usage


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


def test_a_price_given_by_hand_is_for_those_that_nobody_knows():
    unknown, known = "openai-compatible/m@http://127.0.0.1:1/v1", "openai/gpt-4o-mini"
    found = prices_for([unknown, known, "local/smollm2-135m"], Budget(max_cost=1.0), fixed_price(0.0, 1.0))
    usage = Usage(10**6, 10**6)
    assert found[unknown](usage) == pytest.approx(1.0)
    assert found[known](usage) == price_of(known)(usage) != pytest.approx(1.0)
    assert found["local/smollm2-135m"](usage) == 0.0


# -- the user's own list -----------------------------------------------------------------------------------------------


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """Writes the price list of the current folder."""
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "prices.toml").write_text


def entry(model="openai/gpt-4o-mini", start="2026-11-01", **amounts):
    lines = [f"{key} = {value}" for key, value in ({"input": 1.0, "output": 2.0} | amounts).items()]
    return "\n".join(["[[price]]", f'model = "{model}"', f"from = {start}", *lines, ""])


def test_the_users_price_wins_over_the_bundled_one(prices):
    bundled = price_of("openai/gpt-4o-mini")(Usage(10**6, 10**6))
    prices(entry(start="2020-01-01", input=100, output=300))
    assert bundled < 100
    assert price_of("openai/gpt-4o-mini")(Usage(10**6, 10**6)) == pytest.approx(400.0)
    assert price_of("langchain/openai:gpt-4o-mini")(Usage(10**6, 0)) == pytest.approx(100.0)
    assert price_of("openai/gpt-4o")(Usage(10**6, 0)) < 100


@pytest.mark.parametrize("name", ["openai-compatible/m@http://127.0.0.1:1/v1", "langchain/own:m", "local/smollm2-135m"])
def test_any_name_can_have_a_price(prices, name):
    prices(entry(name, "2020-01-01"))
    assert price_of(name)(Usage(10**6, 0)) == pytest.approx(1.0)


def test_the_users_list_goes_before_a_price_given_by_hand(prices):
    prices(entry("openai-compatible/m@http://h/v1", "2020-01-01", input=3))
    found = prices_for(["openai-compatible/m@http://h/v1"], Budget(max_cost=1.0), fixed_price(1.0, 1.0))
    assert found["openai-compatible/m@http://h/v1"](Usage(10**6)) == pytest.approx(3.0)


def test_cached_tokens_have_their_own_price_or_that_of_the_others(prices):
    usage = Usage(10**6, 0, 400_000)
    prices(entry(start="2020-01-01", cached_input=0.5))
    assert price_of("openai/gpt-4o-mini")(usage) == pytest.approx(0.6 + 0.2)
    prices(entry(start="2020-01-01"))
    assert price_of("openai/gpt-4o-mini")(usage) == pytest.approx(1.0)


def test_tokens_that_are_written_to_the_cache_have_their_own_price_or_that_of_the_others(prices):
    usage = Usage(10**6, 0, 400_000, 200_000)
    prices(entry("anthropic/claude-sonnet-4-5", "2020-01-01", cached_input=0.5, cache_write=1.25))
    assert price_of("anthropic/claude-sonnet-4-5")(usage) == pytest.approx(0.4 + 0.2 + 0.25)
    prices(entry("anthropic/claude-sonnet-4-5", "2020-01-01"))
    assert price_of("anthropic/claude-sonnet-4-5")(usage) == pytest.approx(1.0)


def test_anthropics_cache_is_written_at_a_quarter_more_than_it_costs_to_read_the_tokens_once():
    price = price_of("anthropic/claude-sonnet-4-5")
    fresh, written = price(Usage(10_000)), price(Usage(10_000, written_prompt_tokens=10_000))
    assert written == pytest.approx(1.25 * fresh) == pytest.approx(0.0375)
    openai = price_of("openai/gpt-4o-mini")
    assert openai(Usage(10_000, written_prompt_tokens=10_000)) == openai(Usage(10_000))


def test_the_newest_day_that_has_come_counts(prices):
    prices(entry(start="2026-03-01", input=3) + entry(start="2026-01-01", input=1) + entry(start="2026-09-01", input=9))
    found = read_price_list()
    days = {date(2025, 12, 31): None, date(2026, 1, 1): 1.0, date(2026, 2, 28): 1.0, date(2026, 3, 1): 3.0}
    for day, amount in days.items():
        held = found.of("openai/gpt-4o-mini", day)
        assert (held and held.input) == amount


def test_a_price_of_the_future_does_not_count_yet(prices):
    bundled = price_of("openai/gpt-4o-mini")(Usage(10**6, 0))
    prices(entry(start="9999-12-31", input=100))
    assert price_of("openai/gpt-4o-mini")(Usage(10**6, 0)) == bundled


def test_the_variable_names_another_file_which_must_be_there(prices, tmp_path, monkeypatch):
    prices(entry(start="2020-01-01"))
    other = tmp_path / "other.toml"
    other.write_text(entry(start="2020-01-01", input=7))
    monkeypatch.setenv("OPTIMIZE_PRICES", str(other))
    assert price_of("openai/gpt-4o-mini")(Usage(10**6, 0)) == pytest.approx(7.0)
    other.unlink()
    with pytest.raises(InputError, match=r"other\.toml:1: no such file"):
        price_of("openai/gpt-4o-mini")


def test_the_version_changes_with_the_list(prices):
    bundled = prices_version()
    assert re.fullmatch(r"genai-prices [\d.]+", bundled)
    prices(entry())
    one = prices_version()
    assert re.fullmatch(re.escape(bundled) + r"; prices\.toml sha256 [0-9a-f]{8}", one)
    prices(entry(input=5))
    assert prices_version() != one


def test_all_mistakes_are_told_at_once_each_with_its_line(prices):
    prices(
        '[[price]]\nmodel = ""\nfrom = "2026-11-01"\ninput = -1\noutput = nan\ncached_input = true\n'
        '[[price]]\nmodle = "openai/x"\nfrom = 2026-11-01T00:00:00\ninput = 1\noutput = inf\n'
        + entry()
        + entry()
        + "[prices]\nx = 1\n"
    )
    with pytest.raises(InputError) as caught:
        price_of("openai/gpt-4o-mini")
    told = [line.removeprefix("prices.toml:") for line in str(caught.value).split("\n")]
    assert [told_line.partition(":")[0] for told_line in told] == [
        *["2", "3", "4", "5", "6", "7", "8", "9", "11", "19", "22"]
    ]
    assert "did you mean 'model'?" in str(caught.value)
    assert "did you mean 'price'?" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["price = 3", "[price]\nx = 1", "[[price]\n", "[[price]]\nfrom = 2026-13-45\n", "price = [1]", "[[price]]\n"],
)
def test_a_file_of_another_shape_is_refused_with_its_line(prices, text):
    prices(text)
    with pytest.raises(InputError, match=r"^prices\.toml:\d+: "):
        read_price_list()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_price_list_or_a_mistake_of_the_user(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("prices") / "p.toml"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, suppress(InputError):
        patch.setenv("OPTIMIZE_PRICES", str(path))
        read_price_list()
