"""The sealed test of a search: opened once, after the winner is chosen.

The event `test_opened` is recorded before any test row is asked; `optimize audit check` verifies from the events that
a run tested one set of prompts (`ledger/checks.py`). A comparison opens its own test in `customize/compare.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import BudgetExhausted
from agent.evaluate.breakdown import BASELINE, WINNER
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.gateway.budget import HeldBack
from agent.jobs.run_result import BEST
from agent.search import explanation
from agent.types import Candidate

if TYPE_CHECKING:
    from agent.jobs.optimize import RunState


async def open_test(run: RunState, winner: Candidate) -> ScoreTable:
    """Score winner, baseline and references on the sealed rows. Raises BudgetExhausted if it cannot be finished."""
    context, session, old, rows = run.context, run.session, run.launch.migration, run.test
    baseline, plan, evaluator = context.baseline, context.plan, context.evaluator
    context.stage("sealed test", context.round)
    session.account.hold_back(HeldBack())
    opened = {"winner": winner.id, **({"against": old.run_id} if old else {"baseline": baseline.id}), "rows": len(rows)}
    best, references = {BEST: run.cheaper.best} if run.cheaper else {}, run.launch.program.references()
    opened |= {"best": best[BEST].id} if best else {}
    opened |= {"references": [each.id for each in references.values()]} if references else {}
    session.observer.on_event("test_opened", opened)
    arms = [
        old.sealed.arm(BASELINE) if old else Arm(BASELINE, baseline, evaluator),
        Arm(WINNER, winner, evaluator),
        *(Arm(name, each, evaluator) for name, each in {**best, **references}.items()),
        *(
            Arm(explanation.again(side), each, evaluator, rows[: plan.steady_rows], plan.repeats)
            for side, each in ((WINNER, winner), (BASELINE, baseline))
        ),
    ]
    try:
        return await score(session, arms, rows, "test")
    except BudgetExhausted as stop:
        raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
