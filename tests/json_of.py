"""Results as the JSON that `--json` prints, for tests that look at its keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from agent.results.base import Result


def plain(value: Any) -> Any:
    """Results as JSON objects, also those in lists."""
    if isinstance(value, Result):
        return value.to_json()
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def json_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with results as JSON objects."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        return plain(function(*arguments, **named))

    return called
