"""Every event is passed to each of several observers, in their order, whatever it is."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from agent.observer import Observer, Observers
from tests.cases import each_case

METHODS = [name for name in vars(Observer) if name.startswith("on_")]


class Recorder(Observer):
    """Writes down each call of a method with the observer's name."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        def recorded(method: str) -> Any:
            return lambda *arguments: calls.append((name, method, arguments))

        for method in METHODS:
            setattr(self, method, recorded(method))


@each_case("method", METHODS)
def test_each_observer_gets_what_happens_in_their_order(method: str) -> None:
    calls: list[Any] = []
    arguments = tuple(object() for _ in list(inspect.signature(getattr(Observer, method)).parameters)[1:])
    getattr(Observers(Recorder("ledger", calls), Recorder("display", calls)), method)(*arguments)
    assert calls == [("ledger", method, arguments), ("display", method, arguments)]


def test_what_the_first_observer_raises_is_raised_and_the_others_get_nothing() -> None:
    class Broken(Observer):
        def on_message(self, line: str) -> None:
            raise OSError(line)

    calls: list[Any] = []
    with pytest.raises(OSError, match="full"):
        Observers(Broken(), Recorder("display", calls)).on_message("full")
    assert calls == []
