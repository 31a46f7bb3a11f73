"""A search, or a migration, from its plan to its release.

    plan -> baseline (trial 0) -> a strategy's search on dev -> finalists -> sealed test, opened once -> release

A migration starts from prompts of an earlier run: its baseline is what another model answered then, which is recorded
and makes no call, and its winner must not be worse. Every step is a pure function of task, seed and replies; the ledger
is written as it happens and never read to decide. So a run is resumed by running it again: settled calls answer from
the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted, InputError, Interrupted, RunRefused
from agent.evaluate.breakdown import Pair, confidence_report
from agent.evaluate.evaluator import Evaluator, why_unscored
from agent.gateway.budget import HeldBack
from agent.ledger.provenance import new_run_id, tool_version, utc_now
from agent.ledger.store import Ledger
from agent.models.model_registry import create_model
from agent.programs.classic import ClassicProgram, measured
from agent.programs.kinds import ReleaseSpec, WrittenRelease
from agent.programs.prompt import PromptProgram
from agent.release.export import write_release
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.breakdown import Calibration
from agent.results.run_parts import Migrated, Untested
from agent.run.build_result import (
    DevScores,
    cheaper_part,
    decided,
    not_worse,
    retrieval_part,
    two_prompts,
)
from agent.run.embeddings import embed_rows
from agent.run.launch import Launch
from agent.run.observers import Snapshot, Watcher
from agent.run.session import Session, Work
from agent.run.tracking import search_params
from agent.scoring.llm_judge import judge_builder, trust_record
from agent.scoring.task_metrics import build_metrics
from agent.search import explanation, selection
from agent.search.board import Board, Calibrated
from agent.search.calibration import add_calibrated, best_readings
from agent.search.context import UNSCORED_AT_MOST, SearchContext, sealed_rows
from agent.search.evolve.evolve import search_from
from agent.search.plan import Means, Plan
from agent.search.registered import DEFAULT, STRATEGIES
from agent.search.selection import Finalist, counted
from agent.stats.intervals import loss_bound, smallest_margin
from agent.stats.preflight import Assessment, assess, rows_to_detect
from agent.types import Candidate, Example, Outcome, Proposal, Shown, SplitName, TrialState, scores_labels

BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with
PROVED_ROWS = 20  # of the sealed test, on which a program that was written is run again


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run to go on with: its id, and the plan that it was made with."""

    run_id: str
    plan: Plan


@dataclass(slots=True)
class RunState:
    """Where one search stands.

    Args:
        planned: the plan as it was made: where a row takes no fixed number of calls, it counts runs of the program.
        test: the rows of the sealed test.
        ended: why the search ended before its plan did.
        cheaper: a winner that costs less than the best on dev.
        leader: the best candidate so far, as people read it.
    """

    launch: Launch
    planned: Plan
    classic: ClassicProgram | None
    test: Sequence[Example]
    ended: str = ""
    preflight: Assessment | None = None
    cheaper: selection.CheaperChoice | None = None
    leader: Shown | None = None
    session: Session[RunResult] = field(init=False)
    context: SearchContext = field(init=False)

    @staticmethod
    def of(launch: Launch, resumed: Resumed | None = None) -> RunState:
        """Raises InputError where a model has no price, BudgetRefused where the budget cannot compare two prompts."""
        task, plan = launch.program.task, resumed.plan if resumed else launch.plan()
        if old := launch.migration:
            test = tuple(row for row in task.test if row.id in old.sealed)[: plan.test_rows]
        else:
            test = sealed_rows(task, plan)
        return RunState(launch, plan, ClassicProgram(task) if ClassicProgram.suits(task) else None, test)

    def work(self, run_id: str = "") -> Work[RunResult]:
        """What asks the models; `run_id`: of the run to continue."""
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
            models=(launch.target.name,),
            use_cache=options.cache,
            seed=options.seed,
            after_interrupt=str(Interrupted()),
            opening=launch.opening(plan),
            programs=[launch.program, *([self.classic] if self.classic else [])],
            stored=launch.asked.stored(),
            tags=launch.asked.tag,
            plan=asdict(plan),
            proposer=launch.proposer.name if launch.proposer else "",
            parent=launch.parent,
            run_id=run_id or new_run_id(),
            is_resumed=bool(run_id),
            params=search_params(launch),
        )

    def plan_in_calls(self, calls_each: int) -> Plan:
        """The plan with calls that a row takes as known so far; the sealed test's share is kept from then on."""
        plan, options, program = self.planned, self.launch.options, self.launch.program
        if not program.is_fixed:
            plan = plan.in_calls(Means(options.budget, options.effort).calls, program.calls, calls_each)
        self.session.account.hold_back(HeldBack(plan.test_calls, plan.test_share))
        return plan

    def report(self) -> None:
        """Hand the watcher a snapshot."""
        context, gateway, board = self.context, self.session.gateway, self.context.board
        top = board.leader(context.plan.rungs[-2:][0])
        if top and (self.leader is None or self.leader.id != top.candidate_id):
            self.leader = self.launch.program.shown(board.candidate(top.candidate_id))
        self.session.watcher.on_snapshot(
            Snapshot(
                context.stage_name,
                context.plan,
                self.session.account,
                len(board.trials),
                len(board.in_state("pruned")),
                (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None,
                gateway.retries.count,
                gateway.width(self.launch.target),
                context.round,
                self.leader if top else None,
                context.baseline.id,
                board.mean(context.baseline.id),
            )
        )

    def open(self, ledger: Ledger, watcher: Watcher | None = None, run_id: str = "") -> Session[RunResult]:
        """The session of the run in a ledger that is open for writing."""
        return Session(self.work(run_id), ledger, watcher, self.launch.prices())


async def search(session: Session[RunResult], run: RunState) -> RunResult:
    """Search, test the winner once on the sealed rows, and write the release."""
    launch, options, task, old = run.launch, run.launch.options, session.task, run.launch.migration
    program, strategy = launch.program, STRATEGIES.get(options.strategy or DEFAULT)
    baseline = replace(old.released, calibration=None) if old else program.baseline()
    judges = judge_builder(task, launch.judges or (launch.target,), session.gateway)
    evaluator = Evaluator(
        task,
        program.client(session.gateway),
        launch.target,
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
        target=launch.target,
        proposer=launch.proposer,
        gateway=session.gateway,
        evaluator=evaluator,
        account=session.account,
        observer=session.observer,
        board=Board(session.observer),
        baseline=baseline,
        trials=options.trials,
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
    winner = _best_of_migration(run) if old else _winner(run)
    tested = {winner.id, *([run.cheaper.best.id] if run.cheaper else [])}
    untested = None if old else selection.untested(context, tested, options.prefer, options.budget)
    corrected = selection.corrected(context, winner, options.strategy)
    if not old and session.ends_as == "complete" and winner.id != baseline.id:
        context.stage("attribution", context.round)
        await explanation.ablate(context, winner)
    context.board.close_open("the budget ended first")
    result = await _sealed_test(run, winner, corrected, untested)
    return await _released(run, result, winner)


# -- trial 0 ----------------------------------------------------------------------------------------------------------


async def _score_baseline(run: RunState) -> None:
    """Score the user's own prompt, as trial 0, and say what there is to win; leave what the sealed test need not have
    to the search."""
    context, board, program, plan = run.context, run.context.board, run.launch.program, run.context.plan
    own, is_compared = context.baseline, run.session.task.is_compared
    if problem := program.check(own):
        raise InputError(f"{run.session.task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
    context.adopt(Proposal(own, program.place(own), "baseline", None, "the user's own prompt"))
    board.open(own.id, 0)
    noisy = context.dev[: plan.noise_rows]
    await _ahead(run, [(own, context.dev[: plan.first_rows], "dev", 0), (own, noisy, "dev", 1)])
    scores = await _own_scores(run, plan.first_rows)
    again = await context.evaluator.outcomes(own, noisy, "dev", repeat=1)
    repeated = [outcome.value for outcome in again]
    _choose_sealed_rows(run, [score for score in scores if score is not None])
    found = assess(scores, repeated, len(run.test), is_compared)
    missing = sum(score is None for score in scores)
    if len(scores) < len(context.dev) and (missing > UNSCORED_AT_MOST * len(scores) or not found.worth):
        scores = await _own_scores(run, len(context.dev))  # nothing is left out because of a few rows
        found = assess(scores, repeated, len(run.test), is_compared)
    run.preflight = found
    run.session.observer.on_event("preflight", {"rows": len(again), **found.as_dict()})
    run.session.observer.on_evaluation_ended([own.id])
    a_row = program.calls
    if not program.is_fixed:  # how many calls a row takes is known now
        rows = (context.baseline_rows + plan.noise_rows) * plan.per_row
        a_row = max(a_row, math.ceil(run.session.account.total_used.calls / rows))
    if not program.is_fixed or run.planned.test_rows != plan.test_rows:
        context.replan(run.plan_in_calls(a_row))


async def _own_scores(run: RunState, rows: int) -> list[float | None]:
    """Score the user's own prompt on the first rows of dev. Raises RunRefused where that says nothing."""
    context, own = run.context, run.context.baseline.id
    outcomes = await context.evaluator.outcomes(context.baseline, context.dev[:rows], "dev")
    if broken := run.launch.program.broken(outcomes):
        raise RunRefused(broken)
    unscored = [outcome for outcome in outcomes if outcome.value is None]
    if len(unscored) > BASELINE_UNSCORED_AT_MOST * len(outcomes):
        why = why_unscored(unscored[0])
        raise RunRefused(f"your own prompt got no score on {len(unscored)} of {len(outcomes)} rows: {why}")
    context.record(own, outcomes)
    state: TrialState = "complete" if len(outcomes) == len(context.dev) else "incomplete"
    context.board.settle(own, state, "the user's own prompt")
    return [outcome.value for outcome in outcomes]


def _choose_sealed_rows(run: RunState, scores: Sequence[float]) -> None:
    """Leave test rows that the decision does not need to the search: nothing changes the order of the rows."""
    plan, task = run.planned, run.session.task
    if plan.detect is None or not plan.finalists or not scores or task.is_compared:
        return
    needed = rows_to_detect(plan.detect, scores)
    run.planned = plan.tested_for(needed)
    if run.planned.test_rows < plan.test_rows:
        run.test = sealed_rows(task, run.planned)
        run.session.observer.on_event("sealed_rows_chosen", {"needed": needed, "rows": len(run.test)})


async def _ahead(run: RunState, sets: Sequence[tuple[Candidate, Sequence[Example], SplitName, int]]) -> None:
    """Where calls go as batches, ask before their turn, so that all go as one; the evaluator keeps what comes."""
    if run.session.gateway.batches is not None:
        with suppress(BudgetExhausted):  # told in its turn
            outcomes = run.context.evaluator.outcomes
            await run.session.in_sets([partial(outcomes, *each) for each in sets], run.session.task.is_compared)


# -- the winner -------------------------------------------------------------------------------------------------------


def finalists(run: RunState) -> list[Finalist]:
    """Those that saw the whole of dev, and the user's own prompt."""
    context, session = run.context, run.session
    price = session.prices.get(run.launch.target.name)
    found = selection.finalists(context, price, session.ledger.latencies(session.id))
    if run.launch.migration is None:
        return found
    whole = context.board.in_state("complete")
    return [each for each in found if each.candidate_id in whole]


def _best_of_migration(run: RunState) -> Candidate:
    """The best on dev, the shortest of equals."""
    offers = counted(finalists(run))
    if not offers:
        raise RunRefused("no prompt came through the whole of dev; a larger --max-calls pays for more")
    return run.context.board.candidate(min(offers, key=lambda one: (-one.mean, one.prompt_tokens)).candidate_id)


def _winner(run: RunState) -> Candidate:
    """The candidate that goes to the sealed test; `run.cheaper` says that it goes there in the place of the best."""
    context, margin, how = run.context, run.launch.options.margin / 100, run.launch.options.prefer
    offers = best_readings(context, finalists(run))
    if how != "cheap":
        return selection.chosen(context, offers, how)
    best = selection.chosen(context, offers, "best")
    run.cheaper = selection.cheaper(context, offers, best, margin)
    if run.cheaper is not None:
        return run.cheaper.winner
    points, rows = f"{100 * margin:g} points", len(context.dev)
    run.session.observer.on_message(
        f"prefer cheap: no cheaper prompt is shown to lose less than {points} on {rows} dev rows, so the best is "
        f"tested (two of one quality pass from about --margin {100 * smallest_margin(rows):.0f} on)"
    )
    context.plan = replace(context.plan, tested=2)  # what a third prompt would take may be spent
    return best


# -- the sealed test and the release ----------------------------------------------------------------------------------


async def _sealed_test(
    run: RunState, winner: Candidate, corrected: float | None, untested: Untested | None
) -> RunResult:
    """Open the sealed test once, for baseline and winner (and the best, where a cheaper one is the winner).

    Raises BudgetExhausted where it cannot be finished.
    """
    context, session, old, seed = run.context, run.session, run.launch.migration, run.launch.options.seed
    baseline, board, plan, outcomes = context.baseline, context.board, context.plan, context.evaluator.outcomes
    best = [run.cheaper.best] if run.cheaper else []
    context.stage("sealed test", context.round)
    session.account.hold_back(HeldBack())
    against = {"against": old.run_id} if old else {"baseline": baseline.id}
    opened = {"winner": winner.id, **against, "rows": len(run.test)}
    opened |= {"best": best[0].id} if best else {}
    session.observer.on_event("test_opened", opened)
    tested = [winner] if old else [baseline, winner, *best]
    few = run.test[: plan.steady_rows]
    again = [(each, few, "test", k) for each in tested[:2] for k in range(1, plan.repeats)]
    await _ahead(run, [*((each, run.test, "test", 0) for each in tested), *again])  # type: ignore[list-item]
    try:
        based = [old.sealed[row.id] for row in run.test] if old else await outcomes(baseline, run.test, "test")
        won = based if winner.id == baseline.id and not old else await outcomes(winner, run.test, "test")
        dearer = [await outcomes(each, run.test, "test") for each in best]
        samples = {
            side: [await outcomes(each, few, "test", repeat=k) for k in range(plan.repeats)]
            for side, each in (("winner", winner), ("baseline", baseline))
        }
    except BudgetExhausted as stop:
        raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
    pairs = list(zip(won, based, strict=True))
    if all(one.value is None or other.value is None for one, other in pairs):
        why = why_unscored(next(each for pair in pairs for each in pair if each.value is None))
        raise RunRefused(f"no row of the sealed test got a score with both prompts: {why}")
    yardsticks = []
    if run.classic is not None:
        rows = (run.test, won)
        yardsticks = await measured(run.classic, context.evaluator, session.observer, context.dev, rows, seed)
    pair, task = Pair(run.test, won, based), replace(session.task, repeats=plan.repeats)
    trust = [
        trust_record(judge, session.ledger.calibration(judge.judge.setup.id, session.id), session.task.name)
        for judge in context.evaluator.judges()
    ]
    ended = run.ended or context.failed
    parts: dict[str, Any] = {
        "yardsticks": yardsticks,
        "change": explanation.changed(context, winner),
        "proposer": explanation.proposer_use(context, winner, ended),
        "retrieval": retrieval_part(context, pair, winner),
        "pareto": selection.pareto(finalists(run), winner),
        "calibration": _confidence(run, winner, won),
        **explanation.explained(task, pair, samples, trust, seed),
    }
    if old:
        bound = loss_bound([o.value for o in won], [o.value for o in based], old.margin, seed)
        assert bound is not None
        parts["migration"] = Migrated(
            run=old.run_id, candidate_id=old.released.id, version=old.version, model=old.model, test=not_worse(bound)
        )
        known = [value for row in context.dev if (value := old.dev.get(row.id)) is not None]
        dev = DevScores(sum(known) / len(known) if known else None, board.mean(winner.id), corrected)
    else:
        parts |= {
            "uncorrected": selection.uncorrected(context, winner, run.launch.options.strategy),
            "preflight": run.preflight.as_dict() if run.preflight else None,
            "attribution": explanation.carried(context, winner, corrected),
            "cheaper": cheaper_part(run.cheaper, won, dearer[0], seed) if run.cheaper else None,
            "untested": untested,
        }
        is_whole = board.trials[baseline.id].state == "complete"
        whole = None if is_whole else context.baseline_rows
        dev = DevScores(board.mean(baseline.id), board.mean(winner.id), corrected, whole)
    states = [trial.state for trial in board.trials.values()]
    result = RunResult(
        run_id=session.id,
        task=session.task.name,
        status=session.ends_as,
        model=run.launch.target.name,
        seed=seed,
        **two_prompts(context, winner, pair, dev, seed),
        decision="keep_baseline",
        trials={state: states.count(state) for state in ("complete", "pruned", "failed", "incomplete")},
        release=Release(Path()),
        ledger=session.ledger.path,
        search_ended=ended,
        failed_because=board.why_failed(),
        human_score=session.task.human_score,
        **parts,
        **session.spent(),
    )
    is_own = winner.id == baseline.id and not old
    return result if is_own else decided(result, based, session.task, context.plan, run.launch.options.budget)


async def _released(run: RunState, result: RunResult, winner: Candidate) -> RunResult:
    """Write what is promoted or kept, and the winner that is held back, and add its place to the result."""
    session, context, old = run.session, run.context, run.launch.migration
    folder, is_promoted = session.folder, result.decision == "promote"
    kept = old.released if old else context.baseline
    released = winner if is_promoted else kept
    parameters = _parameters(run, winner if old else released)
    result = result.model_copy(update={"parameters": parameters})
    await session.ledger.commit()  # no file may name a head that a kill takes back
    held = {}
    if not is_promoted and (old or winner.id != kept.id):
        held = {"held": (await _write(run, result, winner, folder / HELD)).version}
    if old and not is_promoted:
        path, version = _write_old(run, result)
        parameters = dict(old.parameters)
    else:
        written = await _write(run, result, released, folder)
        path, version = written.path, written.version
    session.observer.on_event("released", {"version": version, "candidate_id": released.id, **held})
    return result.model_copy(update={"release": Release(path), "parameters": parameters})


async def _write(run: RunState, result: RunResult, candidate: Candidate, folder: Path) -> WrittenRelease:
    """Write a candidate as a release, with its provenance."""
    old, context = run.launch.migration, run.context
    origin = {"tool": tool_version(), "created_utc": utc_now(), "ledger": run.session.ledger.id()}
    if old:
        origin |= {"parent_version": old.version, "parent_run": old.run_id, "parent_model": old.model}
    number, parameters = context.board.trials[candidate.id].number, _parameters(run, candidate)
    spec = ReleaseSpec(result, number, parameters, origin, folder, context.evaluator, run.test[:PROVED_ROWS])
    return await run.launch.program.write(candidate, spec)


def _write_old(run: RunState, result: RunResult) -> tuple[Path, str]:
    """Write the released prompt of a migration as it was, for its own model; return its file and version."""
    old, session = run.launch.migration, run.session
    assert old is not None
    program = PromptProgram(session.task, create_model(old.model))
    program.pool, program.library = run.launch.program.pool, run.launch.program.library  # type: ignore[attr-defined]
    provenance = {
        "run_id": old.run_id,
        "trial": old.trial,
        "candidate_id": old.released.id,
        "test": result.baseline.test,
        "hashes": dict(session.task.hashes),
        "tool": tool_version(),
        "created_utc": utc_now(),
        "ledger": session.ledger.id(),
    }
    release = program.release(old.released, old.parameters, provenance)
    return write_release(release, session.folder), release.version


def _parameters(run: RunState, candidate: Candidate) -> dict[str, Any]:
    """What a candidate was scored with."""
    program, target = run.launch.program, run.launch.target
    cap: dict[str, Any] = {"max_tokens": program.max_tokens(candidate)}
    if program.shown(candidate).calibration:
        cap["logprobs"] = run.context.evaluator.logprobs
        if scores_labels(target):
            cap["labels"] = list(run.session.task.signature.outputs[0].choices)
    return cap if run.session.ledger.refuses_temperature(target.name) else {**cap, "temperature": 0.0}


def _confidence(run: RunState, winner: Candidate, won: Sequence[Outcome]) -> Calibration | None:
    """How far the winner's confidences can be trusted; None where calibration is off and no precision is wanted."""
    precision = run.session.task.precision
    if not run.launch.options.calibrate and precision is None:
        return None
    shown = run.launch.program.shown(winner)
    found = confidence_report(won, run.context.board.outcomes.get(winner.id, ()), shown.calibration, precision)
    if found is None and precision is not None:
        what = "precision: answers without log-probabilities, so nothing says where to abstain"
        run.session.observer.on_message(what)
    return found
