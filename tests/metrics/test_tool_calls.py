"""Tool calls: which answers are the calls that a label asks for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics.calls import ToolCall, calls_in
from agent.metrics.metric_rule import Options
from agent.metrics.tool_calls import CallOptions, right_tool, tool_calls, tool_choice
from agent.types import Field
from tests.cases import each_case
from tests.metrics.test_contract import JSON

CALLS = Field("calls", "json")
LIGHT = {"name": "set_light", "arguments": {"room": "living room", "level": 40}}
ALARM = {"name": "set_alarm", "arguments": {"time": "06:30", "days": ["mon", "tue"]}}


def scored(got: Any, label: Any, **options: Any) -> tuple[float | None, str]:
    return tool_calls(CallOptions(**options), CALLS)(got, label)


def changed(call: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return {**call, "arguments": {**call["arguments"], **arguments}}


@each_case(
    ("got", "label", "why"),
    [
        ([LIGHT], [LIGHT], ""),
        (LIGHT, [LIGHT], ""),
        ([ALARM, LIGHT], [LIGHT, ALARM], ""),
        ([], [], ""),
        ([changed(LIGHT, room="Living-Room")], [LIGHT], ""),
        ([changed(LIGHT, level=40.0)], [LIGHT], ""),
        ([changed(ALARM, days=["tue", "mon"])], [ALARM], ""),
        ([LIGHT], [], "no tool fits, and the answer calls set_light"),
        ([], [LIGHT], "missing: set_light"),
        ([LIGHT, LIGHT], [LIGHT], "extra: set_light"),
        ([ALARM], [LIGHT], "missing: set_light; extra: set_alarm"),
        ([changed(LIGHT, level="40")], [LIGHT], "set_light: level: expected 40, got 40"),
        ([changed(LIGHT, level=41)], [LIGHT], "set_light: level: expected 40, got 41"),
        ([changed(LIGHT, level=True)], [changed(LIGHT, level=1)], "set_light: level: expected 1, got true"),
        ([changed(LIGHT, colour="red")], [LIGHT], "set_light: colour is no argument that is wanted (got red)"),
        (
            [{"name": "set_light", "arguments": {"level": 40}}],
            [LIGHT],
            "set_light: room is missing (expected living room)",
        ),
        (
            [changed(ALARM, days=["mon", "mon"])],
            [ALARM],
            'set_alarm: days: expected ["mon", "tue"], got ["mon", "mon"]',
        ),
        ("set_light", [LIGHT], "set_light is no call"),
        ([{"name": "set_light"}], [LIGHT], "set_light: level is missing (expected 40)"),
        ([{"set_light": "level=40"}], [LIGHT], "the arguments of set_light are not JSON: level=40"),
        ([{"a": 1, "b": 2}], [LIGHT], '{"a": 1, "b": 2} is no call: it has no name and arguments'),
    ],
)
def test_an_answer_is_right_with_the_right_calls_alone(got: Any, label: Any, why: str) -> None:
    assert scored(got, label) == (float(not why), why)


def test_the_forms_of_the_providers_are_read_alike() -> None:
    plain = [ToolCall("set_light", LIGHT["arguments"])]
    openai = {
        "id": "1",
        "type": "function",
        "function": {"name": "set_light", "arguments": json.dumps(LIGHT["arguments"])},
    }
    anthropic = {"type": "tool_use", "id": "1", "name": "set_light", "input": LIGHT["arguments"]}
    for form in (LIGHT, openai, anthropic, {"set_light": LIGHT["arguments"]}):
        assert calls_in(form) == calls_in([form]) == plain
    assert calls_in({"name": "stop", "arguments": ""}) == [ToolCall("stop", {})]


def test_accepted_values_may_be_several_or_none() -> None:
    label = [{"find": {"place": ["New York", "NYC"], "radius": [5, ""], "filter": [{"open": [True], "stars": [4, 5]}]}}]
    right = {"place": "nyc", "filter": {"open": True, "stars": 5}}
    assert scored([{"find": right}], label, accepted=True) == (1.0, "")
    assert scored([{"find": {**right, "radius": 5}}], label, accepted=True)[0] == 1.0
    assert scored([{"find": {**right, "radius": 6}}], label, accepted=True) == (0.0, "find: radius: expected 5, got 6")
    wrong = scored([{"find": {**right, "place": "Boston"}}], label, accepted=True)
    assert wrong == (0.0, "find: place: expected New York or NYC, got Boston")
    assert scored([{"find": {**right, "filter": {"open": True, "stars": 3}}}], label, accepted=True)[0] == 0.0
    assert scored([], [{"find": {"place": "New York"}}], accepted=True)[0] is None


def test_the_order_of_a_list_may_matter() -> None:
    other = [changed(ALARM, days=["tue", "mon"])]
    assert (scored(other, [ALARM])[0], scored(other, [ALARM], ordered=True)[0]) == (1.0, 0.0)


def test_two_calls_of_one_tool_are_paired_as_they_fit() -> None:
    """The first call of the answer fits both of the label, the second one alone."""
    label = [{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]
    assert scored([{"f": {"x": 1}}, {"f": {"x": 2}}], label, accepted=True) == (1.0, "")
    assert scored([{"f": {"x": 2}}, {"f": {"x": 2}}], label, accepted=True) == (0.0, "f: x: expected 1, got 2")


def test_the_choice_of_tools_is_scored_apart() -> None:
    check = tool_choice(Options(), CALLS)
    assert check([changed(LIGHT, level=1)], [LIGHT]) == (1.0, "")
    assert check([ALARM, LIGHT], [LIGHT]) == (pytest.approx(2 / 3), "extra: set_alarm")
    assert check([{"name": "set_light", "arguments": "{broken"}], [LIGHT]) == (1.0, "")
    assert check("none", [])[0] == 0.0
    assert check([], [])[0] == 1.0


@given(st.lists(st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.sampled_from("ab"), JSON)), max_size=4))
def test_calls_agree_with_themselves_in_any_order(parts: list[tuple[str, dict[str, Any]]]) -> None:
    calls = [{"name": name, "arguments": arguments} for name, arguments in parts]
    assert scored(calls[::-1], calls) == (1.0, "")


@each_case(
    ("got", "label", "value", "why"),
    [
        ([LIGHT], [{"name": "set_light", "arguments": {}}], 1, ""),
        ([LIGHT, LIGHT], [LIGHT], 1, ""),
        ([LIGHT, ALARM], [LIGHT], 0, "extra: set_alarm"),
        ([], [], 1, ""),
        ([LIGHT], [], 0, "no tool fits, and the answer calls set_light"),
        ([LIGHT], {"not": ["set_alarm"]}, 1, ""),
        ([], {"not": ["set_alarm"]}, 1, ""),
        ([LIGHT, ALARM], {"not": ["set_alarm", "other"]}, 0, "calls set_alarm, which is not meant"),
        ("set_light", {"not": ["set_alarm"]}, 0, "set_light is no call"),
        ([LIGHT], "set_light", None, "the label cannot be used: set_light is no call"),
    ],
)
def test_the_right_tools_alone_count_and_an_excluded_one_must_not_be_called(
    got: Any, label: Any, value: float | None, why: str
) -> None:
    assert right_tool(Options(), CALLS)(got, label) == (value, why)
