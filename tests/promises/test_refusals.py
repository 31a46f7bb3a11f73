"""What is wrong with a command is said before any model is asked, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.jobs import JOBS
from agent.jobs.registry import JobSpec
from agent.options.option import Option
from tests.cli.world import optimize
from tests.promises.asking import CASES, EXEMPT, asks, contents, has, typed, words_of
from tests.promises.conftest import Fresh

MODELS = ("model", "models", "judge", "proposer")


def test_every_job_that_asks_models_is_checked() -> None:
    assert {name for name in JOBS.names() if asks(name)} == {*CASES, *EXEMPT}


def wrong_values(spec: JobSpec, option: Option) -> Iterator[str]:
    """Values that an option of this declaration must refuse."""
    if option.name in MODELS:
        yield "gpt-9"
    if option.name in spec.registries or option.choices:
        yield "no-such"
    if option.reading is not None:
        try:
            option.reading.parse("x")
        except ValueError:
            yield "x"
    elif option.kind in (int, float):
        yield "x"
        if (least := option.bound("ge")) is not None:
            yield str(option.kind(least - 1))
        if (above := option.bound("gt")) is not None:
            yield str(option.kind(above))
        if (most := option.bound("le")) is not None:
            yield str(option.kind(most) * 2 + 1)
    if option.name == "db":
        yield "."


def wrong_words(name: str) -> Iterator[list[str]]:
    """What is added to a good command, so that it must be refused."""
    spec = JOBS.get(name)
    for model in spec.models.values():
        for option in model.declared().values():
            yield from ([option.flag, value] for value in wrong_values(spec, option))
    yield ["--no-such-option"]
    if has(name, "batch_wait") and has(name, "batch"):
        yield ["--batch-wait", "1h"]


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_option_is_refused_before_any_call(name: str, again: Fresh) -> None:
    asked, before = again(), contents(Path())
    cases = list(wrong_words(name))
    assert len(cases) > 5
    for more in cases:
        done = typed(name, *more)
        assert (done.exit_code, done.stdout) == (2, ""), (more, done.output)
        assert done.stderr, more
    assert (asked.calls, contents(Path())) == (0, before)


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_there_is_refused_before_any_call(name: str, again: Fresh) -> None:
    asked, before, words = again(), contents(Path()), words_of(name)
    first, *others = words[len(name.split()) :]
    missing = [["nowhere", *others]] if not first.startswith("-") and name != "init" else []
    for number, word in enumerate(words):
        if Path(word).is_file():
            missing.append([*words[len(name.split()) : number], "none.csv", *words[number + 1 :]])
    for changed in missing:
        done = optimize(*name.split(), *changed)
        assert (done.exit_code, done.stdout) == (2, ""), (changed, done.output)
        assert "nowhere" in done.stderr or "none.csv" in done.stderr
    assert (asked.calls, contents(Path())) == (0, before)


@pytest.mark.parametrize("name", [name for name in CASES if has(name, "price")])
def test_a_cap_in_dollars_needs_a_price(name: str, again: Fresh) -> None:
    asked = again()
    done = typed(name, "--max-cost", "1", is_paid=False)
    if "toy/asked" in CASES[name]:  # the price of other models is on record
        assert done.exit_code == 2
        assert "--price" in done.stderr
        assert asked.calls == 0
