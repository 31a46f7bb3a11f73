"""Which strategies there are, by the name that the command line takes. Each is loaded only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agent.errors import InputError
from agent.search.lab import Lab

Strategy = Callable[[Lab], Coroutine[Any, Any, None]]

DEFAULT = "bayes"
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")
NAMES = (DEFAULT, *DSPY)


def strategy(name: str) -> Strategy:
    """The search of that name. Raises InputError for a name that is none of NAMES."""
    if name in DSPY:
        from agent.search import dspy_strategies

        return partial(dspy_strategies.search, method=name)
    if name != DEFAULT:
        raise InputError(f"--strategy {name}: there are {', '.join(NAMES)}")
    from agent.search import bayes

    return bayes.search
