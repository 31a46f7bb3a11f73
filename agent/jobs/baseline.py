"""The user's own prompt as trial 0 of a search, and what its scores change in the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agent.errors import InputError, RunRefused
from agent.evaluate.evaluator import why_unscored
from agent.release.versions import noun_of
from agent.report import wording
from agent.search.context import UNSCORED_AT_MOST
from agent.search.plan import Plan
from agent.stats.preflight import assess
from agent.types import Proposal, TrialState

if TYPE_CHECKING:
    from agent.jobs.optimize import RunState

BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with
OWN = "the user's own prompt"


async def score_baseline(run: RunState) -> None:
    """Score trial 0 on the first dev rows, or on all of dev where these do not show enough, and fit the plan to it.

    Raises RunRefused for a prompt that gets too few scores.
    """
    context, program, observer, task = run.context, run.launch.program, run.session.observer, run.session.task
    plan, own = context.plan, context.baseline
    if problem := program.check(own):
        raise InputError(f"{task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
    context.adopt(Proposal(own, program.place(own), "baseline", None, OWN))
    context.trials.open(own.id, 0)
    noisy = context.dev[: plan.noise_rows]
    sets = ((context.dev[: plan.first_rows], 0), (noisy, 1))
    await run.session.ahead([partial(context.evaluator.outcomes, own, rows, "dev", repeat) for rows, repeat in sets])
    scores = await _scores(run, plan.first_rows)
    again = [outcome.value for outcome in await context.evaluator.outcomes(own, noisy, "dev", repeat=1)]
    _fit_plan(run, [value for value in scores if value is not None])
    says = wording.verb(f"your {noun_of(program.file)}", "scores")
    found = assess(scores, again, len(run.test), task.is_compared, says)
    missing = sum(value is None for value in scores)
    if len(scores) < len(context.dev) and (missing > UNSCORED_AT_MOST * len(scores) or not found.worth):
        scores = await _scores(run, len(context.dev))  # nothing is left out because of a few rows
        found = assess(scores, again, len(run.test), task.is_compared, says)
    run.preflight = found
    observer.on_event("preflight", {"rows": len(again), **found.to_json()})
    observer.on_evaluation_ended([own.id])
    if not program.is_fixed or run.planned.test_rows != plan.test_rows:
        context.replan(run.plan_in_calls(_calls_a_row(run)))


async def _scores(run: RunState, rows: int) -> list[float | None]:
    context, program = run.context, run.launch.program
    outcomes = await context.evaluator.outcomes(context.baseline, context.dev[:rows], "dev")
    if broken := program.broken(outcomes):
        raise RunRefused(broken)
    unscored = [outcome for outcome in outcomes if outcome.value is None]
    if len(unscored) > BASELINE_UNSCORED_AT_MOST * len(outcomes):
        why, whose = why_unscored(unscored[0]), f"your own {noun_of(program.file)}"
        raise RunRefused(f"{whose} got no score on {len(unscored)} of {len(outcomes)} rows: {why}")
    context.record(context.baseline.id, outcomes)
    state: TrialState = "complete" if len(outcomes) == len(context.dev) else "incomplete"
    context.trials.settle(context.baseline.id, state, OWN)
    return [outcome.value for outcome in outcomes]


def _fit_plan(run: RunState, scores: Sequence[float]) -> None:
    """Fit the plan to what the first rows showed: the calls of a row, its time, and the spread of the scores."""
    context, program, task = run.context, run.launch.program, run.session.task
    if (a_row := _calls_a_row(run)) > program.calls:  # else nothing would be left for the search
        _give_up_rows(run, run.planned.of_longer_runs(task, a_row / program.calls), f"a row takes {a_row} calls")
    plan, calls, payable = run.planned, context.plan.calls, run.session.account.payable_in_time()
    if plan.chooses_rows and payable < calls:  # else the sealed test could not be finished
        fewer = plan.of_longer_runs(task, calls / payable)
        fewer = replace(fewer, calls=max(fewer.baseline_calls + fewer.test_calls, int(plan.calls * payable / calls)))
        _give_up_rows(run, fewer, f"the time limit pays for about {payable:.0f} calls")
    plan, needed = run.planned, None if task.is_compared else run.planned.needed_rows(scores)
    if needed is not None and (fewer := plan.tested_for(needed)).test_rows < plan.test_rows:
        run.planned = fewer
        run.session.observer.on_event("sealed_rows_chosen", {"needed": needed, "rows": len(run.test)})


def _give_up_rows(run: RunState, fewer: Plan, why: str) -> None:
    context, before, run.planned = run.context, run.planned, fewer
    context.replan(run.plan_in_calls(_calls_a_row(run)))
    if (fewer.dev_rows, fewer.test_rows) != (before.dev_rows, before.test_rows):
        rows = f"{fewer.dev_rows} dev and {fewer.test_rows} test rows"
        run.session.observer.on_message(f"{why}, so the rest of the run uses {rows}")
    if context.baseline_rows == len(context.dev):
        context.trials.settle(context.baseline.id, "complete", OWN)


def _calls_a_row(run: RunState) -> int:
    program, plan = run.launch.program, run.context.plan
    if program.is_fixed:
        return program.calls
    seen = (run.context.baseline_rows + plan.noise_rows) * plan.per_row
    return max(program.calls, math.ceil(run.session.account.total_used.calls / seen))
