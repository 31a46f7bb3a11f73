"""The command line against providers that bill more than was reserved, or refuse and ask for no wait."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.cli.world import Answer, compatible, files, good, good_json, learner, optimize, refused
from tests.wire import Fault, WireServer

HIDDEN = 8000
"""Tokens that the provider bills for reasoning that nobody sees, in every reply."""
PRICE = ("--price", "1,2")


def hidden(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """The learner's answer, billed with HIDDEN tokens more."""
    text = learner(messages, body)
    prompt = sum(len(message["content"].split()) for message in messages)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": prompt, "completion_tokens": HIDDEN, "total_tokens": prompt + HIDDEN}
    return Fault(body={"id": "c", "object": "chat.completion", "model": "x", "choices": [choice], "usage": usage})


def failing_after(count: int, answer: Answer) -> Answer:
    """`answer`, and from request `count` on a key that is refused."""
    seen = 0

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal seen
        seen += 1
        return Fault(401) if seen > count else answer(messages, body)

    return reply


def trials(db: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(db) as ledger:
        return ledger.execute("SELECT number, candidate_id, state, n, mean FROM trials ORDER BY number").fetchall()


@pytest.mark.parametrize(
    ("cap", "told"),
    [
        (("--max-cost", "0.005", *PRICE), r"which passes the cap (max_cost = 0.005) by $"),
        (("--max-tokens", "4100", *PRICE), r"which passes the cap (max_tokens = 4100) by "),
    ],
)
def test_a_cap_is_passed_by_the_first_call_alone_and_the_end_says_by_how_much(cap: tuple[str, ...], told: str) -> None:
    options = ("--proposer", "none", "--effort", "quick", "--trials", "7", "--limit", "36-10-14")
    with WireServer(hidden) as server:
        result = optimize(*files(120), "-n", "1", "-m", compatible(server), *options, *cap)
        requests = len(server.requests)
    assert (result.exit_code, requests) == (1, 1), result.stderr
    (said,) = [line for line in result.stderr.splitlines() if ": a reply cost " in line]
    assert "times its reservation: " in said
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: paid ")
    assert told in error
    assert "because replies cost up to" in error
    assert result.stderr.splitlines()[-1].startswith("optimize resume ")


def test_a_run_that_pays_more_than_was_reserved_and_is_resumed_makes_the_same_trials() -> None:
    command = (*files(120), "--proposer", "none", "--max-cost", "9", *PRICE, "--max-calls", "150", "-q")
    with WireServer(hidden) as server:
        whole = good_json(*command, "-m", compatible(server), "--db", "whole/l.db")
    with WireServer(failing_after(70, hidden)) as server:
        refused(1, *command, "-m", compatible(server), "--db", "cut/l.db")
        server._reply = hidden
        resumed = good_json("resume", "--db", "cut/l.db", "-q")
    assert trials("cut/l.db") == trials("whole/l.db")
    for name in ("baseline", "winner", "lift", "decision", "overspent"):
        assert resumed[name] == whole[name]
    assert whole["overspent"] == ""


def test_a_provider_that_refuses_and_asks_for_no_wait_ends_the_run_by_the_longest_wait() -> None:
    with WireServer(lambda messages, body: Fault(429, {"retry-after": "-5"})) as server:
        command = (*files(120), "-m", compatible(server), "--max-calls", "330", "--max-wait", "1", "-q")
        lines = refused(1, *command)
        requests = len(server.requests)
        assert requests <= 60
        assert any("(too many requests)" in line for line in lines)
        server._reply = learner
        result = good_json("resume", "-q")
    assert (result["status"], result["limited"]) == ("complete", requests)
    assert sum(result["calls"][role] for role in ("model", "proposer", "judge")) <= 330
    good("audit", "check", result["run_id"])
