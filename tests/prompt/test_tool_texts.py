"""Texts of tools: only what differs is kept, whatever goes through them comes back, and names and schemas stay."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.prompt.parts.tools import (
    ORDER,
    ToolTexts,
    argument_texts,
    as_text,
    shown_texts,
    tool_changes,
    with_argument,
    with_texts,
)
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import why_rejected
from agent.types import Constraints, Tool
from tests.toys import make_task

LIGHT = Tool(
    "set_light",
    "Switches a light.",
    json.dumps(
        {
            "type": "object",
            "properties": {"room": {"type": "string"}, "on": {"type": "boolean", "description": "or off"}},
        }
    ),
)
SCENE = Tool("set_scene", "", json.dumps({"type": "object", "properties": {"scene": True}}))
PLAY = Tool("play", "Plays.", json.dumps({"type": "object"}))
OWN = (LIGHT, SCENE, PLAY)
TEXTS = st.text(max_size=12)


def plain(tool: Tool) -> tuple[str, Any]:
    """The tool without its texts."""
    schema = json.loads(tool.parameters)
    for about in schema.get("properties", {}).values():
        if isinstance(about, dict):
            about.pop("description", None)
    return tool.name, schema


@st.composite
def others(draw: st.DrawFn) -> tuple[Tool, ...]:
    """The same tools with other texts, in another order."""
    made = []
    for tool in draw(st.permutations(OWN)):
        new = Tool(tool.name, draw(st.just(tool.description) | TEXTS), tool.parameters)
        for name in argument_texts(tool):
            if draw(st.booleans()):
                new = with_argument(new, name, draw(TEXTS))
        made.append(new)
    return tuple(made)


@settings(max_examples=150)
@given(others())
def test_what_differs_turns_the_tasks_tools_into_the_others_and_survives_json(new: tuple[Tool, ...]) -> None:
    texts = ToolTexts.between(OWN, new)
    got = with_texts(OWN, texts)
    assert [(t.name, t.description, argument_texts(t)) for t in got] == [
        (t.name, t.description, argument_texts(t)) for t in new
    ]
    assert sorted(map(plain, got), key=lambda one: one[0]) == sorted(map(plain, OWN), key=lambda one: one[0])
    if texts is None:
        assert got == OWN
        return
    assert texts.why_other(OWN) == ""
    assert ToolTexts.between(OWN, got) == texts
    assert ToolTexts.of(json.loads(json.dumps(texts.as_dict()))) == texts
    shown = json.loads(as_text(shown_texts(texts, OWN)))
    assert ToolTexts.of(shown) == texts
    changes = {change.what: change for change in tool_changes(shown)}
    assert len(changes) == len(texts.texts) + bool(texts.order)
    for tool, name, text in texts.texts:
        if not name:
            assert (changes[tool].before, changes[tool].after) == ({t.name: t.description for t in OWN}[tool], text)
    if texts.order:
        assert changes[ORDER].before == "set_light, set_scene, play"


def test_a_candidate_without_texts_of_tools_is_the_one_that_it_was() -> None:
    plain_one = PromptCandidate("zero-shot", "turns", "Call a tool.")
    assert plain_one.id == "c_a09f927c4bcda1ec"
    assert "tool_texts" not in plain_one.parts()
    other = PromptCandidate("zero-shot", "turns", "Call a tool.").having(
        tool_texts=ToolTexts(texts=(("play", "", "X"),))
    )
    assert other.id != plain_one.id


def test_texts_that_break_a_hard_rule_are_rejected() -> None:
    def why(texts: ToolTexts, forbidden: tuple[str, ...] = ()) -> str:
        task = make_task(tools=OWN, constraints=Constraints(forbidden=forbidden))
        return why_rejected(PromptCandidate("zero-shot", "turns", "Call a tool.").having(tool_texts=texts), task)

    assert why(ToolTexts(texts=(("play", "", "Plays music."),))) == ""
    assert "forbidden text" in why(ToolTexts(texts=(("play", "", "Plays MUSIC."),)), ("music",))
    assert "forbidden text" in why(ToolTexts(texts=(("set_light", "on", "the music"),)), ("music",))
    assert "lone surrogate" in why(ToolTexts(texts=(("play", "", "\ud800"),)))
    assert "a tool that the task does not have: stop" in why(ToolTexts(texts=(("stop", "", "X"),)))
    assert "no tool of the task has: scene" in why(ToolTexts(texts=(("set_scene", "scene", "X"),)))
    assert "orders other tools" in why(ToolTexts(order=("play", "set_light")))
