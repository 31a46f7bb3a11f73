"""The sealed test of a run, opened once; its part of the result; and the release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BudgetExhausted, RunRefused
from agent.evaluate.answer_counts import retrieval_figures
from agent.evaluate.breakdown import BASELINE, WINNER, confidence_report
from agent.evaluate.evaluator import values, why_unscored
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.evaluate.verdict import better, not_worse
from agent.gateway.budget import HeldBack
from agent.ledger.provenance import tool_version, utc_now
from agent.models.model_registry import create_model
from agent.programs.classic import measured
from agent.programs.kinds import ReleaseSpec, WrittenRelease
from agent.programs.prompt import PromptProgram
from agent.release.export import write_release
from agent.release.gate import gate
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.breakdown import Calibration, Retrieval
from agent.results.run_parts import Baseline, Cheaper, Migrated, OtherBaseline, ToShow, Untested, Winner
from agent.scoring.llm_judge import trust_record
from agent.search import explanation, selection
from agent.search.context import SearchContext
from agent.search.plan import Plan, calls_for
from agent.search.selection import OTHER_CAPS, CheaperChoice
from agent.stats.intervals import shown
from agent.stats.preflight import rows_to_show
from agent.types import Budget, Candidate, Outcome, Task, scores_labels

if TYPE_CHECKING:
    from agent.jobs.optimize import RunState

PROVED_ROWS = 20  # of the sealed test, on which a program that was written is run again
BEST = "best"
"""The arm that leads on dev if a cheaper one is the winner."""


async def sealed_test(
    run: RunState, winner: Candidate, corrected: float | None, untested: Untested | None
) -> RunResult:
    """Open the sealed test once, for baseline and winner.

    The best is tested, too, if a cheaper prompt is the winner.

    Raises BudgetExhausted if it cannot be finished.
    """
    context, session, old, seed = run.context, run.session, run.launch.migration, run.launch.options.seed
    baseline, trials, plan, evaluator = context.baseline, context.trials, context.plan, context.evaluator
    best = [run.cheaper.best] if run.cheaper else []
    context.stage("sealed test", context.round)
    session.account.hold_back(HeldBack())
    against = {"against": old.run_id} if old else {"baseline": baseline.id}
    opened = {"winner": winner.id, **against, "rows": len(run.test)}
    opened |= {"best": best[0].id} if best else {}
    references = run.launch.program.references()
    opened |= {"references": [each.id for each in references.values()]} if references else {}
    session.observer.on_event("test_opened", opened)
    arms = [
        old.sealed.arm(BASELINE) if old else Arm(BASELINE, baseline, evaluator),
        Arm(WINNER, winner, evaluator),
        *(Arm(BEST, each, evaluator) for each in best),
        *(Arm(name, each, evaluator) for name, each in references.items()),
        *(
            Arm(explanation.again(side), each, evaluator, run.test[: plan.steady_rows], plan.repeats)
            for side, each in ((WINNER, winner), (BASELINE, baseline))
        ),
    ]
    try:
        table = await score(session, arms, run.test, "test")
    except BudgetExhausted as stop:
        raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
    won, based = table.first(WINNER), table.first(BASELINE)
    if (gained := better(table, WINNER, BASELINE, seed)) is None:
        pairs = zip(won, based, strict=True)
        why = why_unscored(next(each for pair in pairs for each in pair if each.value is None))
        raise RunRefused(f"no row of the sealed test got a score with both prompts: {why}")
    yardsticks = []
    if run.classic is not None:
        rows = (run.test, won)
        yardsticks = await measured(run.classic, evaluator, session.observer, context.dev, rows, seed)
    task = replace(session.task, repeats=plan.repeats)
    trust = [
        trust_record(judge, session.ledger.calibration(judge.judge.setup.id, session.id), session.task.name)
        for judge in evaluator.judges()
    ]
    ended = run.ended or context.failed
    parts: dict[str, Any] = {
        "yardsticks": yardsticks,
        "references": tuple(_reference(table, *each, winner, seed) for each in references.items()) or None,
        "change": explanation.changed(context, winner),
        "proposer": explanation.proposer_use(context, winner, ended),
        "retrieval": _retrieval(context, table, winner),
        "pareto": selection.pareto(run.finalists(), winner),
        "calibration": _confidence(run, winner, won),
        **explanation.explained(task, table, trust, seed),
    }
    if old:
        tested = not_worse(table, WINNER, BASELINE, old.accepted_loss, seed)
        assert tested is not None
        parts["migration"] = Migrated(
            run=old.run_id, candidate_id=old.released.id, version=old.version, model=old.model, test=tested.figures
        )
        known = [value for row in context.dev if (value := old.dev.get(row.id)) is not None]
        own = Baseline(dev=sum(known) / len(known) if known else None, test=_mean(table, BASELINE))
    else:
        parts |= {
            "uncorrected": selection.uncorrected(context, winner, run.launch.options.strategy),
            "preflight": run.preflight.to_json() if run.preflight else None,
            "attribution": explanation.carried(context, winner, corrected),
            "cheaper": _cheaper(run.cheaper, table, seed) if run.cheaper else None,
            "untested": untested,
        }
        dev_rows = None if trials.by_id[baseline.id].state == "complete" else context.baseline_rows
        own = Baseline(dev=trials.mean(baseline.id), test=_mean(table, BASELINE), dev_rows=dev_rows)
    states = [trial.state for trial in trials.by_id.values()]
    result = RunResult(
        run_id=session.id,
        task=session.task.name,
        status=session.ends_as,
        model=run.launch.model.name,
        seed=seed,
        baseline=own,
        winner=_tested(context, winner, table, corrected),
        lift=gained.figures,
        decision="keep_baseline",
        trials={state: states.count(state) for state in ("complete", "pruned", "failed", "incomplete")},
        release=Release(Path()),
        ledger=session.ledger.path,
        search_ended=ended,
        failed_because=trials.why_failed(),
        human_score=session.task.human_score,
        **parts,
        **session.spent(),
    )
    if winner.id == baseline.id and not old:
        return result
    found = gate(result)
    gated = {
        "decision": "promote" if found.passed else "keep_baseline",
        "blocked": found.messages,
        "blocked_codes": tuple(reason.code for reason in found.reasons),
    }
    result = result.model_copy(update=gated)
    to_show = None if old else _to_show(result, based, session.task, context.plan, run.launch.options.budget)
    return result.model_copy(update={"to_show": to_show})


def _reference(table: ScoreTable, name: str, reference: Candidate, winner: Candidate, seed: int) -> OtherBaseline:
    scored = table.first(name)
    gained = None if reference.id == winner.id else better(table, WINNER, name, seed)
    return OtherBaseline(
        name=name,
        candidate_id=reference.id,
        test=_mean(table, name),
        lift=None if gained is None else gained.figures,
        why="" if values(scored) else why_unscored(scored[0]),
    )


def _tested(context: SearchContext, winner: Candidate, table: ScoreTable, corrected: float | None) -> Winner:
    found = context.program.shown(winner)
    return Winner(
        candidate_id=winner.id,
        technique=found.technique,
        format=found.format,
        n_examples=found.n_examples,
        instruction=found.text,
        dev=context.trials.mean(winner.id),
        dev_corrected=corrected,
        test=_mean(table, WINNER),
        prompt_tokens=context.program.prompt_tokens(winner),
        picks=found.picks,
        passages=found.passages,
        tokens_a_call=context.evaluator.tokens_a_call(winner.id),
        calls_a_row=None if context.program.is_fixed else round(context.evaluator.calls_a_row(winner.id), 2),
    )


def _to_show(result: RunResult, based: Sequence[Outcome], task: Task, plan: Plan, budget: Budget) -> ToShow | None:
    lift, scores = result.lift, values(based)
    if result.is_own or lift.diff <= 0 or shown(lift.ci95, lift.p_value) > 0 or not scores:
        return None
    there, tested = len(task.test), len(based)
    needed = rows_to_show(lift.diff, scores)
    wanted = needed if needed is not None and tested < needed < there else there
    caps = tuple(f"--{name.replace('_', '-')}" for name in OTHER_CAPS if getattr(budget, name) is not None)
    is_paid = wanted <= tested
    return ToShow(
        gain=lift.diff,
        rows_needed=needed,
        rows_tested=tested,
        rows_there=there,
        max_calls=None if is_paid else calls_for(wanted, task, plan),
        other_caps=() if is_paid else caps,
    )


def _retrieval(context: SearchContext, table: ScoreTable, winner: Candidate) -> Retrieval | None:
    task = context.task
    if task.knowledge is None:
        return None
    sides = {WINNER: winner, BASELINE: context.baseline}
    looked_up = {side: partial(context.program.documents, candidate) for side, candidate in sides.items()}
    return retrieval_figures(table, task.knowledge, task.signature.outputs[0].name, looked_up)


def _cheaper(choice: CheaperChoice, table: ScoreTable, seed: int) -> Cheaper:
    tested = not_worse(table, WINNER, BEST, choice.bound.margin, seed)
    return Cheaper(
        best=choice.best.id,
        saved=choice.saved,
        saved_in=choice.saved_in,
        dev=choice.bound,
        best_test=_mean(table, BEST),
        test=None if tested is None else tested.figures,
    )


def _mean(table: ScoreTable, arm: str) -> float | None:
    scores = values(table.first(arm))
    return sum(scores) / len(scores) if scores else None


async def released(run: RunState, result: RunResult, winner: Candidate) -> RunResult:
    """Write what is promoted or kept, and the rejected winner. The result gets its place."""
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
        if written.note:
            session.observer.on_message(written.note)
    session.observer.on_event("released", {"version": version, "candidate_id": released.id, **held})
    return result.model_copy(update={"release": Release(path), "parameters": parameters})


async def _write(run: RunState, result: RunResult, candidate: Candidate, folder: Path) -> WrittenRelease:
    old, context = run.launch.migration, run.context
    origin = {"tool": tool_version(), "created_utc": utc_now(), "ledger": run.session.ledger.id()}
    if old:
        origin |= {"parent_version": old.version, "parent_run": old.run_id, "parent_model": old.model}
    number, parameters = context.trials.by_id[candidate.id].number, _parameters(run, candidate)
    spec = ReleaseSpec(result, number, parameters, origin, folder, context.evaluator, run.test[:PROVED_ROWS])
    return await run.launch.program.write(candidate, spec)


def _write_old(run: RunState, result: RunResult) -> tuple[Path, str]:
    old, session = run.launch.migration, run.session
    assert old is not None
    program = PromptProgram(session.task, create_model(old.model))
    program.shared = run.launch.program.shared  # type: ignore[attr-defined]
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
    program, target = run.launch.program, run.launch.model
    if run.session.task.rollouts is not None:
        return {}  # its own code says how it asks
    cap: dict[str, Any] = {"max_tokens": program.max_tokens(candidate)}
    if candidate.reads_tokens:
        cap["logprobs"] = run.context.evaluator.logprobs
        if scores_labels(target):
            cap["labels"] = list(run.session.task.signature.outputs[0].choices)
    return cap if run.session.ledger.refuses_temperature(target.name) else {**cap, "temperature": 0.0}


def _confidence(run: RunState, winner: Candidate, won: Sequence[Outcome]) -> Calibration | None:
    precision = run.session.task.precision
    if not run.launch.options.calibrate and precision is None:
        return None
    shown = run.launch.program.shown(winner)
    found = confidence_report(won, run.context.trials.outcomes.get(winner.id, ()), shown.calibration, precision)
    if found is None and precision is not None:
        what = "precision: answers without log-probabilities, so nothing says where to abstain"
        run.session.observer.on_message(what)
    return found
