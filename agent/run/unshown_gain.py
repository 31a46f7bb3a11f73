"""What would show a gain that a run has measured and not shown. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.evaluate.evaluator import values
from agent.release.gate import shown
from agent.release.result import RunResult
from agent.results.run_parts import ToShow
from agent.search.plan import Plan, calls_for
from agent.stats.preflight import rows_to_show
from agent.types import Budget, Outcome, Task

OTHER_CAPS = ("max_tokens", "max_cost", "time_limit")


@dataclass(frozen=True, slots=True)
class TestRows:
    """What a run's test rows come from: the task that has them, and the plan and the budget that took some of them."""

    task: Task
    plan: Plan
    budget: Budget


def to_show(result: RunResult, based: Sequence[Outcome], rows: TestRows) -> ToShow | None:
    """How many rows, and calls, show a gain as large as the one measured; None where it was shown or is no gain.

    Args:
        result: of the run.
        based: the outcomes of the user's own prompt on the sealed test.
        rows: the test rows.
    """
    lift, scores = result.lift, values(based)
    if result.is_own or lift.diff <= 0 or shown(lift.ci95, lift.p_value) > 0 or not scores:
        return None
    there = len(rows.task.test)
    needed, tested = rows_to_show(lift.diff, scores), len(based)
    wanted = needed if needed is not None and tested < needed < there else there
    caps = tuple(f"--{name.replace('_', '-')}" for name in OTHER_CAPS if getattr(rows.budget, name) is not None)
    is_paid = wanted <= tested
    calls = None if is_paid else calls_for(wanted, rows.task, rows.plan)
    return ToShow(
        gain=lift.diff,
        rows_needed=needed,
        rows_tested=tested,
        rows_there=there,
        max_calls=calls,
        other_caps=() if is_paid else caps,
    )
