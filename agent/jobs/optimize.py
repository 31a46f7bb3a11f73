"""A search, or a migration, from its plan to its release.

    plan -> baseline (trial 0) -> a strategy's search on dev -> finalists -> sealed test, opened once -> release

Every step is a pure function of task, seed and replies, so a run is resumed by running it again: settled calls are
answered from the ledger, which is never read to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted, RunRefused
from agent.evaluate.breakdown import BASELINE, WINNER
from agent.evaluate.evaluator import Evaluator
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.gateway.budget import HeldBack
from agent.jobs.baseline import score_baseline
from agent.jobs.embeddings import embed_rows
from agent.jobs.launch import Launch
from agent.jobs.observers import Watcher, snapshots
from agent.jobs.run_result import BEST, result_of
from agent.jobs.session import Session, Work
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.store import Ledger
from agent.programs.classic import ClassicProgram
from agent.programs.kinds import ReleaseSpec, WrittenRelease
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.run_parts import Preflight
from agent.scoring.llm_judge import judge_builder
from agent.scoring.task_metrics import build_metrics
from agent.search import explanation, selection
from agent.search.calibration import add_calibrated, best_readings
from agent.search.context import SearchContext, sealed_rows
from agent.search.costs import Means
from agent.search.evolve.evolve import search_from
from agent.search.plan import Plan
from agent.search.registered import DEFAULT, STRATEGIES
from agent.search.selection import Finalist, counted
from agent.search.trials import Calibrated, Trials
from agent.stats.intervals import smallest_margin
from agent.types import Candidate, Example, scores_labels

PROVED_ROWS = 20  # of the sealed test, on which a program that was written is run again


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
        classic = [self.classic] if self.classic else []
        return self.launch.work(partial(search, run=self), self.planned, [self.launch.program, *classic])

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
    baseline = replace(old.released, calibration=None) if old else program.baseline()
    run.session = session
    run.context = context = SearchContext(
        task=task,
        plan=run.plan_in_calls(program.calls),
        seed=options.seed,
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
        max_trials=options.trials,
        sampler=options.sampler,
        pruner=options.pruner,
        calibrated=Calibrated(program) if options.calibrate else None,
    )
    snapshot = snapshots(context)
    session.report = lambda: session.watcher.on_snapshot(snapshot())
    session.report()
    is_searched, ended = old is not None, ""
    try:
        await embed_rows(program, session.gateway, launch.embedder, [*context.dev, *run.test])
        if old:
            session.observer.on_event("migration_begun", {"of_run": old.run_id, "model": old.model})
            await search_from(context, old.seeds)
        else:
            await score_baseline(run)
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
    untested = None if old else selection.untested(context, known, options.prefer, options.budget)
    corrected = selection.corrected(context, winner, options.strategy)
    if not old and session.ends_as == "complete" and winner.id != baseline.id:
        context.stage("attribution", context.round)
        if (smaller := await explanation.without_idle_parts(context, winner, corrected)).id != winner.id:
            winner, corrected = smaller, selection.corrected(context, smaller, options.strategy)
    context.trials.close_open("the budget ended first")
    table = await _sealed_test(run, winner)
    result = await result_of(run, winner, table, corrected, untested, ended or context.failed)
    return await _released(run, result, winner)


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


async def _sealed_test(run: RunState, winner: Candidate) -> ScoreTable:
    """Open the sealed test once, for baseline and winner, and for the best if a cheaper prompt is the winner.

    Raises BudgetExhausted if it cannot be finished.
    """
    context, session, old, rows = run.context, run.session, run.launch.migration, run.test
    baseline, plan, evaluator = context.baseline, context.plan, context.evaluator
    context.stage("sealed test", context.round)
    session.account.hold_back(HeldBack())
    opened = {"winner": winner.id, **({"against": old.run_id} if old else {"baseline": baseline.id}), "rows": len(rows)}
    opened |= {"best": run.cheaper.best.id} if run.cheaper else {}
    references = run.launch.program.references()
    opened |= {"references": [each.id for each in references.values()]} if references else {}
    session.observer.on_event("test_opened", opened)
    others = {**({BEST: run.cheaper.best} if run.cheaper else {}), **references}
    repeated = {WINNER: winner, BASELINE: baseline}
    arms = [
        old.sealed.arm(BASELINE) if old else Arm(BASELINE, baseline, evaluator),
        Arm(WINNER, winner, evaluator),
        *(Arm(name, each, evaluator) for name, each in others.items()),
        *(
            Arm(explanation.again(side), each, evaluator, rows[: plan.steady_rows], plan.repeats)
            for side, each in repeated.items()
        ),
    ]
    try:
        return await score(session, arms, rows, "test")
    except BudgetExhausted as stop:
        raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop


async def _released(run: RunState, result: RunResult, winner: Candidate) -> RunResult:
    """Write what is promoted or kept, and the rejected winner. The result gets its place."""
    session, old, is_promoted = run.session, run.launch.migration, result.decision == "promote"
    folder, kept = session.folder, old.released if old else run.context.baseline
    released = winner if is_promoted else kept
    parameters = _parameters(run, winner if old else released)
    result = result.model_copy(update={"parameters": parameters})
    await session.ledger.commit()  # no file may name a head that a kill takes back
    held = {}
    if not is_promoted and (old or winner.id != kept.id):
        held = {"held": (await _write(run, result, winner, folder / HELD)).version}
    if old and not is_promoted:
        written = old.write(run.launch.program, result, session.ledger.id(), folder)
        parameters = dict(old.parameters)
    else:
        written = await _write(run, result, released, folder)
    if written.note:
        session.observer.on_message(written.note)
    session.observer.on_event("released", {"version": written.version, "candidate_id": released.id, **held})
    return result.model_copy(update={"release": Release(written.path), "parameters": parameters})


async def _write(run: RunState, result: RunResult, candidate: Candidate, folder: Path) -> WrittenRelease:
    old, context = run.launch.migration, run.context
    origin = {"tool": tool_version(), "created_utc": utc_now(), "ledger": run.session.ledger.id()}
    if old:
        origin |= {"parent_version": old.version, "parent_run": old.run_id, "parent_model": old.model}
    number, parameters = context.trials.by_id[candidate.id].number, _parameters(run, candidate)
    spec = ReleaseSpec(result, number, parameters, origin, folder, context.evaluator, run.test[:PROVED_ROWS])
    return await run.launch.program.write(candidate, spec)


def _parameters(run: RunState, candidate: Candidate) -> dict[str, Any]:
    program, target, task = run.launch.program, run.launch.model, run.session.task
    if task.rollouts is not None:
        return {}  # its own code says how it asks
    cap: dict[str, Any] = {"max_tokens": program.max_tokens(candidate)}
    if candidate.reads_tokens:
        cap["logprobs"] = run.context.evaluator.logprobs
        if scores_labels(target):
            cap["labels"] = list(task.signature.outputs[0].choices)
    return cap if run.session.ledger.refuses_temperature(target.name) else {**cap, "temperature": 0.0}
