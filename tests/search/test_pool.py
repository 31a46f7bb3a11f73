"""Every candidate of a pool is one that may be tried, has a place in the search space, and follows the seed."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.prompt.candidate import why_rejected
from agent.prompt.techniques import Rewrite, builtin_rewrites
from agent.search.pool import Parent, PoolMaker
from agent.types import Constraints, Outcome, Prediction, SearchSpace
from tests.toys import make_task

SPACE = SearchSpace(
    ("zero-shot", "few-shot", "chain-of-thought", "few-shot-cot"),
    ("turns", "inline", "dspy-chat"),
    (0, 3, 6, 50),
    ("You are R.",),
)


def everything(task, seed=0):
    """All entries of a first and a second round."""
    maker = PoolMaker(task, random.Random(seed))
    rewrites = builtin_rewrites(task)
    entries = [*maker.designs(rewrites), *maker.fresh(rewrites, 3)]
    seen = tuple(
        Outcome("c", row.id, Prediction({"team": "billing"}, "billing"), (), float(row.labels["team"] == "billing"))
        for row in task.dev
    )
    parents = [Parent(entry, seen) for entry in entries]
    maker.rationales.update({row.id: "Because." for row in task.train[:4]})
    entries += maker.reasoned()
    entries += maker.instructed([Rewrite("proposed", "Say which team it is.", "why")], parents[:2])
    entries += maker.children(parents, rewrites)
    return entries


def usable(task, entries):
    return [entry for entry in entries if not why_rejected(entry.candidate, task)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 1, 4]), st.integers(1, 12))
def test_demos_are_train_rows_and_never_more_than_allowed(seed, max_demos, rows):
    task = make_task(rows, space=SPACE, constraints=Constraints(max_demos=max_demos))
    for entry in everything(task, seed):
        assert why_rejected(entry.candidate, task) == ""
        assert max_demos is None or len(entry.candidate.demos) <= max_demos
        assert entry.point.candidate_id == entry.candidate.id
        assert set(entry.point.coordinates) == {"layout", "instruction", "demos"}
        assert entry.operator
        assert entry.candidate.technique in task.space.techniques
        assert entry.candidate.format in task.space.formats


def test_the_same_seed_makes_the_same_pool():
    task = make_task(12, space=SPACE)
    assert everything(task, 5) == everything(task, 5)
    assert everything(task, 5) != everything(task, 6)


def test_the_first_round_tries_each_technique_alone_and_each_format_with_demos():
    task = make_task(12, space=SPACE)
    designs = PoolMaker(task, random.Random(0)).designs(builtin_rewrites(task))
    assert {entry.candidate.technique for entry in designs} == {"zero-shot", "chain-of-thought", "few-shot"}
    assert {entry.candidate.format for entry in designs if entry.candidate.demos} == set(SPACE.formats)


def test_worked_demos_hold_only_rationales_that_were_verified():
    task = make_task(12, space=SPACE)
    worked = [entry for entry in everything(task) if entry.candidate.technique == "few-shot-cot"]
    assert worked
    assert all(
        demo.rationale == "Because." and demo.source == "target" for entry in worked for demo in entry.candidate.demos
    )


def test_without_few_shot_there_are_no_demos():
    task = make_task(12, space=SearchSpace(("zero-shot",), ("turns",), (3,)))
    assert not any(entry.candidate.demos for entry in everything(task))
