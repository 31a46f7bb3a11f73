"""Every kind goes through the same run and the same evaluator, and nothing outside of programs/ knows one of them."""

from __future__ import annotations

import ast
import asyncio
import re
from contextlib import closing
from pathlib import Path

import pytest

from agent.jobs.optimize import RunState
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.prompt.named_texts import as_texts
from agent.release.result import RunResult
from agent.search.registered import DEFAULT
from agent.types import Request, Task
from tests.test_layers import SOURCES
from tests.toys import TEAMS, FakeModel, executed, launched, make_task

OF_USERS = {
    "prompt": "",
    "dspy": "import dspy\ndef build():\n    return dspy.Predict('message -> team')\n",
    "chain": "from langchain_core.prompts import ChatPromptTemplate\n"
    "def build(model):\n    return ChatPromptTemplate([('system', 'Which team?'), ('human', '{message}')]) | model\n",
}


def answer(request: Request) -> str:
    """Right on all rows but those of one team, in DSPy's form where that is asked for."""
    text = request.messages[-1].content
    team = next(team for team in TEAMS if f"on {team}" in text).replace("refunds", "billing")
    return f"[[ ## team ## ]]\n{team}\n" if "[[ ##" in text else team


def run(task: Task, folder: Path) -> tuple[RunResult, RunState]:
    """The result of a run that only scores the user's own."""
    ledger = Ledger(folder / "ledger.db")
    try:
        made, result = asyncio.run(executed(launched(task, FakeModel(answer), max_calls=400, trials=1), ledger))
        return result, made
    finally:
        ledger.close()


@pytest.mark.parametrize("kind", OF_USERS)
def test_every_kind_goes_through_the_same_run(kind: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(OF_USERS[kind], "utf-8")
    program = "program:build" if OF_USERS[kind] else ""
    result, made = run(make_task(30, folder=str(tmp_path), program=program), tmp_path)
    assert made.launch.program.kind == kind
    assert (result.status, result.decision) == ("complete", "keep_baseline")
    assert result.winner.test == pytest.approx(2 / 3)
    assert result.calls["model"] >= 60
    assert result.release.path.is_file()


RULE = "Always tell refunds and billing apart."


def heeding(request: Request) -> str:
    """Right on every row where the rule is in the request."""
    said, text = answer(request), request.messages[-1].content
    is_told = any(RULE in message.content for message in request.messages)
    return said.replace("billing", "refunds") if is_told and "on refunds" in text else said


def author(request: Request) -> str:
    return f"ADD: {RULE}" if "ADD" in request.messages[-1].content else RULE


@pytest.mark.parametrize(("kind", "what"), [("chain", "a chain of prompts"), ("dspy", "a DSPy program")])
def test_our_search_changes_the_texts_of_every_kind(kind: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(OF_USERS[kind], "utf-8")
    task, ledger = make_task(30, folder=str(tmp_path), program="program:build"), Ledger(tmp_path / "ledger.db")
    models = FakeModel(heeding), FakeModel(author, "fake/author")
    try:
        made, result = asyncio.run(executed(launched(task, *models, max_calls=500, strategy=DEFAULT), ledger))
    finally:
        ledger.close()
    assert (result.decision, result.winner.test) == ("promote", 1.0)
    (text,) = as_texts(made.context.trials.candidate(result.winner.candidate_id)).texts.values()
    assert RULE in text
    assert any(f"You improve a text of {what}." in request.messages[0].content for request in models[1].seen)
    with closing(History(tmp_path / "ledger.db")) as history:
        assert {(row["technique"], row["format"]) for row in history.trials(result.run_id)} == {("program", kind)}


KNOWN = {
    "release/formats/dspy.py": {"dspy"},  # a form of export
    "release/formats/export_format.py": {"dspy"},
    "search/dspy/sizes.py": {"dspy"},  # a strategy says which kinds it works on
    "ledger/provenance.py": {"dspy"},  # packages whose versions are noted
    "extras.py": {"dspy"},  # packages that a plain install leaves out, here and in those that follow
    "prompt/render.py": {"dspy"},
    "task/checks.py": {"dspy"},
    "jobs/ledger.py": {"chain"},  # of the ledger's hashes
    "ledger/trail.py": {"chain"},  # of candidates and their parents
}
"""What knows a kind outside of programs/, or uses a word that one has for its name. It can only get shorter."""


def named(tree: ast.AST) -> set[str]:
    """Kinds that a file names: as a text that is nothing else, or by the class of their candidates elsewhere."""
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    classes = {
        name.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        for name in ast.walk(node.args[1])
        if isinstance(name, ast.Name) and re.fullmatch(r"\w+Candidate", name.id)
    }
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return words & {"dspy", "chain", "classic"} | (classes - own)


def test_no_file_outside_of_programs_names_a_kind() -> None:
    found = {name: named(tree) for name, tree in SOURCES.items() if not name.startswith("programs/")}
    assert {name: kinds for name, kinds in found.items() if kinds} == KNOWN
