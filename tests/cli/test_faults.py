"""Providers that fail: the cap holds, nothing is scored 0 for it, and the user sees one line."""

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from agent.release.runtime import load_prompt
from tests.cli.world import Answer, compatible, files, good, good_json, learner, refused
from tests.gateway.doors import Calm
from tests.wire import Fault, WireServer


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.jobs.session.random", SimpleNamespace(Random=Calm))


def one_in(n: int, answer: Answer, faults: list[Fault], salt: str = "") -> tuple[Answer, Counter[str]]:
    """`answer`, but one in `n` requests gets a fault first, by its content; the same one again gets through."""
    lock, served, given = threading.Lock(), Counter[str](), Counter[str]()

    def flaky(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        digest = hashlib.sha256((salt + json.dumps(body, sort_keys=True)).encode()).hexdigest()
        number = int(digest, 16)
        with lock:
            served[digest] += 1
            if number % n == 0 and served[digest] == 1:
                given["faults"] += 1
                return faults[number // n % len(faults)]
        return answer(messages, body)

    return flaky, given


def test_a_tenth_of_failures_costs_calls_but_no_score() -> None:
    faults = [Fault(500), Fault(503), Fault(raw=b""), Fault(429, {"retry-after": "0"}), Fault(body="<html>")]
    command = files(120)
    flaky, given = one_in(10, learner, faults)
    with WireServer(learner) as server:
        clean = good_json(*command, "-m", compatible(server), "--max-calls", "300", "--db", "clean/ledger.db")
    with WireServer(flaky) as server:
        result = good_json(*command, "-m", compatible(server), "--max-calls", "300")
        requests = len(server.requests)
    assert given["faults"] > 10
    assert requests == sum(result["calls"][role] for role in ("model", "proposer")) + result["limited"]
    assert requests - result["limited"] <= 300
    with sqlite3.connect("runs/ledger.db") as db:
        sent = "SELECT state, COUNT(*) FROM calls WHERE error_class IS NOT 'not_sent' GROUP BY state"
        states = dict(db.execute(sent).fetchall())
        assert sum(count for state, count in states.items() if state != "cached") == requests
        assert states.get("unknown", 0) + states.get("error", 0) == given["faults"]
        unpaid = "SELECT COUNT(*) FROM outcomes o WHERE NOT EXISTS (SELECT 1 FROM calls k WHERE k.call_key = o.call_key"
        asked = "o.candidate_id NOT IN (SELECT id FROM candidates WHERE format = 'no model')"
        assert db.execute(f"{unpaid} AND k.state = 'ok') AND {asked}").fetchone() == (0,)
    assert result["baseline"] == clean["baseline"]


@pytest.mark.long
def test_a_search_that_loses_more_than_its_slack_ends_earlier_with_a_whole_winner() -> None:
    """One in seven is lost: the steps end while a finalist can still see all of dev, but for very bad luck."""
    ended = Counter[str]()
    for salt in "ehb":
        flaky, given = one_in(7, learner, [Fault(502)], salt)
        with WireServer(flaky) as server:
            command = [*files(120), "-m", compatible(server), "--max-calls", "300", "--db", f"{salt}/ledger.db"]
            result = good_json(*command)
        assert given["faults"] > 20
        assert result["decision"] == "promote"
        ended[result["status"]] += 1
        if result["status"] == "complete":
            assert good_json("reproduce", result["run_id"], "--db", f"{salt}/ledger.db")["same"] is True
    assert ended["complete"] >= 2


def test_a_candidate_that_the_provider_cannot_serve_fails_without_a_score() -> None:
    command = files(120)

    def shortsighted(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        if len(messages) > 14:
            return Fault(400, body={"error": {"message": "maximum context length is 9", "code": "context"}})
        return learner(messages, body)

    with WireServer(shortsighted) as server:
        result = good_json(*command, "-m", compatible(server), "--max-calls", "300")
    (run,) = good_json("runs")["runs"]
    failed = [t for t in good_json("history")["trials"] if t["state"] == "failed"]
    assert len(failed) == result["trials"]["failed"] > 0
    assert all(t["mean"] is None and t["n"] == 0 and "too long" in t["reason"] for t in failed)
    assert result["winner"]["candidate_id"] not in {t["candidate_id"] for t in failed}
    assert run["status"] == result["status"]


def test_a_provider_that_only_talks_nonsense_ends_the_run_with_one_line() -> None:
    command = [*files(120), "--max-calls", "200", "--quiet"]
    with WireServer(lambda messages, body: Fault(body={"choices": []})) as server:
        lines = refused(1, *command, "-m", compatible(server))
        assert len(server.requests) < 60
    assert "your own prompt got no score on 22 of 22 rows" in lines[0]
    assert "no choices" in lines[0]
    assert lines[1].startswith("optimize resume ")


def test_a_run_learns_what_the_model_refuses_and_its_calls_are_the_same_calls() -> None:
    """A server that asks for the other name of the limit is not asked again when it takes both."""
    strict = True

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        for name in ("temperature", "max_tokens"):
            if strict and name in body:
                words = f"Unsupported parameter: '{name}'. Use 'max_completion_tokens' instead of 'max_tokens'."
                return Fault(status=400, body={"error": {"message": words}})
        return learner(messages, body)

    with WireServer(reply) as server:
        command = [*files(120), "-m", compatible(server), "-n", "1", "--max-calls", "300", "-q"]
        first = good_json(*command)
        strict = False
        second = good_json(*command)
    for result in (first, second):  # what is shipped says what the model takes
        assert set(load_prompt(result["release"]).parameters) == {"max_tokens"}
        assert "temperature" not in good("export", result["run_id"], "--format", "anthropic")
    assert first["baseline"] == second["baseline"]
    assert first["baseline"]["test"] is not None
    assert (first["calls"]["model"] > 20, second["calls"]["model"]) == (True, 0)
