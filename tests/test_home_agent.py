"""The sample `home_agent`: its agent with a scripted model, and labels that the agent's own tools can reach."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.programs.agent_call import AgentModel
from agent.task.load import load_task
from agent.types import Example
from tests.cases import each_case
from tests.wire import WireServer

FOLDER = Path(__file__).resolve().parents[1] / "tasks" / "home_agent"
TASK = load_task(FOLDER)
SPLITS = (TASK.train, TASK.dev, TASK.test)
ROWS = [row for rows in SPLITS for row in rows]


def module_of(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


AGENT, METRIC = module_of("agent"), module_of("metric")


def calls_for(row: Example) -> list[dict[str, Any]]:
    """Return the calls of `act` that make the changes of a row."""
    parts = [(*name.split("."), value) for name, value in row.labels["changes"].items()]
    names = ("room", "device", "setting", "value")
    return [{"name": "act", "arguments": dict(zip(names, each, strict=True))} for each in parts]


@each_case("row", ROWS)
def test_the_changes_of_a_row_can_be_made_and_change_something(row: Example) -> None:
    home = json.loads(row.inputs["home"])
    before = AGENT.flat(home)
    for call in calls_for(row):
        assert "error" not in AGENT.carry_out(home, call["name"], json.dumps(call["arguments"]))
    now = AGENT.flat(home)
    assert {name: now[name] for name in now if now[name] != before[name]} == row.labels["changes"]


def test_each_split_has_every_kind_of_request_and_rows_that_want_no_change() -> None:
    for rows in SPLITS:
        kinds = Counter(row.slices["kind"] for row in rows)
        assert set(kinds) == {"condition", "direct", "check", "relative", "nothing", "mixed"}
        assert min(kinds.values()) >= 4
        unchanged = sum(not row.labels["changes"] for row in rows) / len(rows)
        assert 0.15 <= unchanged <= 0.35
    for row in ROWS:
        assert row.slices["kind"] != "nothing" or not row.labels["changes"]


@pytest.mark.parametrize(
    "row", [next(row for row in TASK.dev if len(row.labels["changes"]) == count) for count in (0, 1, 2)]
)
def test_the_agent_reads_acts_and_answers_with_what_changed(row: Example) -> None:
    room = next(iter(json.loads(row.inputs["home"])))

    def model(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        said = Counter(message["role"] for message in messages)
        assert messages[0] == {"role": "system", "content": "Be exact."}
        assert room in messages[1]["content"]
        assert row.inputs["request"] in messages[1]["content"]
        assert [tool["function"]["description"] for tool in body["tools"]] == ["Look.", "Do."]
        if said["assistant"] == 2 or (said["assistant"] and not calls_for(row)):
            return "Done."
        calls = calls_for(row) if said["assistant"] else [{"name": "read_state", "arguments": {"room": room}}]
        return json.dumps([{**call, "arguments": json.dumps(call["arguments"])} for call in calls])

    with WireServer(model) as server:
        texts = {"system": "Be exact.", "tool:read_state": "Look.", "tool:act": "Do."}
        answer = asyncio.run(AGENT.run(texts, dict(row.inputs), AgentModel(server.url, "key", "m")))
    assert METRIC.metric({"labels": row.labels}, {"fields": {"changes": answer}}) == {"value": 1.0, "reason": ""}
    assert len(server.requests) == (3 if calls_for(row) else 2)


def test_a_wrong_call_tells_the_model_what_there_is() -> None:
    home = {"hall": {"light": {"power": "off", "brightness": 50}, "temperature": 19}}

    def act(**changed: Any) -> Any:
        call = {"room": "hall", "device": "light", "setting": "power", "value": "on"} | changed
        return AGENT.carry_out(home, "act", json.dumps(call))

    assert act(room="attic") == {"error": "no room attic; there are hall"}
    assert act(device="temperature") == {"error": "no device temperature in the hall; there are light"}
    assert act(setting="speed") == {"error": "no setting speed; the light has power, brightness"}
    assert act(value="dim") == {"error": "power is one of on, off"}
    assert "error" in act(setting="brightness", value="high")
    assert "error" in AGENT.carry_out(home, "act", "[")
    assert AGENT.flat(home) == {"hall.light.power": "off", "hall.light.brightness": 50}
    assert act() == {"light": {"power": "on", "brightness": 50}}


def test_the_metric_says_what_is_wrong() -> None:
    right = {"hall.light.power": "on", "hall.thermostat.target": 20}

    def scored(made: Any) -> Any:
        return METRIC.metric({"labels": {"changes": right}}, {"fields": {"changes": made}})

    assert scored({"hall.light.power": "on", "hall.thermostat.target": 20.0})["value"] == 1
    assert scored({"hall.light.power": "on", "attic.fan.speed": 1}) == {
        "value": 0.0,
        "reason": "hall.thermostat.target should have become 20; attic.fan.speed should not have changed",
    }
    assert scored({**right, "hall.light.power": "off"})["reason"] == "hall.light.power became off instead of on"
    assert scored([])["value"] == 0
