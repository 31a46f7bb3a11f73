"""Every candidate is one that may be tried, has a place in the space of designs, and follows the seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.demos import most_examples
from agent.programs.moves.part_moves import EXAMPLES, FEWEST_ROWS, MOST_POOL_LETTERS, OWN, ToolMaker, pick_sizes
from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.programs.moves.prompt_parts import compressions, features_of, leave_one_out
from agent.programs.prompt import PromptProgram
from agent.prompt.parts.tools import ToolTexts, with_texts
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.prompt.techniques import Rewrite, why_rejected
from agent.retrieval.pick import RETRIEVERS
from agent.search.program import PROPOSED, Choices, Parent
from agent.types import (
    FRESH,
    Constraints,
    Example,
    Field,
    MetricSpec,
    Outcome,
    Prediction,
    Proposal,
    SearchSpace,
    Signature,
    Task,
    Tool,
)
from tests.programs.moves.proposals.planted_tools import SWAPPED, TOOLS, pick, planted
from tests.toys import FakeModel, make_task

SPACE = SearchSpace(
    ("zero-shot", "few-shot", "chain-of-thought", "few-shot-cot"),
    ("turns", "inline", "dspy-chat"),
    (3, 6, 50),
    ("You are R.",),
)
FREE = Signature((Field("message"),), (Field("total", "number"),))


def free_task(rows: int = 12) -> Task:
    """A task without classes."""

    def split(name: str) -> tuple[Example, ...]:
        return tuple(Example(f"{name}-{n}", {"message": f"add {n} and {n}"}, {"total": 2 * n}) for n in range(rows))

    return make_task(rows, signature=FREE, train=split("train"), dev=split("dev"), test=split("test"), space=SPACE)


def seen_by(task: Task, proposal: Proposal, rng: random.Random) -> Parent:
    """What the candidate did on dev: each row is right or the first row's answer."""
    name = task.signature.outputs[0].name
    outcomes = []
    for row in task.dev:
        said = rng.choice([row.labels[name], task.dev[0].labels[name]])
        made = Prediction({name: said}, str(said))
        outcomes.append(Outcome(proposal.candidate.id, row.id, made, (), float(said == row.labels[name])))
    return Parent(proposal, tuple(outcomes))


def everything(task: Task, seed: int = 0) -> Iterator[tuple[CandidateGenerator, Proposal, Parent | None]]:
    """Designs, new candidates of random places, and children of each operator; with the space as it then is."""
    rng = random.Random(seed)
    generator = CandidateGenerator(task, rng)
    proposals = generator.designs()
    for proposal in proposals:
        yield generator, proposal, None
    generator.rewrites.append(Rewrite("proposed-1", "Say which team it is.", "why", credit=PROPOSED))
    generator.rationales.update({row.id: "Because." for row in task.train[:4]})
    if alone := generator.alone(generator.rewrites[-1]):
        yield generator, alone, None
    for _ in range(20):
        place = {name: rng.choice(choices) for name, choices in generator.space().items()}
        if made := generator.fresh(place):
            assert made.place == place
            proposals.append(made)
            yield generator, made, None
    parents = [seen_by(task, proposal, rng) for proposal in proposals]
    for parent in parents:
        yield generator, generator.instructed(parent, generator.rewrites[-1]), parent
        for operator in generator.operators(parent):
            if child := generator.child(operator, parent, parents):
                yield generator, child, parent


def inside(place: object, generator: CandidateGenerator) -> bool:
    space = generator.space()
    return isinstance(place, dict) and set(place) == set(space) and all(place[name] in space[name] for name in space)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([None, 0, 1, 4]), st.integers(1, 12), st.sampled_from([make_task, free_task])
)
def test_every_candidate_may_be_tried_and_stands_where_it_says(seed, max_examples, rows, kind):
    task = replace(kind(rows), space=SPACE, constraints=Constraints(max_examples=max_examples))
    for generator, proposal, parent in everything(task, seed):
        candidate = proposal.candidate
        assert why_rejected(candidate, task) == ""
        assert max_examples is None or len(candidate.demos) <= max_examples
        assert candidate.technique in task.space.techniques
        assert candidate.format in task.space.formats
        assert inside(proposal.place, generator), proposal
        assert proposal.operator
        assert proposal.reason
        assert proposal.parent_id == (parent.proposal.candidate.id if parent else None)
        if parent is not None and candidate != parent.proposal.candidate:
            names = ("technique", "format", "instruction", "role", "demos")
            before = parent.proposal.candidate
            assert sum(getattr(before, name) != getattr(candidate, name) for name in names) == 1, proposal.operator


def test_the_bandit_credits_a_child_to_its_operator_and_an_instruction_of_the_proposer_to_the_proposer():
    task = make_task(12, space=SPACE)
    generator = CandidateGenerator(task, random.Random(3))
    written = Rewrite("proposed-1", "Say which team it is.", "why", credit=PROPOSED)
    generator.rewrites.append(written)
    designs = generator.designs()
    assert {design.credit for design in designs} == {FRESH}
    assert generator.alone(written).credit == PROPOSED
    for parent in (seen_by(task, design, random.Random(3)) for design in designs):
        assert generator.instructed(parent, written).credit == PROPOSED
        assert generator.instructed(parent, generator.rewrites[1]).credit == "instruction"
        assert {one.credit for one in compressions(parent.proposal, task)} <= {"compress"}
        for operator in {*generator.operators(parent)} - {"compress", "instruction"}:
            child = generator.child(operator, parent, [])
            assert child is None or child.credit == operator


def test_worked_demos_hold_only_rationales_that_were_verified():
    task = make_task(12, space=SPACE)
    worked = [proposal for _, proposal, _ in everything(task) if proposal.candidate.technique == "few-shot-cot"]
    assert worked
    for proposal in worked:
        for demo in proposal.candidate.demos:
            assert (demo.rationale, demo.source) == ("Because.", "target")
            assert demo.example_id in {row.id for row in task.train[:4]}


def test_without_worked_solutions_no_place_has_the_technique_that_needs_them():
    generator = CandidateGenerator(make_task(12, space=SPACE), random.Random(0))
    assert "few-shot-cot" not in generator.space()["technique"]
    generator.rationales.update({row.id: "Because." for row in make_task(12).train[:4]})
    assert "few-shot-cot" in generator.space()["technique"]


def test_an_operator_that_finds_nothing_to_change_says_so():
    task = make_task(12, space=SearchSpace(("few-shot",), ("turns",), (3,)))
    generator = CandidateGenerator(task, random.Random(0))
    proposal = next(proposal for proposal in generator.designs() if proposal.candidate.demos)
    parent = Parent(proposal, ())
    assert "format" not in generator.operators(parent)
    assert generator.child("recombined", parent, [parent]) is None, "there is no second set"
    assert generator.alone(generator.rewrites[0]) is None, "no technique of the task is without examples"


PICKING = SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (4, 8, 16), retrieval=True)
PICKS = make_task(40, space=PICKING)
OPERATORS = ("pick", "repick", "head", "fix")


def generator(task: Task = PICKS, seed: int = 0) -> CandidateGenerator:
    return CandidateGenerator(task, random.Random(seed))


def family(seed: int, steps: int = 150) -> list[Proposal]:
    """Designs, and then changes of any of them by any operator."""
    made = generator(seed=seed)
    known, rng = made.designs(), random.Random(seed)
    for _ in range(steps):
        parent = Parent(rng.choice(known), ())
        operator = rng.choice(
            [name for name in made.operators(parent) if name not in ("compress", "swapped", "rebalanced")]
        )
        if (child := made.child(operator, parent, ())) is not None:
            known.append(child)
    return known


def picked(proposals: list[Proposal]) -> list[PromptCandidate]:
    return [prompt for each in proposals if (prompt := as_prompt(each.candidate)).part("picks") is not None]


def test_each_place_gives_what_it_says() -> None:
    made, rng = generator(), random.Random(1)
    space = made.space()
    assert space["retriever"] == ("none", *RETRIEVERS)
    for _ in range(100):
        place = {name: rng.choice(choices) for name, choices in space.items()}
        proposal = made.fresh(place)
        assert proposal is not None
        picks = as_prompt(proposal.candidate).part("picks")
        if place["technique"] == "zero-shot" or place["retriever"] == "none":
            assert picks is None
        else:
            assert picks is not None
            assert (picks.retriever, str(picks.k), picks.order) == tuple(
                place[name] for name in ("retriever", "picked", "pick_order")
            )


@pytest.mark.parametrize("seed", range(3))
def test_changes_keep_every_rule_and_are_the_same_for_the_same_seed(seed: int) -> None:
    proposals = family(seed)
    assert [each.candidate.id for each in proposals] == [each.candidate.id for each in family(seed)]
    program = PromptProgram(PICKS, FakeModel(lambda request: ""))
    for each in proposals:
        assert program.check(each.candidate) == ""
        assert as_prompt(each.candidate).n_examples <= most_examples(PICKS)


def off() -> list[Task]:
    long = Example("train-0", {"message": "x" * (MOST_POOL_LETTERS + 1)}, {"team": "billing"})
    return [
        replace(PICKS, space=replace(PICKING, retrieval=False)),
        replace(PICKS, space=replace(PICKING, techniques=("zero-shot",))),
        make_task(FEWEST_ROWS - 1, space=PICKING),
        replace(PICKS, constraints=Constraints(max_examples=3)),
        replace(PICKS, train=(long, *PICKS.train[1:])),
    ]


@pytest.mark.parametrize("number", range(len(off())))
def test_nothing_is_picked_where_it_may_not_be(number: int) -> None:
    task = off()[number]
    made = generator(task)
    assert pick_sizes(task) == []
    assert not {"retriever", "picked", "pick_order"} & set(made.space())
    assert not picked(made.designs())
    for proposal in made.designs():
        assert not set(OPERATORS) & set(made.operators(Parent(proposal, ())))


def test_the_part_that_picks_can_be_told_apart_and_left_out() -> None:
    prompt = next(each for each in picked(family(1)) if each.demos)
    assert features_of(prompt)["picked examples", prompt.part("picks").retriever] == 1.0
    without = leave_one_out(prompt, baseline(PICKS))
    assert without["picked examples"] == prompt.having(picks=None)
    assert without["examples"] == replace(prompt, demos=())
    part = as_prompt(leave_one_out(replace(prompt, demos=()), baseline(PICKS))["picked examples"])
    assert (part.technique, part.part("picks")) == ("zero-shot", None)


CALLED = planted(0)


def called_outcomes() -> list[Outcome]:
    """Those of the user's own prompt."""
    found = []
    for row in CALLED.dev:
        calls = [{"name": pick(TOOLS, row.inputs["note"]), "arguments": {}}]
        prediction = Prediction({"calls": calls}, json.dumps(calls))
        found.append(Outcome("c", row.id, prediction, (), float(calls == row.labels["calls"]), "key"))
    return found


def maker(seed: int = 0) -> ToolMaker:
    rng = random.Random(seed)
    return ToolMaker(CALLED, Choices(rng), rng)


def test_each_change_keeps_names_and_schemas_and_says_what_it_is() -> None:
    own, reasons = baseline(CALLED), set[str]()
    for seed in range(40):
        changed = maker(seed).child("tools", as_prompt(own), called_outcomes())
        if changed is None:  # unchanged
            continue
        made, reason = changed
        assert made.part("tool_texts") is not None
        assert made.part("tool_texts").why_other(TOOLS) == ""
        tools = with_texts(TOOLS, made.part("tool_texts"))
        assert sorted((t.name, t.parameters) for t in tools) == sorted((t.name, t.parameters) for t in TOOLS)
        assert (made.instruction, made.demos) == (CALLED.instruction, ())
        if reason == "two tools that are mixed up stand apart":
            assert {tools[0].name, tools[-1].name} == set(SWAPPED)
        if reason == "the tools that are mixed up most come first":
            assert {tool.name for tool in tools[:2]} == set(SWAPPED)
        reasons.add(reason.split(" of ")[0])
    assert len(reasons) == 4
    texts = ToolTexts(texts=(("send_repair", "", "X"),))
    other = PromptCandidate("zero-shot", "turns", "x").having(tool_texts=texts)
    back = [found for seed in range(40) if (found := maker(seed).child("tools", other, called_outcomes()))]
    assert {made.part("tool_texts") for made, reason in back if "own texts" in reason} == {None}


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
        signature=CALLED.signature,
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
    assert with_texts(task.tools, made.part("tool_texts"))[0].description == (
        'Light. Arguments: room. Only if said: colour. For "x" call it with {"room": "hall"}. '
        'For "xxx" call it with {"room": "hall", "colour": "red"}.'
    )


def test_texts_are_a_coordinate_of_designs_only_where_there_are_tools() -> None:
    generator = CandidateGenerator(CALLED, random.Random(0))
    assert generator.space()["tools"] == (OWN, EXAMPLES)
    first = [proposal for proposal in generator.designs() if as_prompt(proposal.candidate).part("tool_texts")]
    assert [proposal.operator for proposal in first] == ["zero-shot:own+tools"]
    assert "tools" not in CandidateGenerator(make_task(), random.Random(0)).space()
    parent = Parent(Proposal(baseline(CALLED), generator.place(as_prompt(baseline(CALLED))), "op", None, ""), ())
    assert "tools" in generator.operators(parent)
    child = generator.child("tools", parent, [])
    assert child is not None
    assert child.credit == "tools"
