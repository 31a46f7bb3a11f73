"""Which rows a prompt picks: never itself or its near-duplicates, a row of the head, or a row of another task."""

from __future__ import annotations

import random
from dataclasses import replace

from agent.programs.prompt import PromptProgram
from agent.prompt.parts.examples import as_demo
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import hostile_rows
from agent.retrieval.pick import Picks
from agent.types import Constraints, Example, Field, Signature
from tests.release.formats.kinds import ODD, WORDS
from tests.toys import FakeModel, make_task

NAMES = ("message", "context")
SIGNATURE = Signature((Field("message"), Field("context")), (Field("team", "choice", choices=("billing", "delivery")),))


def row(number: int) -> Example:
    text = " ".join(random.Random(number).choices(WORDS, k=5))
    inputs = {"message": f"{text} {ODD[number % len(ODD)]}", "context": text[:9]}
    return Example(f"t{number}", inputs, {"team": ("billing", "delivery")[number % 2]})


TASK = make_task(3, signature=SIGNATURE, train=tuple(map(row, range(30))))
PROGRAM = PromptProgram(TASK, FakeModel(lambda request: "billing"))
HEAD = tuple(map(as_demo, TASK.train[:3]))
PICKING = PromptCandidate("few-shot", "turns", "Route {{picked examples}}.", "", HEAD).having(
    picks=Picks("bm25", 4, pool=PROGRAM.pool.id)
)


def asked() -> list[Example]:
    rows = [Example(f"x{n}", values, {"team": "billing"}) for n, values in enumerate(hostile_rows(NAMES))]
    return [*rows, *(replace(row(n), id=f"dev{n}") for n in range(100, 110))]


def test_a_train_row_never_sees_itself_or_its_near_duplicates() -> None:
    twins = [replace(row(7), id="twin"), replace(row(7), id="other", inputs={**row(7).inputs, "context": "x"})]
    task = replace(TASK, train=(*TASK.train, *twins))
    pool = PickedRows(task)
    prompt = PromptCandidate("few-shot", "turns", "Route.").having(picks=Picks("hybrid", 16, pool=pool.id))
    for example in task.train:
        assert example.id not in {task.train[at].id for at in pool.positions(prompt, example)}
    assert not {task.train[at].id for at in pool.positions(prompt, row(7))} & {"t7", "twin"}
    fresh = replace(row(7), id="dev-1")  # in production nothing else is known of it, so its nearest row is shown
    assert task.train[pool.positions(prompt, fresh)[-1]].id == "t7"
    eight = replace(fresh, inputs=row(8).inputs)
    assert pool.positions(prompt, replace(eight, id="t7")) == pool.positions(prompt, eight)


def test_a_row_of_the_head_is_not_picked_again() -> None:
    prompt = PICKING.having(picks=Picks("bm25", 12, pool=PROGRAM.pool.id))
    for example in asked():
        assert min(PROGRAM.pool.positions(prompt, example)) >= len(HEAD)


def test_the_hash_of_a_prompt_without_picks_is_as_before_and_every_setting_counts() -> None:
    plain = PICKING.having(picks=None)
    assert set(plain.parts()) == {"technique", "format", "instruction", "role", "demos"}
    other = PICKING.having(picks=Picks("bm25", 5, pool=PROGRAM.pool.id))
    assert len({plain.id, PICKING.id, other.id}) == 3


def test_limits_hold_for_the_longest_prompt_that_can_be() -> None:
    for prompt in (PICKING, replace(PICKING, demos=())):
        sizes = [
            sum(len(message.content.split()) for message in PROGRAM.request(prompt, example).messages)
            - sum(len(text.split()) for text in example.inputs.values())
            for example in (*TASK.train, *asked())
        ]
        assert max(sizes) <= PROGRAM.most_prompt_tokens(prompt)
        assert min(sizes) - 5 <= PROGRAM.prompt_tokens(prompt) <= PROGRAM.most_prompt_tokens(prompt)


def test_what_breaks_a_rule_is_rejected() -> None:
    narrow = PromptProgram(replace(TASK, constraints=Constraints(max_examples=5)), FakeModel(lambda request: ""))
    assert narrow.check(replace(PICKING, demos=HEAD[:1])) == ""
    assert narrow.check(PICKING) == "7 examples, more than max_examples = 5"
    other = PromptProgram(replace(TASK, train=TASK.train[:-1]), FakeModel(lambda request: ""))
    assert "picked out of pool_" in other.check(PICKING)
    assert "no reasons to show" in PROGRAM.check(replace(PICKING, technique="few-shot-cot"))
    dense = PICKING.having(picks=Picks("dense", 4, pool=PROGRAM.pool.id))
    assert PROGRAM.check(dense) == "its examples are picked by dense, and the task names no embeddings"
