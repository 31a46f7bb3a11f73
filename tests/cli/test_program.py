"""A DSPy program of the user's own as a task: optimized, tested on sealed rows, and shipped as it was scored."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import signal
from enum import Enum
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from pydantic import BaseModel

from agent.programs.dspy import read
from agent.types import Field, Signature
from tests.cli.test_interrupt import told, trials, wait_for
from tests.cli.world import TOPICS, compatible, good, good_json, learner, refused, write_csv
from tests.warm import start
from tests.wire import Fault, WireServer

PROGRAM = """
import dspy


class TwoSteps(dspy.Module):
    def __init__(self):
        self.gist = dspy.Predict(dspy.Signature("text -> gist", "Say what it is about."))
        self.route = dspy.Predict(dspy.Signature("gist -> label", "Name the department."))

    def forward(self, text):
        return self.route(gist=self.gist(text=text).gist)


def build():
    return TwoSteps()
"""
TOML = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
instruction = "What the program does: it routes notes."
program = "program:build"

[fields.label]
type = "choice"
choices = {list(TOPICS)}
"""


def folder() -> Path:
    """A task folder `notes` with 60 rows a split."""
    place = Path("notes")
    place.mkdir()
    (place / "program.py").write_text(PROGRAM, "utf-8")
    (place / "task.toml").write_text(TOML.replace("'", '"'), "utf-8")
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 180).open(encoding="utf-8")))
    for number, split in enumerate(("train", "dev", "test")):
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[number::3]), "utf-8")
    return place


def helper(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """The gist of a text is the text; its label needs a word that is known, or a demonstration that shares words."""
    asked = re.findall(r"`\[\[ ## (\w+) ## \]\]`", messages[-1]["content"])[0]
    if asked == "gist":
        text = "gist of " + messages[-1]["content"].split("]]\n")[1].split("\n\n")[0]
    elif asked == "label":
        found = learner(messages, body)
        known = [topic for topic, words in TOPICS.items() if set(words.split()[:2]) & set(asked_for(messages))]
        if "##" not in found or known:
            found = f"[[ ## label ## ]]\n{known[0] if known else found}\n\n"
        return Fault(text=found, delay=0.005)
    else:
        text = "Name the department that handles it."
    return Fault(text=f"[[ ## {asked} ## ]]\n{text}\n\n[[ ## completed ## ]]", delay=0.005)


def asked_for(messages: list[dict[str, Any]]) -> list[str]:
    return re.findall(r"\w+", str(messages[-1]["content"]))


def built(place: Path) -> Any:
    """The program as its user makes it, far from ours."""
    spec = importlib.util.spec_from_file_location("theirs", place / "program.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


def test_one_trial_scores_the_program_on_all_rows_that_can_be_paid() -> None:
    with WireServer(helper) as server:
        command = ("run", folder(), "-m", compatible(server), "-n", "1", "--strategy", "dspy-mipro", "-q")
        result = good_json(*command, "--max-calls", "280")
    assert result["status"] == "complete"
    assert result["lift"]["n"] == 60
    assert result["calls"]["model"] == 240


def test_a_program_is_optimized_tested_and_shipped_as_a_state_that_its_user_can_load() -> None:
    place = folder()
    command = ["run", str(place), "--max-calls", "700", "--strategy", "dspy-bootstrap"]
    with WireServer(helper) as server:
        result = good_json(*command, "-m", compatible(server))
        sent = len(server.requests)
        assert good_json(*command, "-m", compatible(server))["winner"] == result["winner"]
        assert len(server.requests) == sent, "all of it was in the ledger"
        assert [check["ok"] for check in good_json("audit", "check")["checks"]].count(False) == 0
        assert good_json("reproduce")["same"]
    assert sent == sum(result["calls"][role] for role in ("model", "proposer")) <= 700
    assert result["decision"] == "promote"
    assert result["lift"]["diff"] > 0
    assert result["parameters"] == {"max_tokens": 500, "temperature": 0.0}
    assert "scored with max_tokens=500, temperature=0.0" in good("show")
    good("export", "-o", "shipped.json")
    program = built(place)
    program.load("shipped.json")
    state = json.loads(Path(result["release"]).read_text("utf-8"))
    assert state["route"]["demos"] == program.route.demos != []
    with dspy.context(lm=DummyLM([{"gist": "a"}, {"label": "billing"}])):
        assert program(text="x").label == "billing"


@pytest.mark.long
def test_a_killed_run_of_a_program_resumes_to_the_same_state() -> None:
    place = folder()
    command = ["run", str(place), "--max-calls", "700"]
    with WireServer(helper) as server:
        command += ["-m", compatible(server)]
        whole = good_json(*command, "--db", "whole/ledger.db")
        first = len(server.requests)
        process = start(*command)
        wait_for(server, first + 250)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed = len(server.requests)
        result = good_json("resume")
        again = len(server.requests) - first
    assert 0 < killed - first < first, "in the middle"
    assert again <= first + 32, "only what was in the air at the kill"
    assert told(result)["winner"] == told(whole)["winner"]
    assert [t[:5] for t in trials()] == [t[:5] for t in trials("whole/ledger.db")], (
        "attempts in the air at the kill aside"
    )
    assert Path(result["release"]).read_text("utf-8") == Path(whole["release"]).read_text("utf-8")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import dspy\ndef build():\n    return 1 / 0\n", "notes/program.py:3: ZeroDivisionError"),
        (
            "def build():\n    return 3\n",
            "notes/program.py:1: build() gives a int, not a dspy.Module or a LangChain Runnable",
        ),
        ("import dspy\ndef build():\n    return dspy.Module()\n", "has no predictor"),
        ("x = (\n", "notes/program.py:1: not valid Python"),
        ("y = 1\n", "notes/program.py:1: no function or class build"),
    ],
)
def test_a_program_that_cannot_be_made_is_refused_before_a_call(source: str, words: str) -> None:
    place = folder()
    (place / "program.py").write_text(source, "utf-8")
    assert words in "\n".join(refused(2, "run", str(place), "-m", "openai-compatible/x@http://127.0.0.1:9"))


class Invoice(BaseModel):
    total: float
    currency: str


class Team(Enum):
    BILLING = "billing"


def test_typed_outputs_of_a_program_are_read_as_what_they_hold() -> None:
    data, team = Field("data", "json"), Field("team", "choice", choices=("billing", "sales"))
    made = Invoice(total=3, currency="EUR")
    whole = {"total": 3.0, "currency": "EUR"}
    for value, found in ((made, whole), ([made, made], [whole, whole]), ({"first": made}, {"first": whole})):
        got = read(dspy.Prediction(data=value, team=Team.BILLING), Signature((), (data, team)))
        assert (got.error, dict(got.fields)) == ("", {"data": found, "team": "billing"})


def test_our_own_search_is_not_for_programs_and_the_plan_says_what_a_program_costs() -> None:
    place = folder()
    assert "a DSPy program takes dspy-mipro" in refused(2, "run", str(place), "--strategy", "bayes")[0]
    said = good("run", str(place), "--dry-run", "--max-calls", "700", "--price", "1,1")
    assert "program:build runs in this process and makes 2 calls or more" in said


def test_a_cap_on_tokens_is_planned_with_and_one_that_is_too_small_is_refused_before_a_call() -> None:
    with WireServer(helper) as server:
        command = [
            *map(str, ["run", folder(), "-m", compatible(server)]),
            "--strategy",
            "dspy-bootstrap",
            "--price",
            "0,0",
        ]
        for cap, words in (("500", "too little to compare two prompts"), ("60000", "too few for --strategy dspy-boot")):
            said = refused(3, *command, "--max-tokens", cap)[0]
            assert words in said
            assert f"max_tokens = {cap} (give at least " in said
        assert not server.requests
        enough = re.findall(r"give at least (\d+)", said)[0]
        result = good_json(*command, "--max-tokens", enough)
    assert (result["decision"], result["search_ended"]) == ("promote", "")
    assert sum(result["tokens"].values()) <= int(enough)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('"program"', "notes/task.toml:6: program = 'program' has a form that is not allowed; write module:factory"),
        ('"other:build"', "notes/task.toml:6: program = 'other:build' needs other.py in the task folder"),
        ("3", "notes/task.toml:6: program = 3"),
    ],
)
def test_a_program_that_is_not_there_is_named_with_its_line(key: str, words: str) -> None:
    toml = folder() / "task.toml"
    toml.write_text(toml.read_text("utf-8").replace('"program:build"', key), "utf-8")
    assert words in "\n".join(refused(2, "run", "notes"))
