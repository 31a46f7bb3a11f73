"""Calls through the real SDKs, scored: a provider's fault is no score, and never 0; examples have searched texts.

After a change on purpose: `REWRITE_GOLDEN=1 pytest tests/models/test_tool_calls_scored.py` writes calls_sent.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.models.local import with_tools
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.tools import ToolTexts
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Demo, Example, Field, MetricSpec, Signature, Task, calls_schema
from tests.models.test_tool_calling import KEY, LIGHT, LOCK, MODELS, answer, broken, model, refused, wire
from tests.search.worlds import made_search
from tests.toys import FakeModel, make_task, open_ledger
from tests.wire import Fault, WireServer

GOLDEN = Path(__file__).with_name("calls_sent.json")
ONE = [{"name": "set_light", "arguments": {"room": "hall"}}]
TWO = [*ONE, {"name": "set_lock", "arguments": {"door": "front"}}]
LABELS = {"one": ONE, "both": TWO, "other order": TWO, "words": [], **dict.fromkeys(("wrong", "malformed"), ONE)}
LABELS |= {"refused": ONE, "late": ONE}
TEXTS = ToolTexts(
    order=("set_lock", "set_light"),
    texts=(("set_light", "room", "as it was said"), ("set_lock", "", 'Locks. """ {{request}} \u2028')),
)


def task() -> Task:
    rows = {
        split: tuple(Example(f"{split}-{name}", {"request": name}, {"calls": calls}) for name, calls in LABELS.items())
        for split in ("train", "dev", "test")
    }
    return make_task(
        signature=Signature((Field("request"),), (Field("calls", "json", schema=calls_schema((LIGHT, LOCK))),)),
        instruction="Call the tool that does what is asked.",
        metrics=(MetricSpec("tool_calls", "calls"),),
        tools=(LIGHT, LOCK),
        train=rows["train"],
        dev=rows["dev"],
        test=rows["test"],
    )


class House:
    """Answers each request as its name says; what a provider does wrong once, it does right the second time."""

    def __init__(self, kind: str) -> None:
        self._kind, self.times = kind, Counter[str]()

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        name = messages[-1]["content"]
        self.times[name] += 1
        light, lock = ("set_light", '{"room": "hall"}'), ("set_lock", '{"door": "front"}')
        if name == "late" and self.times[name] == 1:
            return Fault(body=broken(self._kind))
        if name == "refused":
            return Fault(body=refused(self._kind))
        said = {
            "both": wire(light, lock),
            "other order": wire(lock, light),
            "words": "Which room?",
            "wrong": wire(lock),
            "malformed": "Which one?" if "anthropic" in self._kind else wire(("set_light", '{"room": "ha')),
        }
        return said.get(name, wire(light))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.mark.parametrize("kind", MODELS)
async def test_each_reply_is_scored_as_the_models_and_no_fault_of_the_provider_is(kind: str, tmp_path: Path) -> None:
    answers = House(kind)
    with WireServer(answers) as server:
        lm, ledger = model(kind, server), open_ledger(tmp_path / "ledger.db")
        try:
            context = made_search(ledger, lm, task=task()).context
            outcomes = await context.evaluator.outcomes(context.baseline, task().dev, "dev")
        finally:
            await lm.close()
            ledger.close()
    values = {outcome.example_id.removeprefix("dev-"): outcome.value for outcome in outcomes}
    assert values == {
        "one": 1.0, "both": 1.0, "other order": 1.0, "words": 1.0, "wrong": 0.0, "malformed": 0.0, "late": 1.0,
        "refused": None,
    }  # fmt: skip
    assert answers.times["late"] == 2


def sent(kind: str) -> Mapping[str, Any]:
    """What goes out for a prompt with examples and searched texts, without the names of SDKs."""
    demos = (
        Demo("train-both", {"request": "both"}, {"calls": json.dumps(TWO)}),
        Demo("train-one", {"request": "one"}, {"calls": json.dumps([{"set_light": {"room": "hall"}}])}),
        Demo("train-words", {"request": "words"}, {"calls": "[]"}),
    )
    program = PromptProgram(task(), FakeModel(str))
    candidate = PromptCandidate("few-shot", "turns", task().instruction, demos=demos).having(tool_texts=TEXTS)
    assert program.check(candidate) == ""
    request = program.request(candidate, task().dev[0])
    if kind == "local":
        return {"messages": [message.as_dict() for message in with_tools(request)]}
    _, body = asyncio.run(answer(kind, wire(("set_light", '{"room": "hall"}')), request))
    return {name: body[name] for name in ("system", "messages", "tools") if name in body}


@pytest.mark.parametrize("kind", [*MODELS, "local"])
def test_demos_and_searched_texts_go_out_as_the_golden_file_says(kind: str) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    found = sent(kind)
    if os.environ.get("REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps({**golden, kind: found}, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return
    assert found == golden[kind]
    ids = re.findall(r'"id": "(\w+)"', json.dumps(found))
    assert len(ids) == len(set(ids)) == (0 if kind == "local" else 3), "a provider refuses an id that occurs twice"
