"""The result of a search, from the table of its sealed test, and its release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import RunRefused
from agent.evaluate.breakdown import BASELINE, WINNER, confidence_report
from agent.evaluate.evaluator import why_unscored
from agent.evaluate.score_table import ScoreTable
from agent.evaluate.verdict import better, not_worse
from agent.ledger.provenance import tool_version, utc_now
from agent.options.run import SearchOptions
from agent.programs.classic import measured
from agent.programs.kinds import ReleaseSpec, WrittenRelease
from agent.release.gate import gate
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.breakdown import Calibration
from agent.results.run_parts import Baseline, Cheaper, Migrated, Untested
from agent.scoring.llm_judge import trust_record
from agent.search import explanation, selection
from agent.search.explanation import sealed_mean
from agent.types import Candidate, Outcome, scores_labels

if TYPE_CHECKING:
    from agent.jobs.optimize import RunState

PROVED_ROWS = 20  # of the sealed test, on which a program that was written is run again
BEST = "best"
"""The arm that leads on dev if a cheaper one is the winner."""


async def result_of(
    run: RunState, winner: Candidate, table: ScoreTable, corrected: float | None, untested: Untested | None, ended: str
) -> RunResult:
    """Return the result without its release. `corrected`: the winner's dev score; `ended`: why the search ended."""
    context, session, launch, old = run.context, run.session, run.launch, run.launch.migration
    baseline, trials, seed, task = context.baseline, context.trials, context.seed, session.task
    won, based = table.first(WINNER), table.first(BASELINE)
    if (gained := better(table, WINNER, BASELINE, seed)) is None:
        pairs = zip(won, based, strict=True)
        why = why_unscored(next(each for pair in pairs for each in pair if each.value is None))
        raise RunRefused(f"no row of the sealed test got a score with both prompts: {why}")
    evaluator, yardsticks = context.evaluator, []
    if run.classic is not None:
        rows = (run.test, won)
        yardsticks = await measured(run.classic, evaluator, session.observer, context.dev, rows, seed)
    trust = [
        trust_record(judge, session.ledger.calibration(judge.judge.setup.id, session.id), task.name)
        for judge in evaluator.judges()
    ]
    references = launch.program.references().items()
    parts: dict[str, Any] = {
        "yardsticks": yardsticks,
        "references": tuple(explanation.other_baseline(table, *each, winner, seed) for each in references) or None,
        "pareto": selection.pareto(run.finalists(), winner),
        "calibration": _confidence(run, winner, won),
        **explanation.explained(context, table, winner, trust, ended),
    }
    if old:
        tested = not_worse(table, WINNER, BASELINE, context.options)
        assert tested is not None
        parts["migration"] = Migrated(
            run=old.run_id, candidate_id=old.released.id, version=old.version, model=old.model, test=tested.figures
        )
        known = [value for row in context.dev if (value := old.dev.get(row.id)) is not None]
        own = Baseline(dev=sum(known) / len(known) if known else None, test=sealed_mean(table, BASELINE))
    else:
        parts |= {
            "uncorrected": selection.uncorrected(context, winner),
            "preflight": run.preflight.to_json() if run.preflight else None,
            "attribution": explanation.carried(context, winner, corrected),
            "cheaper": _cheaper(run.cheaper, table, context.options) if run.cheaper else None,
            "untested": untested,
        }
        dev_rows = None if trials.by_id[baseline.id].state == "complete" else context.baseline_rows
        own = Baseline(dev=trials.mean(baseline.id), test=sealed_mean(table, BASELINE), dev_rows=dev_rows)
    states = [trial.state for trial in trials.by_id.values()]
    result = RunResult(
        run_id=session.id,
        task=task.name,
        status=session.ends_as,
        model=launch.model.name,
        seed=seed,
        baseline=own,
        winner=explanation.tested(context, winner, table, corrected),
        lift=gained.figures,
        decision="keep_baseline",
        trials={state: states.count(state) for state in ("complete", "pruned", "failed", "incomplete")},
        release=Release(Path()),
        ledger=session.ledger.path,
        search_ended=ended,
        failed_because=trials.why_failed(),
        human_score=task.human_score,
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
        "to_show": None if old else explanation.to_show(context, result.lift, based, launch.options.budget),
    }
    return result.model_copy(update=gated)


def _cheaper(choice: selection.CheaperChoice, table: ScoreTable, options: SearchOptions) -> Cheaper:
    tested = not_worse(table, WINNER, BEST, options)
    return Cheaper(
        best=choice.best.id,
        saved=choice.saved,
        saved_in=choice.saved_in,
        dev=choice.bound,
        best_test=sealed_mean(table, BEST),
        test=None if tested is None else tested.figures,
    )


def _confidence(run: RunState, winner: Candidate, won: Sequence[Outcome]) -> Calibration | None:
    precision = run.session.task.precision
    if not run.launch.options.calibrate and precision is None:
        return None
    calibration = run.launch.program.shown(winner).calibration
    found = confidence_report(won, run.context.trials.outcomes.get(winner.id, ()), calibration, precision)
    if found is None and precision is not None:
        what = "precision: answers without log-probabilities, so nothing says where to abstain"
        run.session.observer.on_message(what)
    return found


async def released(run: RunState, result: RunResult, winner: Candidate) -> RunResult:
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
