"""Which tool was called in the place of which: by hand, and so that no call is lost."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.evaluate import answer_counts
from agent.metrics.calls import NO_CALL, paired_names
from agent.types import Example, Field, Outcome, Prediction, Score, Tool
from tests.json_of import json_of
from tests.toys import two_sides

by_tool = json_of(answer_counts.by_tool)

TOOLS = tuple(Tool(name, "", '{"type": "object"}') for name in ("light", "scene", "lock"))
NAMES = st.lists(st.sampled_from([tool.name for tool in TOOLS]), max_size=4)


def cells(*rows: tuple[list[str], Any]) -> dict[tuple[str, str | None], int]:
    """By right tool and called tool, over rows of right tools and the answer (None: unreadable)."""
    examples, outcomes = [], []
    for number, (right, said) in enumerate(rows):
        examples.append(Example(f"r{number}", {}, {"calls": [{"name": name, "arguments": {}} for name in right]}))
        fields, error = ({"calls": said}, "") if said is not None else ({}, "no calls")
        prediction = Prediction(fields, json.dumps(said), error)
        outcomes.append(Outcome("c", f"r{number}", prediction, (Score("tool_calls", 0.0),), 0.0, "key"))
    (report,) = by_tool(two_sides(examples, outcomes, outcomes), Field("calls", "json"), TOOLS)
    assert report["labels"] == ["light", "scene", "lock", NO_CALL]
    return {(cell["label"], cell["said"]): cell["rows"] for cell in report["winner"]["cells"]}


def test_calls_are_counted_by_hand() -> None:
    assert cells(
        (["light"], [{"name": "scene", "arguments": {}}]),
        (["light", "lock"], [{"name": "lock", "arguments": "{"}, {"name": "light", "arguments": {}}]),
        ([], []),
        ([], [{"name": "scene", "arguments": {}}]),
        (["lock"], []),
        (["lock"], [{"name": "no_such_tool", "arguments": {}}]),
        (["light", "scene"], None),
    ) == {
        ("light", "light"): 1,
        ("light", "scene"): 1,
        ("light", None): 1,
        ("scene", None): 1,
        ("lock", "lock"): 1,
        ("lock", None): 1,
        ("lock", NO_CALL): 1,
        (NO_CALL, NO_CALL): 1,
        (NO_CALL, "scene"): 1,
    }
    assert by_tool(two_sides([], [], []), Field("calls", "json"), ()) == []


@given(NAMES, NAMES)
def test_every_wanted_and_every_made_call_stands_in_one_pair(wanted: list[str], said: list[str]) -> None:
    pairs = paired_names(wanted, said)
    assert Counter(name for name, _ in pairs if name != NO_CALL) == Counter(wanted)
    assert Counter(name for _, name in pairs if name != NO_CALL) == Counter(said)
    assert pairs == paired_names(wanted[::-1], said[::-1])
