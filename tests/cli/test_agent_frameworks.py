"""Agents of seven frameworks, as their users write them: one command improves their texts over whole rollouts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, good_json, write_task
from tests.conftest import OPENAI_NODE
from tests.wire import WireServer

AGENTS = Path(__file__).with_name("agents")
NAMES = ("openai_sdk", "anthropic_sdk", "openai_agents", "pydantic_agent", "langgraph_agent", "smol_agent")
TEXTS = {"instruction": "You answer the customers of a shop.", "tool:stock": "Looks up how many there are of an item."}
RULE = "Always look the item up first."
TOML = """
name = "notes"
description = "Answer questions about the stock of a shop."
signature = "question -> answer"
program = {program}

[texts]
{texts}

[[metrics]]
name = "exact_match"
"""


def shop(messages: list[dict[str, Any]], body: Mapping[str, Any]) -> str:
    """As the agent's model it looks up only what it is told to; smolagents wants an answer as a call."""
    if not body.get("tools"):  # the proposer
        return f"ADD: {RULE}" if "ADD" in messages[-1]["content"] else RULE
    called = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
    assert called["stock"]["description"] in (TEXTS["tool:stock"], RULE, f"{TEXTS['tool:stock']} {RULE}")
    said = "\n".join(message["content"] for message in messages[1:])
    found = re.search(r"(\d+) pieces", said)
    if RULE in messages[0]["content"] and not found:
        item = "hammer" if "hammer" in said else "saw"
        return json.dumps([{"name": "stock", "arguments": json.dumps({"item": item})}]) + "\nI look."
    answer = f"We have {found[1] if found else 0}."
    calls = [{"name": "final_answer", "arguments": json.dumps({"answer": answer})}]
    return json.dumps(calls) if "final_answer" in called else answer


@pytest.mark.extra("frameworks", "openai-node")
@pytest.mark.parametrize("name", [*(f"{name}.py" for name in NAMES), "openai_sdk.mjs"])
def test_the_texts_of_an_agent_of_a_framework_are_improved(name: str) -> None:
    counts = {"hammer": 7, "saw": 3}
    rows = [
        {"question": f"Guest {at}: how many {item}s do you have?", "answer": f"We have {counts[item]}."}
        for at in range(18)
        for item in counts
    ]
    is_node = name.endswith(".mjs")
    program = '{command = "node openai_sdk.mjs"}' if is_node else json.dumps(f"{name}:run")
    texts = "\n".join(f"{json.dumps(key)} = {json.dumps(text)}" for key, text in TEXTS.items())
    write_task(
        TOML.format(program=program, texts=texts),
        {split: rows[at::3] for at, split in enumerate(("train", "dev", "test"))},
    )
    shutil.copy(AGENTS / name, "notes")
    if is_node:
        Path("notes/node_modules").symlink_to(OPENAI_NODE)
    with WireServer(shop) as server:
        found = good_json("run", "notes", "-m", compatible(server), "--max-calls", "300", "-n", "3")
    assert (found["decision"], found["baseline"]["test"], found["winner"]["test"]) == ("promote", 0.0, 1.0)
