"""A LangChain chain of the user's own as a task: optimized, tested on sealed rows, and shipped as it was scored."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from agent import AgentError, load_chain
from tests.cli.test_interrupt import start, told, trials, wait_for
from tests.cli.world import FILLER, TOPICS, UNSURE, compatible, good, good_json, learner, refused, write_csv
from tests.wire import Fault, WireServer

CHAIN = """
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

GIST = ChatPromptTemplate.from_messages([("system", "Say what it is about."), ("human", "{text}")], name="gist")
ROUTE = ChatPromptTemplate.from_messages([("system", "Name the department."), ("human", "{gist}")])


def build(model):
    gist = GIST | model | StrOutputParser()
    route = ROUTE | model | StrOutputParser()
    return {"gist": gist} | RunnableLambda(lambda found: found) | route.with_config(run_name="route")
"""
TOML = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
instruction = "What the chain does: it routes notes."
program = "program:build"

[fields.label]
type = "choice"
choices = {list(TOPICS)}
"""


def folder(source: str = CHAIN) -> Path:
    """A task folder `notes` with 60 rows a split."""
    place = Path("notes")
    place.mkdir()
    (place / "program.py").write_text(source, "utf-8")
    (place / "task.toml").write_text(TOML.replace("'", '"'), "utf-8")
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 180).open(encoding="utf-8")))
    for number, split in enumerate(("train", "dev", "test")):
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[number::3]), "utf-8")
    return place


def helper(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """The gist of a text are its words that count; its label needs a demonstration that shares words."""
    if "about" in messages[0]["content"]:
        words = [word for word in re.findall(r"\w+", messages[-1]["content"]) if word not in FILLER]
        return Fault(text=f"gist: {' '.join(words)}", delay=0.005)
    return Fault(text=learner(messages, body), delay=0.005)


def built(place: Path, model: Any) -> Any:
    """The chain as its user makes it, far from ours."""
    spec = importlib.util.spec_from_file_location("theirs", place / "program.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(model)


def test_a_chain_is_optimized_tested_and_shipped_as_a_file_that_its_user_can_load() -> None:
    place = folder()
    command = ["run", str(place), "--max-calls", "900"]
    with WireServer(helper) as server:
        result = good_json(*command, "-m", compatible(server))
        sent = len(server.requests)
        assert good_json(*command, "-m", compatible(server))["winner"] == result["winner"]
        assert len(server.requests) == sent, "all of it was in the ledger"
        assert [check["ok"] for check in good_json("audit", "check")["checks"]].count(False) == 0
        assert good_json("reproduce")["same"]
    assert sent == sum(result["calls"][role] for role in ("target", "proposer")) <= 900
    assert result["status"] == "complete"
    assert result["decision"] == "promote"
    assert result["lift"]["diff"] > 0.3
    assert result["winner"]["n_demos"] > 0
    assert "scored with max_tokens=500, temperature=0.0" in good("show")
    good("export", "-o", "shipped.json")
    kept = json.loads(Path("shipped.json").read_text("utf-8"))
    assert list(kept["prompts"]) == ["gist", "prompt 2"]
    assert kept["prompts"]["prompt 2"]["demos"][0]["inputs"]["gist"].startswith("gist: "), "as the prompt saw it"
