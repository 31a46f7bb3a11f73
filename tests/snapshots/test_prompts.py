"""What a model is sent stays as its snapshot has it, and so does the key under which its reply is kept.

After a change on purpose: `pytest tests/snapshots --update-snapshots`, and read the difference. Where a key changes,
every reply of that kind that users have paid for is bought again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from agent.programs.prompt import PromptProgram
from agent.prompt.parts.tools import ToolTexts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.pick import Picks
from agent.task.load import load_task
from agent.types import Candidate, Demo, Example, FormatName, Message, Request, Task, TechniqueName, Tool, call_key
from tests.snapshots.keep import Snapshots
from tests.snapshots.normal import ROOT
from tests.toys import FakeModel

TASKS = ("support_triage", "bank_answers", "home_assistant", "clinic_desk", "clinic_intake", "word_problems")
"""A choice, documents, tools, a conversation, a JSON object, a number."""
MODEL = FakeModel(lambda request: "", "toy/m")


def _demo(task: Task, row: Example) -> Demo:
    outputs = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.labels.items()}
    return Demo(row.id, dict(row.inputs), outputs, "It says so.")


def _candidates(task: Task, program: PromptProgram) -> Iterator[tuple[str, Candidate]]:
    own = program.baseline()
    assert isinstance(own, PromptCandidate)
    demos = tuple(_demo(task, row) for row in task.train[:2])
    yield "your prompt", own
    for technique in get_args(TechniqueName):
        shown = demos if technique.startswith("few-shot") else ()
        yield technique, replace(own, technique=technique, instruction="Do it.", role="You are exact.", demos=shown)
    for form in get_args(FormatName):
        yield f"few-shot, {form}", replace(own, technique="few-shot", format=form, instruction="Do it.", demos=demos)
    for retriever in ("bm25", "chars", "hybrid"):
        picks = Picks(retriever, 2, balanced=retriever == "hybrid", pool=program.pool.id)
        yield f"picks, {retriever}", replace(own, technique="few-shot", instruction="Do it.").having(picks=picks)
    if task.tools:
        texts = ToolTexts(
            tuple(tool.name for tool in reversed(task.tools)), ((task.tools[0].name, "", "Other words."),)
        )
        yield "tool texts", own.having(tool_texts=texts)


def _shown(request: Request, with_tools: bool) -> str:
    """A request as a person reads it; tools only where they are wanted."""
    turns = [f"[{message.role}]\n{message.content}" for message in request.messages]
    rest = {name: value for name, value in request.identity().items() if name not in ("messages", "tools") and value}
    tools = [json.dumps(tool.as_dict(), ensure_ascii=False) for tool in request.tools] if with_tools else []
    return "\n".join([*turns, *tools, f"[rest] {json.dumps(rest, ensure_ascii=False)}"])


@pytest.mark.parametrize("name", TASKS)
def test_rendered_prompts(name: str, snapshots: Snapshots) -> None:
    task = load_task(ROOT / "tasks" / name)
    program = PromptProgram(task, MODEL)
    parts = []
    for title, candidate in _candidates(task, program):
        if why := program.check(candidate):
            parts.append(f"=== {title}\nrefused: {why}\n")
            continue
        request = program.request(candidate, task.dev[0])
        shown = _shown(request, with_tools=title in ("your prompt", "tool texts"))
        parts.append(f"=== {title}\n{call_key(MODEL, request)}\n{shown}\n")
    snapshots.check(f"prompts/{name}.txt", "\n".join(parts))


def test_call_keys(snapshots: Snapshots) -> None:
    said = (Message("system", "Be exact."), Message("user", "Grüße, 1 + 1?"))
    plain = Request(said, 8)
    requests = {
        "plain": plain,
        "other model": plain,
        "warm, seeded, repeated": replace(plain, temperature=0.7, seed=3, repeat=2),
        "timeout (no part of the key)": replace(plain, timeout=5.0),
        "stop and log-probabilities": replace(plain, stop=("\n",), logprobs=5),
        "constrained": replace(plain, json_schema='{"type": "object"}', choices=("a", "b")),
        "scored labels": replace(plain, labels=("a", "b")),
        "tools": replace(plain, tools=(Tool("lamp_on", "Lights a lamp.", '{"type": "object", "properties": {}}'),)),
    }
    models = {"other model": FakeModel(lambda request: "", "openai/gpt-x")}
    keys = [f"{call_key(models.get(name, MODEL), request)}  {name}\n" for name, request in requests.items()]
    snapshots.check("prompts/call-keys.txt", "".join(keys))


def test_every_task_that_ships_has_its_prompts() -> None:
    shipped = {path.parent.name for path in Path(ROOT / "tasks").glob("*/task.toml")}
    assert set(TASKS) <= shipped
