"""Score a run's best prompts on other models: same candidates, same dev rows, a score for each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.evaluate.evaluator import Evaluator
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.jobs.embeddings import embed_rows, model_of_candidates
from agent.jobs.locations import open_history
from agent.jobs.models import earlier_prices
from agent.jobs.recorded import best_trials, recorded_prompt
from agent.jobs.registry import DB, job
from agent.jobs.session import Session
from agent.jobs.tasks import changed_parts, task_of
from agent.jobs.work import Work
from agent.ledger.query import History, Row, started_with
from agent.models.model_registry import create_model
from agent.options.jobs import TransferOptions
from agent.programs.kinds import program_for
from agent.programs.recorded import Recorded
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.formats.proof import SCORED_BY
from agent.results.transfer import TransferCandidate, TransferLift, TransferModel, TransferResult, TransferScore
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics, require_all
from agent.stats.selection import holm
from agent.task.examples import PLAYED
from agent.types import LM, Task


@dataclass(frozen=True, slots=True)
class _Entrant:
    """A candidate of the run: its trial, and its outcomes on the dev rows."""

    trial: int
    candidate: PromptCandidate
    recorded: Recorded


@job("transfer", asks="scoring prompts on other models", required=("models",))
def transfer(run: str, options: TransferOptions, db: Path = DB) -> Work[TransferResult]:
    """Score the best prompts of RUN, and yours, on other models (same dev rows).

    Only candidates scored on all of dev take part. The run's model comes first, with its recorded scores; these chose
    the prompts, so they are optimistic. Calls in the ledger are not made again. The sealed test is not touched.
    """
    with closing(open_history(db)) as history:
        row = history.search(run)
        task, entrants = _seen(history, row, _task(row), options.top, options.limit)
    begun, own = started_with(row), str(row["model"])
    names = [name.strip() for name in options.models.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--models {options.models}: write each model once, a,b,c")
    if own in names:
        raise InputError(f"--models: {own} is the run's own model, whose scores are in the ledger")
    known = {name: create_model(name) for name in dict.fromkeys([*names, *task.judges])}
    lms, judges = [known[name] for name in names], [known[name] for name in task.judges]
    if not judges and task.is_judged:
        judges = [create_model(own)]
    embedding = model_of_candidates(task, [entrant.candidate for entrant in entrants])
    others = [*judges, *([embedding] if embedding else [])]
    planned = len(lms) * len(entrants) * len(task.dev) * (1 + judge_calls(task))

    async def evaluator_on(asking: Session[TransferResult], lm: LM) -> Evaluator:
        metrics = build_metrics(asking.task, {"judge": judge_builder(asking.task, judges or (lm,), asking.gateway)})
        program = program_for(asking.task, lm)
        await embed_rows(program, asking.gateway, embedding, task.dev)
        base = entrants[0].candidate.id
        return Evaluator(asking.task, asking.gateway, lm, metrics, [program], baseline_id=base)

    async def perform(asking: Session[TransferResult]) -> TransferResult:
        evaluators = {lm.name: await evaluator_on(asking, lm) for lm in lms}
        arms = {own: [each.recorded.arm(f"{each.trial} on {own}") for each in entrants]} | {
            name: [Arm(f"{each.trial} on {name}", each.candidate, evaluator) for each in entrants]
            for name, evaluator in evaluators.items()
        }
        every = [arm for column in arms.values() for arm in column]
        table = await score(asking, every, task.dev, is_partial=True)
        shown = [(each, program_for(task, lms[0]).shown(each.candidate)) for each in entrants]
        return TransferResult(
            run_id=asking.id,
            of_run=row["id"],
            task=task.name,
            rows=len(task.dev),
            candidates=tuple(
                TransferCandidate(
                    candidate_id=each.candidate.id,
                    trial=each.trial,
                    technique=one.technique,
                    format=one.format,
                    n_examples=one.n_examples,
                    instruction=one.text,
                )
                for each, one in shown
            ),
            models=tuple(_models(table, arms, own, asking.seed)),
            status=asking.status,
            **asking.spent(),
        )

    return Work(
        "transfer",
        "transferred",
        perform,
        task,
        [*lms, *(other for other in others if other not in lms)],
        options,
        planned,
        options.budget_for(planned),
        models=[lm.name for lm in lms],
        chained=_for_chain,
        prices=earlier_prices(begun, own, begun.proposer or "", *task.judges, embedding.name if embedding else ""),
        seed=options.seed,
    )


def _for_chain(result: TransferResult) -> Mapping[str, Any]:
    ids = [each.candidate_id for each in result.candidates]
    models = [each.to_json() for each in result.models]
    return {"of_run": result.of_run, "candidates": ids, "models": models, "status": result.status}


def _models(table: ScoreTable, arms: Mapping[str, Sequence[Arm]], own: str, seed: int) -> Iterator[TransferModel]:
    tests = {arm.name: table.paired(arm.name, first.name, seed) for first, *others in arms.values() for arm in others}
    unbiased = {arm.name: tests[arm.name] for name, column in arms.items() if name != own for arm in column[1:]}
    p_values = {arm: test.p_value for arm, test in unbiased.items() if test is not None}
    corrected = dict(zip(p_values, holm([*p_values.values()]), strict=True))
    for name, column in arms.items():
        means = [table.mean(arm.name) for arm in column]
        known = [each.mean for each in means if each.mean is not None]
        scores = []
        for arm, found in zip(column, means, strict=True):
            lift = None
            if test := tests.get(arm.name):
                p_value, p_holm = p_values.get(arm.name), corrected.get(arm.name)
                lift = TransferLift(diff=test.diff, ci95=test.ci95, p_value=p_value, p_holm=p_holm, n=test.n)
            rank = None if found.mean is None else 1 + sum(mean > found.mean + 1e-12 for mean in known)
            scores.append(TransferScore(**dict(found), lift=lift, rank=rank))
        yield TransferModel(own=name == own, model=name, scores=tuple(scores))


def _task(run_row: Row) -> Task:
    options = started_with(run_row)
    task = task_of(options)
    if task.program:
        raise InputError(f"{run_row['id']}: a run of your program; only prompts can be tried on other models")
    if task.user is not None:
        raise InputError(f"{run_row['id']}: {PLAYED}; run the task on the other model")
    for what in changed_parts(run_row, task, SCORED_BY):
        where = f" of {task.folder}" if task.folder else ""
        raise InputError(f"{run_row['id']}: {what}{where} changed since; put it back, or run the task again")
    require_all(task)
    return replace(task, judges=tuple(options.judge or task.judges) if task.is_judged else ())


def _seen(history: History, run_row: Row, task: Task, top: int, limit: int | None) -> tuple[Task, list[_Entrant]]:
    every = history.trials(run_row["id"])
    base = [trial for trial in every if trial["number"] == 0 and trial["mean"] is not None]
    if not base:
        raise InputError(f"{run_row['id']}: this run is {run_row['status']} and has not scored its baseline")

    def recorded(candidate_id: str) -> Recorded:
        return Recorded.of_ledger(candidate_id, history.outcomes(run_row["id"], candidate_id, "dev"))

    def entrant(trial: Row) -> _Entrant:
        candidate_id = trial["candidate_id"]
        return _Entrant(trial["number"], recorded_prompt(history.candidate(candidate_id)), recorded(candidate_id))

    whole = [*base, *(each for each in every if each["state"] == "complete")]
    scored = {row_id for trial in whole for row_id in recorded(trial["candidate_id"]).answers}
    entrants = [entrant(trial) for trial in [*base, *best_trials(every)[:top]]]
    return replace(task, dev=tuple(row for row in task.dev if row.id in scored)[:limit]), entrants
