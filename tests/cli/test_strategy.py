"""`--strategy` with DSPy's optimizers: through the whole command, and through a kill."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_interrupt import told, trials, wait_for
from tests.cli.world import compatible, files, good, good_json, learner, refused
from tests.warm import start
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


def test_our_own_search_goes_by_either_of_its_names_and_a_run_goes_on_by_the_one_it_was_begun_with() -> None:
    with WireServer(learner) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", "300", "-q"]
        plans = [good_json(*command, "--dry-run", *words) for words in ([], ["--strategy", "bayes"])]
        first = good_json(*command, "--strategy", "bayes")
        asked = len(server.requests)
        again = good_json("resume", "--fork", first["run_id"])
        same = good_json(*command)
        assert len(server.requests) == asked, "the same calls under either name"
    assert plans[0] == plans[1]
    assert first["winner"] == again["winner"] == same["winner"]


def test_a_strategy_that_is_none_is_a_mistake_of_use() -> None:
    assert "dspy-mipro" in "".join(refused(2, *files(120), "--strategy", "dspy-what"))


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ('[[metrics]]\nname = "judge"\nmode = "pairwise"\n', ["--strategy", "dspy-mipro"], "the pairwise judge of"),
        ("", ["--strategy", "dspy-bootstrap"], "DSPy reserves the input name config; rename it"),
        ("", ["-n", "5", "--strategy", "dspy-gepa"], "tries as many programs as the budget buys"),
        ("", ["--proposer", "none", "--strategy", "dspy-gepa"], "has a model write instructions; leave out --proposer"),
    ],
)
def test_what_dspy_cannot_do_is_refused_before_a_call(change: str, words: list[str], says: str) -> None:
    name = "config" if "config" in says else "message"
    place = Path("notes")
    place.mkdir()
    for split in ("train", "dev", "test"):
        lines = [json.dumps({name: f"{split} note {n}", "answer": f"answer {n}"}) for n in range(40)]
        (place / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")
    head = f'name = "notes"\ndescription = "x"\nsignature = "{name} -> answer"\ninstruction = "Answer."\n'
    (place / "task.toml").write_text(f"{head}{change}", "utf-8")
    command = ("run", "notes", "-m", "openai-compatible/x@http://127.0.0.1:9", "--max-calls", "900")
    assert says in refused(2, *command, *words)[0]


def test_one_trial_is_the_users_prompt_alone_also_with_dspy() -> None:
    with WireServer(in_dspys_words) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", "400", "--strategy", "dspy-mipro", "-q"]
        result = good_json(*command, "-n", "1")
    assert sum(result["trials"].values()) == 1
    assert result["calls"]["proposer"] == 0


def test_too_few_calls_for_dspy_are_told_before_the_first() -> None:
    with WireServer(in_dspys_words) as server:
        command = [*files(120), "-m", compatible(server), "--price", "1,1", "--strategy", "dspy-mipro"]
        words = "".join(refused(3, *command, "--max-calls", "200", "-q"))
        fewest = re.search(r"200 calls are too few for --strategy dspy-mipro on this task; give at least (\d+)", words)
        assert fewest
        assert server.requests == []
        good(*command, "--max-calls", fewest[1], "--dry-run")
        refused(3, *command, "--max-calls", str(int(fewest[1]) - 10), "--dry-run", "-q")
