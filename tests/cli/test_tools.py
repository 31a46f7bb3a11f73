"""A task with tools from end to end: searched, released, asked again, exported, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.world import refused, write_task

ROOMS = ("kitchen", "hall", "office", "bedroom", "attic", "cellar")
TASK = """\
name = "lamps"
description = "Switch lamps."
signature = "request -> calls"
instruction = "Call the tool that does what is asked."
tools = "tools.json"

[fields.calls]
type = "json"

[search]
techniques = ["zero-shot", "few-shot"]
demo_counts = [2, 4]
retrieval = false
"""
TOOLS = [
    {"name": name, "description": about, "input_schema": {"type": "object", "properties": {"room": {"type": "string"}}}}
    for name, about in (("lamp_on", "Lights a lamp."), ("lamp_off", "Puts a lamp out."))
]


def write_lamps() -> None:
    rows = []
    for number in range(1, 89):
        room, on = ROOMS[number % 6], number % 2
        calls = [{"name": "lamp_on" if on else "lamp_off", "arguments": {"room": room}}]
        request = f"{number}: please {'light' if on else 'darken'} the {room}"
        rows.append({"id": f"r{number}", "request": request, "calls": calls if number % 3 else []})
        if not number % 3:
            rows[-1]["request"] = f"{number}: thanks for the {room}"
    write_task(TASK, {"train": rows[:24], "dev": rows[24:48], "test": rows[48:]})
    Path("lamps/tools.json").write_text(json.dumps(TOOLS))


def house(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Always calls a tool; with an example of a request that wants none, it also knows these."""
    if "tools" not in body:  # the proposer is asked
        return "no idea"
    assert {tool["function"]["name"] for tool in body["tools"]} == {"lamp_on", "lamp_off"}
    request = messages[-1]["content"]
    if "thanks" in request and any("No tool fits." in str(message["content"]) for message in messages):
        return "You are welcome."
    name = "lamp_off" if "darken" in request else "lamp_on"
    return json.dumps([{"name": name, "arguments": json.dumps({"room": request.split()[-1]})}])


def test_a_task_with_tools_whose_answer_is_no_list_of_calls_is_refused() -> None:
    """What is wrong with tools is in tests/task/test_tools.py."""
    write_lamps()
    Path("lamps/task.toml").write_text(TASK.replace('type = "json"', 'type = "text"'))
    said = "\n".join(refused(2, "run", "lamps", "-m", "openai-compatible/m@http://127.0.0.1:9/v1"))
    assert "the answer of a task with tools is a list of calls: one output, of type" in said
