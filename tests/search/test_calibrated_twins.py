"""Twins with calibration: scored from the replies of their parents, cross-fitted, and chosen like any candidate."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.ledger.store import Ledger
from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.prompt.calibration import LabelCalibration
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search import selection
from agent.search.calibration import add_calibrated
from agent.types import Budget, Completion, Proposal, Request, Usage
from tests.search.worlds import Searched, front_and_row, made_search, share, with_baseline
from tests.toys import TEAMS, FakeModel

PLAIN = PromptCandidate("zero-shot", "inline", "Pick the team of this note.")
REASONS = PromptCandidate("chain-of-thought", "turns", "Pick the team of this note.")


class Biased(FakeModel):
    """Knows the team rather well, and says the first one because it likes it; with log-probabilities."""

    def __init__(self, likes: float = 4.0, listed: bool = True) -> None:
        super().__init__(lambda request: TEAMS[0])
        self._likes, self._listed = likes, listed

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        _, row = front_and_row(request)
        right = row.split()[4]
        logits = [3.0 * (team == right) + self._likes * (team == TEAMS[0]) + share(row, team) for team in TEAMS]
        total = math.log(sum(map(math.exp, logits)))
        top = tuple((team, logit - total) for team, logit in zip(TEAMS, logits, strict=True))
        said = max(top, key=lambda pair: pair[1])[0]
        text = f"Because.\nAnswer: {said}" if "step by step" in request.messages[0].content else said
        return Completion(text, "stop", Usage(9, 1), self.name, (top,) if self._listed and request.logprobs else ())


async def searched(ledger: Ledger, model: Biased, *candidates: PromptCandidate) -> Searched:
    found = made_search(ledger, model, budget=Budget(max_calls=400), graded=True)
    await with_baseline(found)
    for made in candidates:
        found.context.admit([Proposal(made, {}, "op", None, "why")])
        await found.context.see([made.id], len(found.context.dev))
    model.seen.clear()
    return found


def twins(found: Searched) -> dict[str, PromptCandidate]:
    trials = found.context.trials
    return {
        f"{proposal.operator} of {proposal.parent_id}": proposal.candidate
        for proposal in trials.proposals.values()
        if isinstance(proposal.candidate, PromptCandidate) and proposal.candidate.calibration
    }


async def test_each_finalist_gets_its_twins_and_no_call_is_made(ledger: Ledger) -> None:
    model = Biased()
    found = await searched(ledger, model, PLAIN, REASONS)
    context = found.context
    used = context.left()
    await add_calibrated(context)
    assert model.seen == []
    assert context.left() == used
    parents = (context.baseline.id, PLAIN.id)
    assert set(twins(found)) == {f"calibration:{m} of {i}" for m in ("label-free", "fitted", "prior") for i in parents}
    for twin in twins(found).values():
        assert context.trials.by_id[twin.id].state == "complete"
        assert (context.trials.mean(twin.id) or 0) > 0.9 > 0.4 > (context.trials.mean(PLAIN.id) or 0)
        assert len(context.trials.outcomes[twin.id]) == len(context.dev)
        keys = [outcome.call_key for outcome in context.trials.outcomes[twin.id]]
        parent = context.trials.proposals[twin.id].parent_id or ""
        assert keys == [outcome.call_key for outcome in context.trials.outcomes[parent]]
    winner = selection.chosen(
        context, selection.finalists(context, lambda usage: float(usage.prompt_tokens), {}), "best"
    )
    assert isinstance(winner, PromptCandidate)
    assert winner.calibration is not None
    usages = {
        each.candidate_id: each.usd for each in selection.finalists(context, lambda u: float(u.prompt_tokens), {})
    }
    assert usages[winner.id] == usages[context.trials.proposals[winner.id].parent_id or ""] > 0


def weighted(change: Callable[[dict[str, float]], dict[str, float]] = dict) -> PromptCandidate:
    bias = dict.fromkeys(TEAMS, 0.5)
    return PromptCandidate(
        "zero-shot", "inline", PLAIN.instruction, calibration=LabelCalibration("fitted", change(bias), 1.2)
    )


def test_weights_are_a_part_of_the_candidate() -> None:
    assert weighted().id != PLAIN.id
    assert weighted().id == weighted().id != weighted(lambda bias: {**bias, TEAMS[0]: 0.6}).id
    assert weighted().shown().calibration == {"method": "fitted", "bias": dict.fromkeys(TEAMS, 0.5), "temperature": 1.2}
    assert ("calibration", "fitted") in features_of(weighted())
    (ablation,) = leave_one_out(weighted(), PLAIN)
    assert (ablation.part, ablation.candidate) == ("calibration", PLAIN)
