"""The end of a search: the first finalist climbs rung by rung before the whole of dev is paid for."""

from __future__ import annotations

from agent.ledger.store import Ledger
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.evolve.evolve import finish
from agent.types import Budget, Proposal, Request
from tests.search.worlds import front_and_row, made_search
from tests.toys import TEAMS, FakeModel, make_task

TASK = make_task(80)
GOOD, LUCKY, POOR = (PromptCandidate("zero-shot", "turns", f"A {word} wording.") for word in ("good", "lucky", "poor"))


async def test_one_that_few_rows_flatter_falls_before_the_whole_of_dev_is_paid(ledger: Ledger) -> None:
    place: dict[str, int] = {}

    def answer(request: Request) -> str:
        front, row = front_and_row(request)
        at, right = place[row.split("\n")[0]], row.split()[4]
        is_right = at < first if "lucky" in front else at % 10 < (6 if "good" in front else 2)
        return right if is_right else TEAMS[(TEAMS.index(right) + 1) % len(TEAMS)]

    found = made_search(ledger, FakeModel(answer), task=TASK, budget=Budget(max_calls=900))
    context, trials = found.context, found.trials
    place.update({row.inputs["message"]: at for at, row in enumerate(context.dev)})
    _, first, *_, last, _ = context.plan.rungs
    context.adopt(Proposal(context.baseline, {}, "baseline", None, ""))
    context.admit([Proposal(made, {}, "op", None, "") for made in (GOOD, LUCKY, POOR)])
    await context.see([context.baseline.id, POOR.id], 2 * first)
    await context.see([GOOD.id], last)
    await context.see([LUCKY.id], first)
    assert trials.parents(1)[0].proposal.candidate == LUCKY, "the rows that it saw speak for it"
    await finish(context, ())
    assert first < len(trials.outcomes[LUCKY.id]) < len(context.dev)
    assert len(trials.outcomes[GOOD.id]) == len(context.dev)
    assert {trial.state for trial in trials.by_id.values()} <= {"complete", "pruned"}
