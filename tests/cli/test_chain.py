"""A LangChain chain of the user's own as a task: optimized, tested on sealed rows, and shipped as it was scored."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from agent import AgentError, load_chain
from tests.cli.world import FILLER, TOPICS, compatible, good, good_json, learner, refused, write_csv, write_task
from tests.wire import Fault, WireServer

CHAIN = """
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

GIST = ChatPromptTemplate([("system", "Say what it is about."), ("human", "{text}")], name="gist")
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
    """A task folder `notes` with 40 rows a split."""
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 120).open(encoding="utf-8")))
    write_task(TOML.replace("'", '"'), {split: rows[at::3] for at, split in enumerate(("train", "dev", "test"))})
    place = Path("notes")
    (place / "program.py").write_text(source, "utf-8")
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
    command = ["run", str(place), "--max-calls", "500"]
    with WireServer(helper) as server:
        result = good_json(*command, "-m", compatible(server))
        sent = len(server.requests)
        assert good_json("reproduce")["same"]
    assert sent == sum(result["calls"][role] for role in ("model", "proposer")) <= 500
    assert result["status"] == "complete"
    assert "no examples yet: prompt 2 takes gist, no input of the task" in good("audit", "show", "1")
    assert result["decision"] == "promote"
    assert result["lift"]["diff"] > 0.3
    assert result["winner"]["n_examples"] > 0
    assert "examples" in {one["part"] for one in result["attribution"]}
    assert "scored with max_tokens=500, temperature=0.0" in good("show")
    good("export", "-o", "shipped.json")
    kept = json.loads(Path("shipped.json").read_text("utf-8"))
    assert list(kept["prompts"]) == ["gist", "prompt 2"]
    assert kept["prompts"]["prompt 2"]["demos"][0]["inputs"]["gist"].startswith("gist: "), "as the prompt saw it"

    class Asked(FakeListChatModel):  # type: ignore[misc]
        """The user's own model: it asks the server, as the run's did."""

        def _call(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
            roles = {"system": "system", "human": "user", "ai": "assistant"}
            sent = [{"role": roles[one.type], "content": one.content} for one in messages]
            return str(helper(sent, {}).text)

    chain = load_chain("shipped.json", built(place, Asked(responses=[])))
    rows = [json.loads(line) for line in (place / "test.jsonl").read_text("utf-8").splitlines()]
    right = [chain.invoke({"text": row["text"]}) == row["label"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(result["winner"]["test"], abs=0.05)  # of these rows, or of a part


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def build(model):\n    return 1 / 0\n", "notes/program.py:2: ZeroDivisionError"),
        ("x = 1\ndef build(model):\n    return 3\n", "notes/program.py:2: build() gives a int, not a dspy.Module or a"),
        ("def build(model):\n    return model\n", "notes/program.py:1: build() has no ChatPromptTemplate"),
        (
            "from langchain_core.language_models import FakeListChatModel\n"
            "from langchain_core.prompts import ChatPromptTemplate\n"
            "def build():\n"
            "    return ChatPromptTemplate([('human', '{text}')]) | FakeListChatModel(responses=['x'])\n",
            "notes/program.py:3: build() makes its own model (FakeListChatModel)",
        ),
        ("def build(model):\n    return model.bind_tools([])\n", "notes/program.py:2: the gateway cannot carry tools"),
        (
            "from langchain_core.prompts import ChatPromptTemplate\ndef build(model):\n"
            "    prompt = ChatPromptTemplate([('system', '{{text}}')], template_format='mustache')\n"
            "    return prompt | model\n",
            "notes/program.py:2: the system message of prompt 1 is no text or f-string",
        ),
    ],
)
def test_a_chain_that_cannot_be_optimized_is_refused_before_a_call(source: str, words: str) -> None:
    place = folder(source)
    assert words in "\n".join(refused(2, "run", str(place), "-m", "openai-compatible/x@http://127.0.0.1:9"))


def test_a_chain_takes_our_own_search_and_fails_with_its_own_words() -> None:
    place = folder(CHAIN.replace("lambda found: found", "lambda found: found['missing']"))
    assert "a chain of prompts takes evolve" in refused(2, "run", str(place), "--strategy", "dspy-mipro")[0]
    with WireServer(helper) as server:
        said = refused(1, "run", str(place), "-m", compatible(server), "--max-calls", "300", "-q")[0]
    assert "program:build fails on every row of dev: the chain of prompts raised KeyError: 'missing'" in said


def test_a_released_chain_is_shipped_by_export_alone() -> None:
    place = folder()
    with WireServer(helper) as server:
        run = good_json("run", place, "--max-calls", "300", "-n", "1", "-m", compatible(server), "-q")["run_id"]
    assert "ship its state with `optimize export`" in refused(2, "promote", run)[0]
    assert "only prompts and texts can be checked" in refused(2, "check", run)[0]
    assert "the state of your program is not" in refused(2, "export", "--json")[0]
    Path("c.json").write_text(good("export").replace("department", "team"), "utf-8")
    with pytest.raises(AgentError, match=r"c\.json: was edited after release"):
        load_chain("c.json", built(place, FakeListChatModel(responses=["x"])))
