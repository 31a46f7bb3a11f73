"""Every candidate is one that may be tried, has a place in the space of designs, and follows the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.programs.moves.prompt_parts import compressions
from agent.prompt.techniques import Rewrite, why_rejected
from agent.search.program import PROPOSED, Parent
from agent.types import FRESH, Constraints, Example, Field, Outcome, Prediction, Proposal, SearchSpace, Signature, Task
from tests.toys import make_task

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
    generator.rewrites.append(Rewrite("proposed-1", "Say which team it is.", "why", is_proposed=True))
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


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_a_child_differs_from_its_parent_in_one_thing(seed):
    for _, proposal, parent in everything(make_task(12, space=SPACE), seed):
        if parent is not None and proposal.candidate != parent.proposal.candidate:
            one, two = parent.proposal.candidate, proposal.candidate
            names = ("technique", "format", "instruction", "role", "demos")
            assert sum(getattr(one, name) != getattr(two, name) for name in names) == 1, proposal.operator


def test_the_bandit_credits_a_child_to_its_operator_and_an_instruction_of_the_proposer_to_the_proposer():
    task = make_task(12, space=SPACE)
    generator = CandidateGenerator(task, random.Random(3))
    written = Rewrite("proposed-1", "Say which team it is.", "why", is_proposed=True)
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
