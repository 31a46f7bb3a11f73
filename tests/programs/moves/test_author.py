"""What models are asked for: grounded, bounded, checked before it costs a call, and nothing when they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.errors import BudgetExhausted, RowRefused, RunRefused
from agent.gateway.budget import HeldBack
from agent.ledger.store import Ledger
from agent.programs.moves.asking import Asker, replies_to
from agent.programs.moves.author import STYLES, rationales, whole_question
from agent.programs.moves.evidence import best_instructions, wrong_rows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Parent
from agent.types import Completion, FinishReason, Proposal, Request, SearchSpace
from tests.search.worlds import TASK, Searched, any_skill, good_words, made_search, proposer, pupil, with_baseline
from tests.toys import FakeModel


async def proposed(context: SearchContext, parents: Sequence[Parent]) -> str | None:
    """A new instruction for the whole task."""
    failures = [wrong.line for parent in parents for wrong in wrong_rows(context.dev, parent.outcomes)]
    question = whole_question(context.task, best_instructions(context.trials), failures, STYLES[0], context.rng)
    return next(iter(await replies_to(Asker(context, PROPOSED), question)), None)


WORKED = replace(TASK, space=SearchSpace(("zero-shot", "chain-of-thought", "few-shot-cot"), ("turns",), (3,)))


async def test_it_is_shown_what_was_tried_with_its_score_and_where_the_best_fails(ledger: Ledger) -> None:
    author = proposer(good_words)
    found = made_search(ledger, FakeModel(pupil(lambda front: 0.5)), author)
    await with_baseline(found)
    made = await proposed(found.context, found.trials.parents(1))
    asked = author.seen[0].messages[-1].content
    assert TASK.instruction in asked
    assert f"{found.trials.mean(found.context.baseline.id):.2f}" in asked
    wrong = next(o for o in found.trials.outcomes[found.context.baseline.id] if o.value == 0.0)
    row = next(row for row in found.context.dev if row.id == wrong.example_id)
    assert " ".join(row.inputs["message"].split()) in asked
    assert made == "Say which team deals with this note, edition 1."


class Ending(FakeModel):
    """A proposer whose replies end for a given reason."""

    def __init__(self, text: str, finish: FinishReason) -> None:
        super().__init__(lambda request: text, "fake/author")
        self._finish = finish

    async def complete(self, request: Request) -> Completion:
        return replace(await super().complete(request), finish=self._finish)


WHOLE = "Read the message and name the one team that deals with it."


@pytest.mark.parametrize(
    ("text", "finish", "why"),
    [
        ("I'm sorry, but I can't help with rewriting that instruction.", "refusal", "refused to write"),
        (f"<instruction>{WHOLE} Answer billing for refunds, and answer question if the", "length", "cut off"),
        (f"{WHOLE} Answer billing for refunds, and answer question if the", "length", "cut off"),
    ],
)
async def test_a_refusal_or_half_an_instruction_is_none(
    ledger: Ledger, text: str, finish: FinishReason, why: str
) -> None:
    found = made_search(ledger, FakeModel(pupil()), Ending(text, finish))
    assert await proposed(found.context, []) is None
    ((kind, body),) = found.written.events
    assert kind == "proposal_refused"
    assert why in body["why"]


async def test_a_proposer_that_fails_costs_the_run_nothing_but_that_call(ledger: Ledger) -> None:
    def fails(request: Request) -> str:
        raise RowRefused("the request is too long")

    found = made_search(ledger, FakeModel(pupil()), FakeModel(fails, "fake/author"))
    assert await proposed(found.context, []) is None
    assert found.written.events == [
        ("proposal_failed", {"round": 0, "operator": "proposed", "error": "the request is too long"})
    ]


async def test_what_ends_the_run_or_the_budget_is_not_swallowed(ledger: Ledger) -> None:
    def refused(request: Request) -> str:
        raise RunRefused("the key was refused")

    found = made_search(ledger, FakeModel(pupil()), FakeModel(refused, "fake/author"))
    found.context.account.hold_back(HeldBack(found.context.plan.calls))
    with pytest.raises(BudgetExhausted):
        await proposed(found.context, [])
    found.context.account.hold_back(HeldBack())
    with pytest.raises(RunRefused):
        await proposed(found.context, [])


# -- worked solutions --------------------------------------------------------------------------------------------------


async def thinking(ledger: Ledger) -> tuple[Searched, FakeModel]:
    """A context where a chain of thought was seen on a few rows."""
    model = FakeModel(pupil(any_skill))
    found = made_search(ledger, model, task=WORKED)
    made = PromptCandidate("chain-of-thought", "turns", TASK.instruction)
    found.context.admit([Proposal(made, {}, "op", None, "why")])
    await found.context.see([made.id], 8)
    model.seen.clear()
    return found, model


async def test_only_train_rows_are_worked_and_only_right_ones_are_kept(ledger: Ledger) -> None:
    found, model = await thinking(ledger)
    made = await rationales(found.context, 10)
    assert len(model.seen) == 10
    assert all("train note" in request.messages[-1].content for request in model.seen)
    right = {o.example_id for split, o in found.bought if split == "train" and o.value == 1.0}
    assert set(made) == right < {row.id for row in TASK.train[:10]}
    assert set(made.values()) == {"Because."}
