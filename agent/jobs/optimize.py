"""A search, or a migration, from its plan to its release.

    plan -> baseline (trial 0) -> a strategy's search on dev -> finalists -> sealed test (`sealed_test.py`) -> release

Every step is a pure function of task, seed and replies, so a run is resumed by running it again: settled calls are
answered from the ledger, which is never read to decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from agent.errors import BudgetExhausted, InputError, Interrupted, RunRefused
from agent.evaluate.evaluator import Evaluator, why_unscored
from agent.gateway.budget import HeldBack
from agent.jobs.embeddings import embed_rows
from agent.jobs.launch import Launch
from agent.jobs.observers import Watcher, snapshots
from agent.jobs.planned import opening
from agent.jobs.run_result import released, result_of
from agent.jobs.sealed_test import open_test
from agent.jobs.session import Session
from agent.jobs.work import Work
from agent.ledger.provenance import new_run_id
from agent.ledger.store import Ledger
from agent.programs.classic import ClassicProgram
from agent.release.result import RunResult
from agent.release.versions import noun_of
from agent.report import wording
from agent.results.run_parts import Preflight
from agent.scoring.llm_judge import judge_builder
from agent.scoring.task_metrics import build_metrics
from agent.search import explanation, selection
from agent.search.calibration import add_calibrated, best_readings
from agent.search.context import UNSCORED_AT_MOST, SearchContext, sealed_rows
from agent.search.costs import Means
from agent.search.evolve.evolve import search_from
from agent.search.plan import Plan
from agent.search.registered import DEFAULT, STRATEGIES
from agent.search.selection import Finalist, counted
from agent.search.trials import Calibrated, Trials
from agent.stats.preflight import assess
from agent.types import Candidate, Example, Proposal, TrialState

BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with
OWN = "the user's own prompt"


@dataclass(slots=True)
class RunState:
    """The state of one search; `planned` counts runs of the program if a row takes a variable number of calls."""

    launch: Launch
    planned: Plan
    classic: ClassicProgram | None
    preflight: Preflight | None = None
    cheaper: selection.CheaperChoice | None = None
    session: Session[RunResult] = field(init=False)
    context: SearchContext = field(init=False)

    @staticmethod
    def of(launch: Launch) -> RunState:
        """Plan a launch. Raises InputError for a missing price, BudgetRefused for too small a budget."""
        task = launch.program.task
        return RunState(launch, launch.plan(), ClassicProgram(task) if ClassicProgram.suits(task) else None)

    def work(self) -> Work[RunResult]:
        """Return the run, ready to start."""
        launch, options = self.launch, self.launch.options
        return Work(
            "",
            "",
            partial(search, run=self),
            launch.program.task,
            launch.lms(),
            options,
            self.planned.calls,
            options.budget,
            use_cache=options.cache,
            seed=options.seed,
            after_interrupt=str(Interrupted()),
            opening=f"{launch.note}\n{opening(launch, self.planned)}".lstrip(),
            programs=[launch.program, *([self.classic] if self.classic else [])],
            stored=launch.asked.stored(),
            tags=launch.asked.tag,
            plan=asdict(self.planned),
            proposer=launch.proposer.name if launch.proposer else "",
            parent=launch.parent,
            run_id=launch.run_id or new_run_id(),
            is_resumed=bool(launch.run_id),
            params=launch.params,
        )

    def open(self, ledger: Ledger, watcher: Watcher | None = None) -> Session[RunResult]:
        """Return the session of the run in a ledger that is open for writing."""
        return Session(self.work(), ledger, watcher, self.launch.prices())

    @property
    def test(self) -> Sequence[Example]:
        """The rows of the sealed test; of a migration those that the old model answered."""
        task, old = self.launch.program.task, self.launch.migration
        if old:
            task = replace(task, test=tuple(row for row in task.test if row.id in old.sealed.answers))
        return sealed_rows(task, self.planned)

    def plan_in_calls(self, calls_each: int) -> Plan:
        """Return the plan with the calls per row seen so far. The sealed test's share is then fixed."""
        plan, options, program = self.planned, self.launch.options, self.launch.program
        if not program.is_fixed:
            plan = plan.in_calls(Means(options.budget, options.effort).calls, program.calls, calls_each)
        self.session.account.hold_back(HeldBack(plan.test_calls, plan.test_share))
        return plan

    def finalists(self) -> list[Finalist]:
        """Return the candidates that saw the whole of dev, and the user's prompt."""
        session, whole = self.session, self.context.trials.in_state("complete")
        price = session.prices.get(self.launch.model.name)
        found = selection.finalists(self.context, price, session.ledger.latencies(session.id))
        return [each for each in found if self.launch.migration is None or each.candidate_id in whole]


async def search(session: Session[RunResult], run: RunState) -> RunResult:
    """Search, test the winner once on the sealed rows, and write the release."""
    launch, options, task, old = run.launch, run.launch.options, session.task, run.launch.migration
    program, strategy = launch.program, STRATEGIES.get(options.strategy or DEFAULT)
    baseline = old.released.having(calibration=None) if old else program.baseline()
    run.session = session
    run.context = context = SearchContext(
        task=task,
        plan=run.plan_in_calls(program.calls),
        options=options,
        program=program,
        target=launch.model,
        proposer=launch.proposer,
        gateway=session.gateway,
        evaluator=Evaluator(
            task,
            program.client(session.gateway),
            launch.model,
            build_metrics(task, {"judge": judge_builder(task, launch.judges or (launch.model,), session.gateway)}),
            session.spec.programs,
            session.observer,
            graded=strategy.uses_logprobs,
            baseline_id=baseline.id,
        ),
        account=session.account,
        observer=session.observer,
        trials=Trials(session.observer),
        baseline=baseline,
        calibrated=Calibrated(program) if options.calibrate else None,
    )
    snapshot = snapshots(context, old is not None)
    session.report = lambda: session.watcher.on_snapshot(snapshot())
    session.report()
    is_searched, ended = old is not None, ""
    try:
        await embed_rows(program, session.gateway, launch.embedder, [*context.dev, *run.test])
        if old:
            session.observer.on_event("migration_begun", {"of_run": old.run_id, "model": old.model})
            await search_from(context, old.seeds)
        else:
            await _score_baseline(run)
            if context.more() and (options.anyway or run.preflight is None or run.preflight.worth):
                is_searched = True
                await strategy.search(context)
    except BudgetExhausted as stop:
        await session.gateway.drain()
        if not context.baseline_rows:  # not even the user's own prompt: there is nothing to test
            raise
        session.ends_as, ended = "budget", str(stop)
        session.observer.on_event("budget_exhausted", {"why": ended})
    if is_searched and options.calibrate:
        await add_calibrated(context)
    winner = _winner(run)
    known = {winner.id, *([run.cheaper.best.id] if run.cheaper else [])}
    untested = None if old else selection.untested(context, known)
    corrected = selection.corrected(context, winner)
    if not old and session.ends_as == "complete" and winner.id != baseline.id:
        context.stage("attribution", context.round)
        if (smaller := await explanation.without_idle_parts(context, winner, corrected)).id != winner.id:
            winner, corrected = smaller, selection.corrected(context, smaller)
    context.trials.close_open("the budget ended first")
    table = await open_test(run, winner)
    result = await result_of(run, winner, table, corrected, untested, ended or context.failed)
    return await released(run, result, winner)


async def _score_baseline(run: RunState) -> None:
    """Score trial 0 on dev, and fit the plan to it. Raises RunRefused for too few scores."""
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
    """Fit the plan to the cost of a row and the spread of scores."""
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


def _winner(run: RunState) -> Candidate:
    context, finalists = run.context, run.finalists()
    if run.launch.migration is None:
        winner, run.cheaper = selection.selected(context, best_readings(context, finalists))
        return winner
    if not (whole := counted(finalists)):
        raise RunRefused("no prompt came through the whole of dev; a larger --max-calls pays for more")
    return context.trials.candidate(min(whole, key=lambda one: (-one.mean, one.prompt_tokens)).candidate_id)
