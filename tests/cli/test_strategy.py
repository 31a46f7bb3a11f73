"""`--strategy` with DSPy's optimizers: through the whole command, and through a kill."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from typing import Any

from tests.cli.test_interrupt import start, told, trials, wait_for
from tests.cli.world import compatible, files, good, good_json, learner, refused
from tests.wire import Fault, WireServer


def in_dspys_words(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """The learner, which also fills in whatever else DSPy asks for."""
    asked = re.findall(r"`\[\[ ## (\w+) ## \]\]`", messages[-1]["content"])
    if not asked or asked[0] == "label":
        return Fault(text=learner(messages, body), delay=0.01)
    text = "Name the department that handles it." if "instruction" in asked[0] else "notes of customers"
    return Fault(text=f"[[ ## {asked[0]} ## ]]\n{text}\n\n[[ ## completed ## ]]", delay=0.01)


def sent(server: WireServer, start: int = 0) -> Counter[str]:
    """The requests that have an identity of their own: a proposal may be asked for twice."""
    return Counter(json.dumps(seen.body) for seen in server.requests[start:] if seen.body["temperature"] == 0.0)


def test_a_killed_run_of_dspys_resumes_to_the_same_prompt_and_buys_no_settled_call_again() -> None:
    command = [*files(120), "--max-calls", "400", "--strategy", "dspy-mipro"]
    with WireServer(in_dspys_words) as server:
        command += ["-m", compatible(server)]
        whole = good_json(*command, "--db", "whole/ledger.db")
        first = len(server.requests)
        process = start(*command)
        wait_for(server, first + 150)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed = len(server.requests)
        result = good_json("resume")
        again = sent(server, first)
        assert good_json("reproduce")["same"]
    assert 0 < killed - first < first, "in the middle"
    assert told(result)["winner"] == told(whole)["winner"]
    assert result["winner"]["format"] == "dspy-chat"
    assert result["decision"] == whole["decision"] == "promote"
    assert [t[:5] for t in trials()] == [t[:5] for t in trials("whole/ledger.db")], (
        "attempts in the air at the kill aside"
    )
    twice = sum(count - 1 for count in again.values())
    assert twice <= 32, "only what was in the air at the kill"
    good_json("audit", "verify")
    assert [check["ok"] for check in good_json("audit", "check")["checks"]].count(False) == 0


def test_a_strategy_that_is_none_is_a_mistake_of_use() -> None:
    assert "dspy-mipro" in "".join(refused(2, *files(120), "--strategy", "dspy-what"))


def test_too_few_calls_for_dspy_are_told_before_the_first() -> None:
    with WireServer(in_dspys_words) as server:
        command = [*files(120), "-m", compatible(server), "--price", "1,1", "--strategy", "dspy-mipro"]
        words = "".join(refused(3, *command, "--max-calls", "200", "-q"))
        fewest = re.search(r"200 calls are too few for --strategy dspy-mipro on this task; give at least (\d+)", words)
        assert fewest
        assert server.requests == []
        good(*command, "--max-calls", fewest[1], "--dry-run")
        refused(3, *command, "--max-calls", str(int(fewest[1]) - 10), "--dry-run", "-q")
