"""What is said at the end: every candidate that saw all of dev is on offer, ties keep the user's prompt, and no call of
the sealed test goes into explaining.
"""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.budget import HeldBack
from agent.ledger.store import Ledger
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search import explanation, selection
from agent.types import Budget, Demo, Proposal
from tests.search.worlds import TASK, Searched, made_search, pupil, with_baseline
from tests.toys import FakeModel

BEST = PromptCandidate(
    "few-shot",
    "inline",
    "Pick the team of this note.",
    demos=tuple(Demo(row.id, row.inputs, {"team": str(row.labels["team"])}) for row in TASK.train[:3]),
)
PLAIN = PromptCandidate("zero-shot", "inline", TASK.instruction)


def skill(front: str) -> float:
    return 0.95 if "Pick the team" in front else 0.4


async def ended(
    ledger: Ledger, *candidates: PromptCandidate, calls: int = 400, time_limit: float | None = None
) -> tuple[Searched, FakeModel]:
    """A search that took these to the whole of dev."""
    model = FakeModel(pupil(skill))
    found = made_search(ledger, model, budget=Budget(max_calls=calls, time_limit=time_limit))
    await with_baseline(found)
    context = found.context
    for made in candidates:
        context.admit([Proposal(made, {}, "op", None, "why")])
        for candidate_id in await context.see([made.id], len(context.dev)):
            context.trials.settle(candidate_id, "complete", "saw the whole of dev")
    model.seen.clear()
    return found, model


async def test_the_best_is_chosen_and_equal_scores_go_to_the_users_own_prompt(ledger: Ledger) -> None:
    found, _ = await ended(ledger, BEST, PLAIN)
    finalists = selection.finalists(found.context, None, {})
    assert selection.chosen(found.context, finalists, "best") == BEST
    tied = [replace(finalist, scores=[1.0] * 10) for finalist in finalists]
    assert selection.chosen(found.context, tied, "best") == found.context.baseline
    assert selection.chosen(found.context, [], "best") == found.context.baseline
    assert selection.chosen(found.context, tied, "short") == found.context.baseline, "the shortest of equals"


async def test_the_cheapest_is_taken_of_those_that_dev_shows_to_lose_less_than_the_margin(ledger: Ledger) -> None:
    found, _ = await ended(ledger, BEST, PLAIN)
    context, right = found.context, [1.0] * 100
    own, best, plain = selection.finalists(context, None, {})
    own, best = replace(own, scores=[0.0] * 100, usd=0.1), replace(best, scores=right, usd=4.0)
    near = replace(plain, scores=[0.0] + [1.0] * 99, usd=1.0)
    taken = selection.cheaper(context, [own, best, near], BEST, 0.1)
    assert taken is not None
    assert (taken.winner, taken.best, taken.saved, taken.saved_in) == (PLAIN, BEST, 0.75, "dollars")
    assert taken.bound.shown
    assert taken.bound.diff == -0.01
    assert selection.cheaper(context, [own, best, near], BEST, 0.03) is None, "100 rows leave a larger loss possible"
    dear = replace(near, usd=5.0)
    assert selection.cheaper(context, [own, best, dear], BEST, 0.1) is None, "it costs more"
    partly = replace(near, scores=[1.0] * 40)
    assert selection.cheaper(context, [own, best, partly], BEST, 0.5) is None, "it has not seen all of dev"
    lost = replace(near, scores=[None] * 20 + [1.0] * 80)
    assert selection.cheaper(context, [own, best, lost], BEST, 0.1) is None, "a lost answer is a loss"
    unpriced = [replace(each, usd=None) for each in (own, best, near)]
    by_tokens = selection.cheaper(context, unpriced, BEST, 0.1)
    assert by_tokens is not None
    assert by_tokens.saved_in == "tokens"


async def test_the_winner_is_seen_without_each_of_its_parts_and_that_is_explained(ledger: Ledger) -> None:
    found, model = await ended(ledger, BEST)
    await explanation.ablate(found.context, BEST)
    tried = [proposal for proposal in found.trials.proposals.values() if proposal.operator.startswith("without:")]
    assert {proposal.parent_id for proposal in tried} == {BEST.id}
    assert {proposal.operator for proposal in tried} >= {"without:instruction", "without:examples", "without:format"}
    assert {found.trials.by_id[proposal.candidate.id].state for proposal in tried} == {"complete"}
    told = {row.part: row for row in explanation.carried(found.context, BEST, None)}
    assert told["instruction"].how == "measured"
    assert told["instruction"].points > 30
    assert told["format"].points < told["instruction"].points
    before = len(model.seen)
    await explanation.ablate(found.context, BEST)
    assert len(model.seen) == before, "what was tried is not bought again"


async def test_a_cap_that_ends_while_explaining_does_not_end_the_run(ledger: Ledger) -> None:
    found, model = await ended(ledger, BEST, time_limit=3600.0)
    assert found.context.left() > len(found.context.dev)
    found.context.gateway.account.hold_back(
        HeldBack(share=1.0)
    )  # the search has no time left, which `left` does not know
    await explanation.ablate(found.context, BEST)
    assert model.seen == []
    told = {row.part: row for row in explanation.carried(found.context, BEST, None)}
    assert told["instruction"].how != "measured"


async def test_who_stands_on_the_front_does_not_depend_on_the_clock(ledger: Ledger) -> None:
    """A resumed or reproduced run has other latencies and must tell the same."""
    found, _ = await ended(ledger, BEST, PLAIN)
    tables = []
    for slow in (BEST.id, PLAIN.id, found.context.baseline.id):
        seconds = {i: 9.0 if i == slow else 0.1 for i in (BEST.id, PLAIN.id, found.context.baseline.id)}
        rows = selection.pareto(selection.finalists(found.context, None, seconds), BEST)
        assert [row.latency_s for row in rows] == [seconds[row.candidate_id] for row in rows]
        tables.append([row.candidate_id for row in rows])
    assert tables[0] == tables[1] == tables[2]
