"""The search of a migration: prompts of an earlier run are raced on another model, and a few are made from the best.

There is no user's own prompt to beat here. Trial 0 is the released prompt as it is; it has no advantage, and the whole
of dev is for those that come through the race.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.errors import BudgetRefused
from agent.scoring.llm_judge import judge_calls
from agent.search.call_costs import CallCosts
from agent.search.context import SearchContext
from agent.search.evolve.decisions import rungs_for
from agent.search.evolve.evolve import Search
from agent.search.plan import CALL_SLACK, FEWEST_ROWS, Means, Plan
from agent.search.program import Moves, Parent
from agent.search.study import Place
from agent.types import Proposal, Spend, Task

FIRST_RUNG = 6
TEST_SHARE = 0.45  # of all calls, at most, for the sealed test of the winner; the old model's replies are in the ledger
BATCH = 4


def migration_plan(task: Task, means: Means, sealed_rows: int, each: Spend) -> Plan:
    """Plan a migration: the race, one or two finalists on dev, and one prompt on the sealed test.

    `sealed_rows`: rows of the sealed test on which the ledger has replies of the old model. `each`: what a call costs,
    by an estimate.

    Raises BudgetRefused where a cap does not pay a race and a test on a few rows.
    """
    calls, per_row, budget = means.calls, 1 + judge_calls(task), means.budget
    calls = min(calls, paid_for) if (paid_for := CallCosts.affordable(budget, each)) is not None else calls
    test_rows = min(sealed_rows, int(calls * TEST_SHARE / per_row))
    paid = (calls - math.ceil(CALL_SLACK * calls)) // per_row - test_rows
    dev_rows = min(len(task.dev), paid // 2)
    fewest = min(FEWEST_ROWS, sealed_rows, len(task.dev))
    if min(test_rows, dev_rows) < fewest:
        enough = next(each for each in range(calls, 10**7) if _pays(each, per_row, fewest))
        caps = ", ".join(CallCosts.too_low(budget, enough, each))
        more = f"it takes at least {enough}: {caps}" if caps else f"give at least {enough}"
        raise BudgetRefused(f"{calls} calls are too few to migrate a prompt of this task; {more}")
    finalists = 2 if paid >= 3 * dev_rows else 1
    rungs = rungs_for(dev_rows, FIRST_RUNG)
    return Plan(calls, dev_rows, test_rows, 0, BATCH, rungs, finalists, 0, per_row, tested=1, baseline_rows=rungs[0])


def _pays(calls: int, per_row: int, rows: int) -> bool:
    test_rows = int(calls * TEST_SHARE / per_row)
    return test_rows >= rows and ((calls - math.ceil(CALL_SLACK * calls)) // per_row - test_rows) // 2 >= rows


async def search_from(context: SearchContext, seeds: Sequence[Proposal]) -> None:
    """Search from the released prompt (trial 0) and `seeds`, the most promising first.

    Raises BudgetExhausted where a cap ends it early.
    """
    own = context.baseline
    context.stage("the released prompt", 0)
    place = context.program.place(own)
    context.adopt(Proposal(own, place, "released", None, "the released prompt as it is"))
    limit, demos = context.task.constraints.max_examples, context.program.shown(own).n_examples
    if limit is not None and demos > limit:  # this run may have another limit than the one that released it
        context.board.open(own.id, 0)
        context.board.settle(own.id, "failed", f"{demos} examples, more than the {limit} of this run: it takes no part")
    else:
        await context.see([own.id], context.plan.rungs[0])
    await Search(context, _Seeded(context.program.moves(context), seeds)).run()


class _Seeded:
    """The moves of a kind, but for the first candidates, which are given."""

    def __init__(self, moves: Moves, seeds: Sequence[Proposal]) -> None:
        self._moves, self._seeds = moves, seeds

    def designs(self) -> list[Proposal]:
        return list(self._seeds)

    def space(self) -> dict[str, tuple[str, ...]]:
        return self._moves.space()

    def fresh(self, place: Place) -> Proposal | None:
        return self._moves.fresh(place)

    def operators(self, parent: Parent | None) -> list[str]:
        return self._moves.operators(parent)

    def due(self, parent: Parent | None) -> str:
        return self._moves.due(parent)

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        return await self._moves.made(operator, parent, parents)

    async def warmed(self, rows: int) -> None:
        """Nothing: few calls are for prompts that are there."""
