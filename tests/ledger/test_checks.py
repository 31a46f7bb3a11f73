"""Calls, tokens and dollars of a result: a request that was refused with 429 is no call."""

from __future__ import annotations

from typing import Any

import pytest

from agent.ledger.checks import charges


def call(state: str, error_class: str | None = None) -> dict[str, Any]:
    tokens = {"prompt_tokens": 5, "completion_tokens": 1} if state == "ok" else {}
    empty = {"prompt_tokens": 0, "completion_tokens": 0}
    return {"role": "model", "state": state, "error_class": error_class, "cost_usd": 0.0, **empty, **tokens}


def result(calls: int, **more: int) -> dict[str, Any]:
    counts = {"model": calls, "proposer": 0, "judge": 0, "cached": 0}
    return {"calls": counts, "tokens": {"prompt": 5, "completion": 1}, "cost_usd": 0.0, **more}


@pytest.mark.parametrize(
    ("told", "holds"), [(result(1, limited=2), True), (result(3, limited=2), False), (result(1, limited=1), False)]
)
def test_a_429_is_no_call(told: dict[str, Any], holds: bool) -> None:
    calls = [call("ok"), call("error", "rate_limit"), call("error", "rate_limit"), call("error", "not_sent")]
    assert charges({"result": told, "prices": ""}, calls).ok is holds
