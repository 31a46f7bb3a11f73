"""Labels that are calls of tools: the tool and the argument that is wrong are named, plain or as accepted values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ProblemsError
from agent.jobs.tasks import _scored_as_asked
from agent.task.load import load_task
from agent.task.tools import calls_checker, with_calls
from agent.types import Tool
from tests.cases import each_case
from tests.task.folders import jsonl, make, problems

ROOM = {"type": "string", "enum": ["hall", "attic"]}
WINDOW = {"type": "object", "properties": {"open": {"type": "boolean"}}, "additionalProperties": False}
SCHEMA = {"type": "object", "properties": {"room": ROOM, "level": {"type": "integer"}, "window": WINDOW}}
TOOLS = (
    Tool("lamp_on", "Lights a lamp.", json.dumps({**SCHEMA, "required": ["room"], "additionalProperties": False})),
    Tool("lamp_off", "Puts a lamp out.", json.dumps(SCHEMA)),
)
TOML = """\
name = "lamps"
description = "Switch lamps."
signature = "request -> calls"
instruction = "Call the tool that does what is asked."
tools = "tools.json"

[fields.calls]
type = "json"

[[metrics]]
name = "tool_calls"
accepted = true
"""


def lamp_on(**arguments: Any) -> list[dict[str, Any]]:
    return [{"name": "lamp_on", "arguments": arguments}]


@each_case(
    ("label", "said"),
    [
        ([], ""),
        (lamp_on(room="hall", level=3), ""),
        (lamp_on(room="cellar"), "calls lamp_on with {'room': 'cellar'}, which does not fit the schema at $.room"),
        (lamp_on(level=3), "'room' is a required property"),
        ([{"name": "lamp_of", "arguments": {}}], "calls 'lamp_of', which is not a tool; did you mean 'lamp_off'?"),
        ([{"name": "lamp_on"}], "'arguments' is a required property"),
        ("lamp_on", "is not of type 'array'"),
    ],
)
def test_the_tool_or_the_argument_is_named(label: Any, said: str) -> None:
    found = calls_checker(TOOLS)(label)
    assert said in found
    assert bool(said) == bool(found)


@each_case(
    ("label", "said"),
    [
        (lamp_on(room=["hall", "attic"], level=[3, ""], window=[{"open": [True, False]}]), ""),
        (lamp_on(room=["hall"], window=[{"open": True}]), ""),
        (lamp_on(room=["hall", "cellar"]), "calls lamp_on with {'room': 'cellar'}"),
        (lamp_on(room=["hall"], window=[{"open": [True, 5]}]), "5 is not of type 'boolean'"),
        (lamp_on(room="hall"), "cannot be used with accepted = true: lamp_on.room is no list of accepted values: hall"),
        (lamp_on(room=[]), "lamp_on.room is no list of accepted values"),
        (lamp_on(level=[3]), "'room' is a required property"),
    ],
)
def test_each_accepted_value_is_checked(label: Any, said: str) -> None:
    found = calls_checker(TOOLS, accepted=True)(label)
    assert said in found
    assert bool(said) == bool(found)


def test_a_task_of_accepted_values_is_checked_when_it_is_loaded(here: Path) -> None:
    def folder(name: str, toml: str, **arguments: Any) -> Path:
        rows = {split: jsonl([{"request": split, "calls": lamp_on(**arguments)}]) for split in ("train", "dev", "test")}
        made = make(here / name, toml, **rows)
        tools = [{**tool.as_dict(), "parameters": json.loads(tool.parameters)} for tool in TOOLS]
        (made / "tools.json").write_text(json.dumps(tools))
        return made

    assert load_task(folder("right", TOML, room=["hall", "attic"])).train
    assert "lamp_on.room is no list" in problems(folder("plain", TOML, room="hall"))[0]
    own = TOML.replace('type = "json"', 'type = "json"\nschema = { type = "array" }')
    assert "lamp_on.room is no list" in problems(folder("own", own, room="hall"))[0]
    assert load_task(folder("own right", own, room=["cellar"])).train


def test_wrong_answers_of_a_data_file_come_by_line() -> None:
    table: list[dict[str, Any]] = [{"calls": lamp_on(room=f"room {line}")} for line in range(2, 12)]
    with pytest.raises(ProblemsError) as refused:
        with_calls(table, range(2, 12), Path("rows.jsonl"), "calls", TOOLS)
    assert [int(each.where.split(":")[1]) for each in refused.value.problems] == list(range(2, 12))
    accepted = [{"calls": lamp_on(room=["hall"])}]
    assert with_calls(accepted, [2], Path("rows.jsonl"), "calls", TOOLS, accepted=True) == accepted


def test_a_metric_of_accepted_values_is_refused_for_plain_labels(here: Path) -> None:
    rows = {split: jsonl([{"request": split, "calls": lamp_on(room="hall")}]) for split in ("train", "dev", "test")}
    folder = make(here / "lamps", TOML.replace("accepted = true", ""), **rows)
    (folder / "tools.json").write_text(json.dumps([{"name": "lamp_on"}]))
    with pytest.raises(InputError, match=r"the label of the row .* lamp_on\.room is no list of accepted values: hall"):
        _scored_as_asked(load_task(folder), "tool_calls,accepted=true")
