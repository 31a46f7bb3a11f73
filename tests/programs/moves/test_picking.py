"""Designs and changes with picked examples: valid, the same for the same seed, and none where nothing may be picked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.programs.moves.demos import most_examples
from agent.programs.moves.part_moves import FEWEST_ROWS, MOST_POOL_LETTERS, pick_sizes
from agent.programs.moves.prompt_moves import CandidateGenerator
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.retrieval.pick import RETRIEVERS
from agent.search.program import Parent
from agent.types import Constraints, Example, Proposal, SearchSpace, Task
from tests.toys import FakeModel, make_task

SPACE = SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (4, 8, 16), retrieval=True)
TASK = make_task(40, space=SPACE)
OPERATORS = ("pick", "repick", "head", "fix")


def generator(task: Task = TASK, seed: int = 0) -> CandidateGenerator:
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
    return [prompt for each in proposals if (prompt := as_prompt(each.candidate)).picks is not None]


def test_each_place_gives_what_it_says() -> None:
    made, rng = generator(), random.Random(1)
    space = made.space()
    assert space["retriever"] == ("none", *RETRIEVERS)
    for _ in range(100):
        place = {name: rng.choice(choices) for name, choices in space.items()}
        proposal = made.fresh(place)
        assert proposal is not None
        picks = as_prompt(proposal.candidate).picks
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
    program = PromptProgram(TASK, FakeModel(lambda request: ""))
    for each in proposals:
        assert program.check(each.candidate) == ""
        assert as_prompt(each.candidate).n_examples <= most_examples(TASK)


def off() -> list[Task]:
    long = Example("train-0", {"message": "x" * (MOST_POOL_LETTERS + 1)}, {"team": "billing"})
    return [
        replace(TASK, space=replace(SPACE, retrieval=False)),
        replace(TASK, space=replace(SPACE, techniques=("zero-shot",))),
        make_task(FEWEST_ROWS - 1, space=SPACE),
        replace(TASK, constraints=Constraints(max_examples=3)),
        replace(TASK, train=(long, *TASK.train[1:])),
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
    assert features_of(prompt)["picked examples", prompt.picks.retriever] == 1.0  # type: ignore[union-attr]
    without = {one.part: as_prompt(one.candidate) for one in leave_one_out(prompt, baseline(TASK))}
    assert without["picked examples"] == replace(prompt, picks=None)
    assert without["examples"] == replace(prompt, demos=())
    alone = replace(prompt, demos=())
    (part,) = [one for one in leave_one_out(alone, baseline(TASK)) if one.part == "picked examples"]
    assert (as_prompt(part.candidate).technique, as_prompt(part.candidate).picks) == ("zero-shot", None)
