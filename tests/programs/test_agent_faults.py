"""Whole runs of agents that misbehave: what fails is told, no cap is passed, and no call is bought twice."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.books import ASKED
from tests.cli.world import compatible, good_json, optimize, write_task
from tests.wire import Fault, WireServer

LABELS = ("red", "blue")
KINDS: dict[str, tuple[float | None, str]] = {
    "fine": (1.0, ""),
    "prints": (1.0, ""),
    "hundred": (1.0, ""),
    "knows": (1.0, ""),
    "raises": (0.0, "the agent raised ValueError: no such room (agent.py:"),
    "exits": (0.0, "the agent ended with exit code 3"),
    "nothing": (0.0, "the agent gave NoneType, not label"),
    "stranger": (0.0, "the agent asked for the model 'gpt-of-nobody', and may ask x"),
    "hides": (None, "refused by the content policy"),
    "refused": (None, "refused by the content policy"),
}
"""What an agent does on a row: its score, and the reason."""
AGENT = """
import http.client, json, os, sys, threading
from urllib.parse import urlsplit

KEPT = []  # open connections

def say(model, text, name=""):
    address = urlsplit(model.url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    KEPT.append(connection)
    body = {"model": name or model.name, "messages": [{"role": "user", "content": text}]}
    head = {"Authorization": f"Bearer {model.key}", "Content-Type": "application/json"}
    connection.request("POST", address.path + "/chat/completions", json.dumps(body), head)
    reply = connection.getresponse()
    data = json.loads(reply.read())
    if reply.status != 200:
        raise RuntimeError(f"HTTP {reply.status}: {data['error']['message']}")
    return data["choices"][0]["message"]["content"]

def hidden(model, text):
    try:
        say(model, text)
    except RuntimeError:
        pass

def at_once(function, model, texts):
    threads = [threading.Thread(target=function, args=(model, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def run(texts, row, model):
    KEPT.clear()
    text = f"{texts['router']} {row['text']}"
    kind, *_, label = row["text"].split()
    if kind == "loops":
        while True:
            pass
    if kind == "knows":
        return label
    if kind == "raises":
        raise ValueError("no such room")
    if kind == "prints":
        print("rubbish" * 10_000)
        sys.stderr.write("rubbish" * 10_000)
    if kind == "stranger":
        say(model, text, "gpt-of-nobody")
    if kind == "hundred":
        at_once(say, model, [text] * 100)
    if kind == "hides":
        hidden(model, text)
        return label
    if kind == "many":
        at_once(hidden, model, [f"{text} {at}" for at in range(10)])
        return label
    if kind == "exits":
        os._exit(3)
    if kind == "nothing":
        return None
    return say(model, text)
"""


@pytest.fixture(autouse=True)
def _here(here: Path) -> None:
    """Each test has a folder, the current one."""


def write(kinds: Sequence[str], count: int = 1, **limits: float) -> None:
    """A task with `count` rows of each kind in each split."""
    rows = defaultdict[str, list[dict[str, str]]](list)
    for split in ("train", "dev", "test"):
        for number in range(count):
            label = LABELS[number % 2]
            for kind in kinds:
                words = {"text": f"{kind} {split} {number} {label}", "label": label}
                rows[split].append({"id": f"{split}-{kind}-{number}", **words})
    table = "".join(f", {name} = {value}" for name, value in limits.items())
    toml = (
        'name = "notes"\ndescription = "Name the color."\nsignature = "text -> label"\n'
        f'program = {{ run = "agent.py:run"{table} }}\n[texts]\nrouter = "Name the color."\n'
        f'[fields.label]\ntype = "choice"\nchoices = {json.dumps(LABELS)}\n'
    )
    write_task(toml, rows)
    (Path("notes") / "agent.py").write_text(AGENT, "utf-8")


def provider(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Says the last word, refuses some, and talks at length to some."""
    text = messages[-1]["content"]
    if "hides" in text or "refused" in text:
        return Fault(400, body={"error": {"message": "flagged by the content policy", "code": "content_filter"}})
    return "word " * 500 if "many" in text else str(text.split()[-1])


def outcomes() -> dict[str, tuple[float | None, str]]:
    """Score and reason of each row with the agent's own texts."""
    with closing(sqlite3.connect(Path("runs") / "ledger.db")) as db:
        rows = db.execute(f"SELECT example_id, value, body FROM outcomes JOIN blobs ON hash = body_hash {ASKED}")
        return {row: (value, json.loads(body)["error"]) for row, value, body in rows}


def words(server: WireServer, *more: str) -> tuple[str, ...]:
    return ("run", "notes", "-m", compatible(server), "-n", "1", "--proposer", "none", "-q", *more)


def require(kinds: Mapping[str, tuple[float | None, str]]) -> None:
    """A run of all kinds ends, and each row has the score and the reason of its kind."""
    with WireServer(provider) as server:
        good_json(*words(server, "--max-calls", "900"))
        assert {seen.body["model"] for seen in server.requests} <= {"x"}
    told = outcomes()
    assert set(told) == {f"{split}-{kind}-0" for split in ("dev", "test") for kind in kinds}
    for row, (value, reason) in told.items():
        score, said = kinds[row.split("-")[1]]
        assert (value, said in reason, bool(reason)) == (score, True, score != 1.0), (row, value, reason)


def test_each_failure_is_told_and_the_other_rows_are_scored() -> None:
    write(list(KINDS), most_calls=200)
    require(KINDS)


def test_texts_without_scores_end_the_run_and_are_called_so() -> None:
    write(["refused"], 16)
    with WireServer(provider) as server:
        ended = optimize(*words(server, "--max-calls", "200"))
    assert (ended.exit_code, "your own texts got no score on 16 of 16 rows" in ended.stderr) == (1, True), ended.stderr


def test_an_agent_that_never_ends_is_told() -> None:
    write(["loops", "knows"], seconds=1)
    require({"loops": (0.0, "the agent took longer than 1 s"), "knows": (1.0, "")})


def test_a_client_that_a_file_makes_for_all_rows_reaches_no_provider_and_is_told() -> None:
    write(["fine", "knows"])
    ask = "client.chat.completions.create(model=model.name, messages=[{'role': 'user', 'content': row['text']}])"
    code = AGENT.replace("KEPT = []", "from openai import OpenAI\nclient = OpenAI()\nKEPT = []")
    (Path("notes") / "agent.py").write_text(code.replace("    return say(model, text)\n", f"    {ask}\n"), "utf-8")
    require({"fine": (0.0, "no rollout runs at this address; create clients in your function"), "knows": (1.0, "")})


CAPS = [("--max-calls", 200.0), ("--max-tokens", 60_000.0), ("--max-cost", 0.15)]
SETTLED = "SELECT count(*), count(DISTINCT call_key), sum(prompt_tokens + completion_tokens), sum(cost_usd) FROM calls"


def settled() -> tuple[int, int, int, float]:
    """The settled calls: how many, how many different ones, their tokens and dollars."""
    with closing(sqlite3.connect(Path("runs") / "ledger.db")) as db:
        calls, different, tokens, dollars = db.execute(f"{SETTLED} WHERE state = 'ok'").fetchone()
        return calls, different, tokens, dollars


@pytest.mark.parametrize(("cap", "most"), CAPS)
def test_no_cap_is_passed_by_16_rollouts_that_hide_the_error_and_answer(cap: str, most: float) -> None:
    write(["many"], 16)
    with WireServer(provider) as server:
        capped = optimize(*words(server, cap, f"{most:g}", "--price", "1,2"))
        assert (capped.exit_code, "would pass the cap" in capped.stderr) == (1, True), capped.output
        calls, _, tokens, dollars = settled()
        assert calls == len(server.requests), "all that was sent is settled"
        assert {"--max-calls": calls, "--max-tokens": tokens, "--max-cost": dollars}[cap] <= most
        assert {value for value, _ in outcomes().values()} <= {1.0, None}, "no row is counted as wrong"
        assert len(outcomes()) < 32
        good_json("resume", cap, f"{most * 10:g}", "-q")
        assert (set(outcomes().values()), len(outcomes())) == ({(1.0, "")}, 32)
        calls, different, *_ = settled()
        assert calls == different == len(server.requests), "no call was bought twice"
