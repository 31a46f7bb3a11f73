"""A search, or a migration, from its plan to its release.

    plan -> baseline (trial 0) -> a strategy's search on dev -> finalists -> sealed test, opened once -> release

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
from agent.jobs.observers import Snapshot, Watcher
from agent.jobs.sealed_test import released, sealed_test
from agent.jobs.session import Session, Work
from agent.jobs.tracking import run_params
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
from agent.stats.intervals import smallest_margin
from agent.stats.preflight import assess
from agent.types import Candidate, Example, Proposal, Summary, TrialState

BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with


@dataclass(slots=True)
class RunState:
    """The state of one search; `planned` counts runs of the program if a row takes a variable number of calls."""

    launch: Launch
    planned: Plan
    classic: ClassicProgram | None
    test: Sequence[Example]
    ended: str = ""
    preflight: Preflight | None = None
    cheaper: selection.CheaperChoice | None = None
    leader: Summary | None = None
    session: Session[RunResult] = field(init=False)
    context: SearchContext = field(init=False)

    @staticmethod
    def of(launch: Launch) -> RunState:
        """Plan a launch. Raises InputError for a missing price, BudgetRefused for too small a budget."""
        task, plan = launch.program.task, launch.plan()
        if old := launch.migration:
            test = tuple(row for row in task.test if row.id in old.sealed.answers)[: plan.test_rows]
        else:
            test = sealed_rows(task, plan)
        return RunState(launch, plan, ClassicProgram(task) if ClassicProgram.suits(task) else None, test)

    def work(self) -> Work[RunResult]:
        """Return the run, ready to start."""
        launch, options, plan = self.launch, self.launch.options, self.planned
        return Work(
            "",
            "",
            partial(search, run=self),
            launch.program.task,
            launch.lms(),
            options,
            plan.calls,
            options.budget,
            models=(launch.model.name,),
            use_cache=options.cache,
            seed=options.seed,
            after_interrupt=str(Interrupted()),
            opening=f"{launch.note}\n{launch.opening(plan)}".lstrip(),
            programs=[launch.program, *([self.classic] if self.classic else [])],
            stored=launch.asked.stored(),
            tags=launch.asked.tag,
            plan=asdict(plan),
            proposer=launch.proposer.name if launch.proposer else "",
            parent=launch.parent,
            run_id=launch.run_id or new_run_id(),
            is_resumed=bool(launch.run_id),
            params=run_params(
                launch.task,
                {role: list(names) for role, names in launch.models_by_role().items()},
                options.budget,
                **{name: getattr(options, name) for name in ("seed", "strategy", "effort", "prefer", "trials")},
            ),
        )

    def plan_in_calls(self, calls_each: int) -> Plan:
        """Return the plan with the calls per row seen so far. The sealed test's share is then fixed."""
        plan, options, program = self.planned, self.launch.options, self.launch.program
        if not program.is_fixed:
            plan = plan.in_calls(Means(options.budget, options.effort).calls, program.calls, calls_each)
        self.session.account.hold_back(HeldBack(plan.test_calls, plan.test_share))
        return plan

    def report(self) -> None:
        """Pass a snapshot to the watcher."""
        context, gateway, trials = self.context, self.session.gateway, self.context.trials
        top = trials.leader(context.plan.rungs[-2:][0])
        if top and (self.leader is None or self.leader.id != top.candidate_id):
            self.leader = self.launch.program.shown(trials.candidate(top.candidate_id))
        self.session.watcher.on_snapshot(
            Snapshot(
                context.stage_name,
                context.plan,
                self.session.account,
                len(trials.by_id),
                len(trials.in_state("pruned")),
                (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None,
                gateway.retries.count,
                gateway.width(self.launch.model),
                context.round,
                self.leader if top else None,
                context.baseline.id,
                trials.mean(context.baseline.id),
                self.noun,
            )
        )

    @property
    def noun(self) -> str:
        """What is searched."""
        return noun_of(self.launch.program.file)

    def finalists(self) -> list[Finalist]:
        """Return the candidates that saw the whole of dev, and the user's prompt."""
        session, whole = self.session, self.context.trials.in_state("complete")
        price = session.prices.get(self.launch.model.name)
        found = selection.finalists(self.context, price, session.ledger.latencies(session.id))
        return [each for each in found if self.launch.migration is None or each.candidate_id in whole]

    def open(self, ledger: Ledger, watcher: Watcher | None = None) -> Session[RunResult]:
        """Return the session of the run in a ledger that is open for writing."""
        return Session(self.work(), ledger, watcher, self.launch.prices())


async def search(session: Session[RunResult], run: RunState) -> RunResult:
    """Search, test the winner once on the sealed rows, and write the release."""
    launch, options, task, old = run.launch, run.launch.options, session.task, run.launch.migration
    program, strategy = launch.program, STRATEGIES.get(options.strategy or DEFAULT)
    baseline = replace(old.released, calibration=None) if old else program.baseline()
    judges = judge_builder(task, launch.judges or (launch.model,), session.gateway)
    evaluator = Evaluator(
        task,
        program.client(session.gateway),
        launch.model,
        build_metrics(task, {"judge": judges}),
        session.spec.programs,
        session.observer,
        graded=strategy.uses_logprobs,
        baseline_id=baseline.id,
    )
    run.session = session
    run.context = context = SearchContext(
        task=task,
        plan=run.plan_in_calls(program.calls),
        seed=options.seed,
        program=program,
        target=launch.model,
        proposer=launch.proposer,
        gateway=session.gateway,
        evaluator=evaluator,
        account=session.account,
        observer=session.observer,
        trials=Trials(session.observer),
        baseline=baseline,
        max_trials=options.trials,
        sampler=options.sampler,
        pruner=options.pruner,
        calibrated=Calibrated(program) if options.calibrate else None,
    )
    session.report = run.report
    session.report()
    is_searched = old is not None
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
        session.ends_as, run.ended = "budget", str(stop)
        session.observer.on_event("budget_exhausted", {"why": str(stop)})
    if is_searched and options.calibrate:
        await add_calibrated(context)
    winner = _winner(run)
    tested = {winner.id, *([run.cheaper.best.id] if run.cheaper else [])}
    untested = None if old else selection.untested(context, tested, options.prefer, options.budget)
    corrected = selection.corrected(context, winner, options.strategy)
    if not old and session.ends_as == "complete" and winner.id != baseline.id:
        context.stage("attribution", context.round)
        if (smaller := await explanation.without_idle_parts(context, winner, corrected)).id != winner.id:
            winner, corrected = smaller, selection.corrected(context, smaller, options.strategy)
    context.trials.close_open("the budget ended first")
    result = await sealed_test(run, winner, corrected, untested)
    return await released(run, result, winner)


async def _score_baseline(run: RunState) -> None:
    context, trials, program, plan = run.context, run.context.trials, run.launch.program, run.context.plan
    own, is_compared = context.baseline, run.session.task.is_compared
    if problem := program.check(own):
        raise InputError(f"{run.session.task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
    context.adopt(Proposal(own, program.place(own), "baseline", None, "the user's own prompt"))
    trials.open(own.id, 0)
    noisy = context.dev[: plan.noise_rows]
    sets = ((context.dev[: plan.first_rows], 0), (noisy, 1))
    await run.session.ahead([partial(context.evaluator.outcomes, own, rows, "dev", repeat) for rows, repeat in sets])
    scores = await _own_scores(run, plan.first_rows)
    again = await context.evaluator.outcomes(own, noisy, "dev", repeat=1)
    repeated = [outcome.value for outcome in again]
    _plan_for_calls(run)
    _plan_for_time(run)
    _choose_sealed_rows(run, [score for score in scores if score is not None])
    found = assess(scores, repeated, len(run.test), is_compared, wording.verb(f"your {run.noun}", "scores"))
    missing = sum(score is None for score in scores)
    if len(scores) < len(context.dev) and (missing > UNSCORED_AT_MOST * len(scores) or not found.worth):
        scores = await _own_scores(run, len(context.dev))  # nothing is left out because of a few rows
        found = assess(scores, repeated, len(run.test), is_compared, wording.verb(f"your {run.noun}", "scores"))
    run.preflight = found
    run.session.observer.on_event("preflight", {"rows": len(again), **found.to_json()})
    run.session.observer.on_evaluation_ended([own.id])
    a_row = _calls_a_row(run, context.baseline_rows)
    if not program.is_fixed or run.planned.test_rows != plan.test_rows:
        context.replan(run.plan_in_calls(a_row))


async def _own_scores(run: RunState, rows: int) -> list[float | None]:
    context, own = run.context, run.context.baseline.id
    outcomes = await context.evaluator.outcomes(context.baseline, context.dev[:rows], "dev")
    if broken := run.launch.program.broken(outcomes):
        raise RunRefused(broken)
    unscored = [outcome for outcome in outcomes if outcome.value is None]
    if len(unscored) > BASELINE_UNSCORED_AT_MOST * len(outcomes):
        why = why_unscored(unscored[0])
        raise RunRefused(f"your own {run.noun} got no score on {len(unscored)} of {len(outcomes)} rows: {why}")
    context.record(own, outcomes)
    state: TrialState = "complete" if len(outcomes) == len(context.dev) else "incomplete"
    context.trials.settle(own, state, "the user's own prompt")
    return [outcome.value for outcome in outcomes]


def _plan_for_calls(run: RunState) -> None:
    """Give up rows where a row takes more calls than the plan counts: else nothing would be left for the search."""
    program, plan = run.launch.program, run.planned
    a_row = _calls_a_row(run, plan.first_rows)
    if a_row > program.calls:
        fewer = plan.of_longer_runs(run.session.task, a_row / program.calls)
        _give_up_rows(run, fewer, a_row, f"a row takes {a_row} calls")


def _plan_for_time(run: RunState) -> None:
    """Give up rows where the time limit ends the run before its calls.

    Else the sealed test could not be finished.
    """
    plan, calls, payable = run.planned, run.context.plan.calls, run.session.account.payable_in_time()
    if plan.chooses_rows and payable < calls:
        fewer = plan.of_longer_runs(run.session.task, calls / payable)
        fewer = replace(fewer, calls=max(fewer.baseline_calls + fewer.test_calls, int(plan.calls * payable / calls)))
        why = f"the time limit pays for about {payable:.0f} calls"
        _give_up_rows(run, fewer, _calls_a_row(run, run.context.baseline_rows), why)


def _give_up_rows(run: RunState, fewer: Plan, calls_a_row: int, why: str) -> None:
    context, task = run.context, run.session.task
    before, run.planned = run.planned, fewer
    run.test = sealed_rows(task, fewer)
    context.replan(run.plan_in_calls(calls_a_row))
    if (fewer.dev_rows, fewer.test_rows) != (before.dev_rows, before.test_rows):
        rows = f"{fewer.dev_rows} dev and {fewer.test_rows} test rows"
        run.session.observer.on_message(f"{why}, so the rest of the run uses {rows}")
    if context.baseline_rows == len(context.dev):
        context.trials.settle(context.baseline.id, "complete", "the user's own prompt")


def _calls_a_row(run: RunState, rows: int) -> int:
    program, plan = run.launch.program, run.context.plan
    if program.is_fixed:
        return program.calls
    seen = (rows + plan.noise_rows) * plan.per_row
    return max(program.calls, math.ceil(run.session.account.total_used.calls / seen))


def _choose_sealed_rows(run: RunState, scores: Sequence[float]) -> None:
    plan, task = run.planned, run.session.task
    needed = None if task.is_compared else plan.needed_rows(scores)
    if needed is None:
        return
    run.planned = plan.tested_for(needed)
    if run.planned.test_rows < plan.test_rows:
        run.test = sealed_rows(task, run.planned)
        run.session.observer.on_event("sealed_rows_chosen", {"needed": needed, "rows": len(run.test)})


def _winner(run: RunState) -> Candidate:
    context, options = run.context, run.launch.options
    if run.launch.migration is not None:
        if not (whole := counted(run.finalists())):
            raise RunRefused("no prompt came through the whole of dev; a larger --max-calls pays for more")
        return context.trials.candidate(min(whole, key=lambda one: (-one.mean, one.prompt_tokens)).candidate_id)
    offers = best_readings(context, run.finalists())
    if options.prefer != "cheap":
        return selection.chosen(context, offers, options.prefer)
    best = selection.chosen(context, offers, "best")
    run.cheaper = selection.cheaper(context, offers, best, options.accepted_loss)
    if run.cheaper is not None:
        return run.cheaper.winner
    points, rows = f"{options.margin:g} points", len(context.dev)
    run.session.observer.on_message(
        f"prefer cheap: no cheaper prompt is shown to lose less than {points} on {rows} dev rows, so the best is "
        f"tested (two of one quality pass from about --margin {100 * smallest_margin(rows):.0f} on)"
    )
    context.plan = replace(context.plan, tested=context.plan.tested - 1)  # what a third prompt would take may be spent
    return best
