"""Every candidate is one that may be tried, has a place in the space of designs, and follows the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.prompt.candidate import why_rejected
from agent.prompt.techniques import TECHNIQUES, Rewrite
from agent.search.pool import Breeder
from agent.search.program import Entry, Parent
from agent.types import Constraints, Example, Field, Outcome, Prediction, SearchSpace, Signature, Task
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


def seen_by(task: Task, entry: Entry, rng: random.Random) -> Parent:
    """What the candidate did on dev: each row is right or the first row's answer."""
    name = task.signature.outputs[0].name
    outcomes = []
    for row in task.dev:
        said = rng.choice([row.labels[name], task.dev[0].labels[name]])
        made = Prediction({name: said}, str(said))
        outcomes.append(Outcome(entry.candidate.id, row.id, made, (), float(said == row.labels[name])))
    return Parent(entry, tuple(outcomes))


def everything(task: Task, seed: int = 0) -> Iterator[tuple[Breeder, Entry, Parent | None]]:
    """Designs, new candidates of random places, and children of each operator; with the space as it then is."""
    rng = random.Random(seed)
    breeder = Breeder(task, rng)
    entries = breeder.designs()
    for entry in entries:
        yield breeder, entry, None
    breeder.rewrites.append(Rewrite("proposed-1", "Say which team it is.", "why"))
    breeder.rationales.update({row.id: "Because." for row in task.train[:4]})
    if alone := breeder.alone(breeder.rewrites[-1]):
        yield breeder, alone, None
    for _ in range(20):
        place = {name: rng.choice(choices) for name, choices in breeder.space().items()}
        if made := breeder.fresh(place):
            assert made.place == place
            entries.append(made)
            yield breeder, made, None
    parents = [seen_by(task, entry, rng) for entry in entries]
    for parent in parents:
        yield breeder, breeder.instructed(parent, breeder.rewrites[-1]), parent
        for operator in breeder.operators(parent):
            if child := breeder.child(operator, parent, parents):
                yield breeder, child, parent


def inside(place: object, breeder: Breeder) -> bool:
    space = breeder.space()
    return isinstance(place, dict) and set(place) == set(space) and all(place[name] in space[name] for name in space)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([None, 0, 1, 4]), st.integers(1, 12), st.sampled_from([make_task, free_task])
)
def test_every_candidate_may_be_tried_and_stands_where_it_says(seed, max_demos, rows, kind):
    task = replace(kind(rows), space=SPACE, constraints=Constraints(max_demos=max_demos))
    for breeder, entry, parent in everything(task, seed):
        candidate = entry.candidate
        assert why_rejected(candidate, task) == ""
        assert max_demos is None or len(candidate.demos) <= max_demos
        assert candidate.technique in task.space.techniques
        assert candidate.format in task.space.formats
        assert inside(entry.place, breeder), entry
        assert entry.operator
        assert entry.reason
        assert entry.parent_id == (parent.entry.candidate.id if parent else None)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_a_child_differs_from_its_parent_in_one_thing(seed):
    for _, entry, parent in everything(make_task(12, space=SPACE), seed):
        if parent is not None and entry.candidate != parent.entry.candidate:
            one, two = parent.entry.candidate, entry.candidate
            names = ("technique", "format", "instruction", "role", "demos")
            assert sum(getattr(one, name) != getattr(two, name) for name in names) == 1, entry.operator


def test_the_same_seed_makes_the_same_candidates():
    def made(seed: int) -> list[Entry]:
        return [entry for _, entry, _ in everything(make_task(12, space=SPACE), seed)]

    assert made(5) == made(5)
    assert made(5) != made(6)


def test_the_designs_try_each_technique_alone_and_each_format_with_demos():
    designs = Breeder(make_task(12, space=SPACE), random.Random(0)).designs()
    alone = {name for name, kind in TECHNIQUES.items() if not kind.demos}
    assert alone <= {entry.candidate.technique for entry in designs}
    assert {entry.candidate.format for entry in designs if entry.candidate.demos} == set(SPACE.formats)
    assert len({entry.candidate.id for entry in designs}) == len(designs)


def test_worked_demos_hold_only_rationales_that_were_verified():
    task = make_task(12, space=SPACE)
    worked = [entry for _, entry, _ in everything(task) if entry.candidate.technique == "few-shot-cot"]
    assert worked
    for entry in worked:
        for demo in entry.candidate.demos:
            assert (demo.rationale, demo.source) == ("Because.", "target")
            assert demo.example_id in {row.id for row in task.train[:4]}


def test_without_worked_solutions_no_place_has_the_technique_that_needs_them():
    breeder = Breeder(make_task(12, space=SPACE), random.Random(0))
    assert "few-shot-cot" not in breeder.space()["technique"]
    breeder.rationales.update({row.id: "Because." for row in make_task(12).train[:4]})
    assert "few-shot-cot" in breeder.space()["technique"]


@pytest.mark.parametrize("space", [SearchSpace(("zero-shot",), ("turns",), (3,)), replace(SPACE, demo_counts=(0,))])
def test_where_no_demos_are_asked_for_there_are_none(space):
    made = [entry for _, entry, _ in everything(make_task(12, space=space))]
    assert made
    assert not any(entry.candidate.demos for entry in made)


def test_an_operator_that_finds_nothing_to_change_says_so():
    task = make_task(12, space=SearchSpace(("few-shot",), ("turns",), (3,)))
    breeder = Breeder(task, random.Random(0))
    entry = next(entry for entry in breeder.designs() if entry.candidate.demos)
    parent = Parent(entry, ())
    assert "format" not in breeder.operators(parent)
    assert breeder.child("recombined", parent, [parent]) is None, "there is no second set"
    assert breeder.alone(breeder.rewrites[0]) is None, "no technique of the task is without demos"
