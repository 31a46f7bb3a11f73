"""Rows with tools and no task folder: functions and JSON, from the first call to a release; and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.jobs.tasks import task_of
from agent.options.run import RecordedOptions
from agent.release.runtime import load_prompt
from tests.cli.test_tools import ROOMS, house
from tests.cli.world import compatible, write_lines
from tests.scripted import Toys
from tests.wire import WireServer

PROMPT = "Call the tool that does what is asked."


def lamp_on(room: str) -> None:
    """Lights a lamp.

    Args:
        room: where it hangs.
    """
    raise AssertionError("a tool is read and never called")


LAMP_OFF = {
    "name": "lamp_off",
    "description": "Puts a lamp out.",
    "input_schema": {"type": "object", "properties": {"room": {"type": "string"}}},
}


def requests(count: int = 90) -> list[dict[str, Any]]:
    """Requests with their calls in the forms that others write; every third wants none."""
    rows = []
    for number in range(count):
        room, on = ROOMS[number // 3 % 6], number % 2
        name = "lamp_on" if on else "lamp_off"
        call = {"type": "function", "function": {"name": name, "arguments": json.dumps({"room": room})}}
        calls = [call] if on else {"name": name, "input": {"room": room}}
        request = f"{number}: please {'light' if on else 'darken'} the {room}"
        wants = {"request": request, "calls": calls}
        rows.append(wants if number % 3 else {"request": f"{number}: thanks for the {room}", "calls": []})
    return rows


GIVEN: dict[str, Any] = {"proposer": "none", "price": (1, 2), "target": "calls", "prompt": PROMPT}


def test_functions_and_json_with_rows_alone_become_a_released_prompt_that_calls() -> None:
    with WireServer(house) as server:
        given = {**GIVEN, "model": compatible(server), "tools": [lamp_on, LAMP_OFF], "max_calls": 300}
        result = pa.optimize(requests(), **given)
        sent = [tool["function"] for tool in server.requests[0].body["tools"]]
        assert [(each["name"], each["description"]) for each in sent] == [
            ("lamp_on", "Lights a lamp."),
            ("lamp_off", "Puts a lamp out."),
        ]
        assert sent[0]["parameters"]["properties"]["room"]["description"] == "where it hangs."
        assert [metric.metric for metric in result.metrics][-1:] == ["tool_calls"]
        assert result.baseline.test is not None
        assert 0.5 < result.baseline.test < 0.8  # it always calls a tool, and every third request wants none
        prompt = load_prompt(result.release.path)
        assert prompt.complete(request="darken the attic").fields["calls"] == [
            {"name": "lamp_off", "arguments": {"room": "attic"}}
        ]
        asked = len(server.requests)
        again = pa.optimize(requests(), **given)
        assert len(server.requests) == asked  # all of it is in the ledger: the kept files say the same
        assert again.baseline == result.baseline


def test_a_file_with_tools_is_an_option_of_the_command_line_too() -> None:
    pa.write_tools([lamp_on, LAMP_OFF], "tools.json")
    write_lines("rows.jsonl", requests(60))
    with Path("rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["request", "calls"])
        table.writerows([row["request"], json.dumps(row["calls"])] for row in requests(60))
    asked = RecordedOptions(task="rows.jsonl", target="calls", prompt=PROMPT, tools="tools.json")
    one, other = task_of(asked), task_of(asked.changed(task="rows.csv"))
    assert [row.labels for row in one.train] == [row.labels for row in other.train]
    assert {"tools.json", "train"} <= set(one.hashes)
    assert {call["name"] for row in one.train for call in row.labels["calls"]} == {"lamp_on", "lamp_off"}
    assert any(row.labels["calls"] == [] for row in one.train)
    named = task_of(asked.changed(metric="tool_choice"))
    assert [metric.name for metric in named.metrics] == ["tool_choice"]


def test_what_cannot_be_is_refused_before_anything_is_called(toys: Toys) -> None:
    def untyped(room) -> None: ...  # type: ignore[no-untyped-def]

    model, both = toys(house), [lamp_on, LAMP_OFF]
    given = {**GIVEN, "model": model.name}
    with pytest.raises(pa.InputError) as error:
        pa.optimize(requests(), tools=[untyped, {"name": "two words"}, lamp_on], seed=-1, **given)
    said = str(error.value)
    assert all(what in said for what in ("the parameter room has no type", "the name 'two words'", "seed"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tools": lamp_on}, "tools: is function; give a list"),
        ({"tools": []}, "tools: no tools"),
        ({"tools": both, "type": "text"}, r"--type text: the answers are calls of tools"),
        ({"tools": both, "metric": "rougeL"}, r"--metric rougeL: scores text, and the answers"),
    ]
    for more, what in wrong:
        with pytest.raises(pa.InputError, match=what):
            pa.optimize(requests(), **more, **given)
    with pytest.raises(pa.InputError, match="--tools needs a data file"):
        pa.optimize("elsewhere", tools=[lamp_on], model=model.name)
    rows = requests()
    rows[2]["calls"] = "lamp_off"
    rows[4]["calls"] = [{"name": "door_open", "arguments": {}}]
    rows[5]["calls"] = [{"name": "lamp_on", "arguments": {"room": 5}}]
    with pytest.raises(pa.InputError) as error:
        pa.optimize(rows, tools=both, **given)
    said = [Path(line.partition(": calls: ")[0]).name for line in str(error.value).splitlines()]
    assert said == ["rows.jsonl:3", "rows.jsonl:5", "rows.jsonl:6"]
    assert model.seen == []
    assert not list(Path("runs/tasks").glob("*"))
