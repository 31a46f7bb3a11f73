"""Changes of the texts of tools without a model: orders, example calls, and back to the task's own words."""

from __future__ import annotations

import json
import random

from agent.programs.moves.part_moves import EXAMPLES, OWN, ToolMaker
from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.prompt.parts.tools import ToolTexts, with_texts
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.search.program import Choices, Parent
from agent.types import Example, MetricSpec, Outcome, Prediction, Proposal, Tool
from tests.programs.moves.proposals.planted_tools import SWAPPED, TOOLS, pick, planted
from tests.toys import make_task

TASK = planted(0)


def outcomes() -> list[Outcome]:
    """Those of the user's own prompt."""
    found = []
    for row in TASK.dev:
        calls = [{"name": pick(TOOLS, row.inputs["note"]), "arguments": {}}]
        prediction = Prediction({"calls": calls}, json.dumps(calls))
        found.append(Outcome("c", row.id, prediction, (), float(calls == row.labels["calls"]), "key"))
    return found


def maker(seed: int = 0) -> ToolMaker:
    rng = random.Random(seed)
    return ToolMaker(TASK, Choices(rng), rng)


def test_each_change_keeps_names_and_schemas_and_says_what_it_is() -> None:
    own, reasons = baseline(TASK), set[str]()
    for seed in range(40):
        changed = maker(seed).child("tools", as_prompt(own), outcomes())
        if changed is None:  # unchanged
            continue
        made, reason = changed
        assert made.tool_texts is not None
        assert made.tool_texts.why_other(TOOLS) == ""
        tools = with_texts(TOOLS, made.tool_texts)
        assert sorted((t.name, t.parameters) for t in tools) == sorted((t.name, t.parameters) for t in TOOLS)
        assert (made.instruction, made.demos) == (TASK.instruction, ())
        if reason == "two tools that are mixed up stand apart":
            assert {tools[0].name, tools[-1].name} == set(SWAPPED)
        if reason == "the tools that are mixed up most come first":
            assert {tool.name for tool in tools[:2]} == set(SWAPPED)
        reasons.add(reason.split(" of ")[0])
    assert len(reasons) == 4
    texts = ToolTexts(descriptions=(("send_repair", "X"),))
    other = PromptCandidate("zero-shot", "turns", "x", tool_texts=texts)
    back = [found for seed in range(40) if (found := maker(seed).child("tools", other, outcomes()))]
    assert {made.tool_texts for made, reason in back if "own texts" in reason} == {None}


def test_a_second_example_has_other_arguments_and_a_third_is_not_given() -> None:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("room", "colour")},
        "required": ["room"],
    }
    calls = [
        {"room": "hall"},
        {"room": "office"},
        {"room": "hall", "colour": "red"},
        {"room": "office", "colour": "blue"},
    ]
    task = make_task(
        tools=(Tool("light", "Light.", json.dumps(schema)),),
        signature=TASK.signature,
        metrics=(MetricSpec("tool_calls", "calls"),),
        train=tuple(
            Example(str(at), {"note": "x" * (at + 1)}, {"calls": [{"name": "light", "arguments": call}]})
            for at, call in enumerate(calls)
        ),
    )
    made = PromptCandidate("zero-shot", "turns", "x")
    for rng in map(random.Random, range(60)):
        changed = ToolMaker(task, Choices(rng), rng).child("tools", made, [])
        made = changed[0] if changed and "example" in changed[1] else made
    assert with_texts(task.tools, made.tool_texts)[0].description == (
        'Light. Arguments: room. Only if said: colour. For "x" call it with {"room": "hall"}. '
        'For "xxx" call it with {"room": "hall", "colour": "red"}.'
    )


def test_texts_are_a_coordinate_of_designs_only_where_there_are_tools() -> None:
    generator = CandidateGenerator(TASK, random.Random(0))
    assert generator.space()["tools"] == (OWN, EXAMPLES)
    first = [proposal for proposal in generator.designs() if as_prompt(proposal.candidate).tool_texts]
    assert [proposal.operator for proposal in first] == ["zero-shot:own+tools"]
    assert "tools" not in CandidateGenerator(make_task(), random.Random(0)).space()
    parent = Parent(Proposal(baseline(TASK), generator.place(as_prompt(baseline(TASK))), "op", None, ""), ())
    assert "tools" in generator.operators(parent)
    child = generator.child("tools", parent, [])
    assert child is not None
    assert child.credit == "tools"
