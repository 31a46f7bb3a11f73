"""Measure a judge: compare its ratings with those of people, and try to fool it. Later runs look the result up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.evaluate import judge_trust as trust
from agent.evaluate.score_table import Arm, NamedCandidate, score
from agent.jobs.locations import open_history
from agent.jobs.observers import Watcher
from agent.jobs.registry import DB, Printed, job
from agent.jobs.released import bare_task
from agent.jobs.session import Session
from agent.jobs.tasks import with_judges
from agent.jobs.work import Work
from agent.models.model_registry import DEFAULT_MODEL, create_model
from agent.options.jobs import CalibrateOptions
from agent.options.option import option
from agent.options.shared import BUDGET, OUTPUT, LedgerOption
from agent.report.blinded import RateOptions, rating_session
from agent.report.blocks import Block
from agent.report.blocks import text as prose
from agent.results.base import Result
from agent.results.judge_calibration import CalibrationResult
from agent.scoring.judge_reply import Comparison, Judgement
from agent.scoring.llm_judge import FAITHFULNESS, Judge, JudgeSetup, judge_setup
from agent.task.by_name import find_task
from agent.task.judge_files import (
    PASSAGES,
    RatedItem,
    RatingColumns,
    generic_rubric,
    pairs_of,
    read_ratings_file,
    read_rubric,
    require,
)
from agent.task.load import load_task
from agent.types import LM, Candidate, Example, Field, Outcome, Prediction, Rubric, Score, Signature, SplitName, Task

FEWEST = 10
"""The fewest items for a measurement."""
KIND = "judge_calibration"
RATINGS = "calibration.jsonl"
"""The file of people's ratings in a task's folder."""


class CalibrationPlanned(Result):
    """What a calibration would ask."""

    would_ask: str

    def blocks(self) -> Iterator[Block]:
        yield prose(self.would_ask, exact=True)


@job("judge calibrate", asks="measuring the judge")
def calibrate(
    task: str | None = None,
    *,
    options: CalibrateOptions,
    gate: bool = option(False, "Exit 100 if the judge is not trusted.", OUTPUT),
    dry_run: bool = option(False, "Print what would be asked; call nothing.", BUDGET),
    db: Path = DB,
) -> Work[CalibrationResult] | CalibrationPlanned:
    """Measure a judge against ratings of people, and record whether it may promote prompts.

    With TASK its judge, rubric and fields are used, and its calibration.jsonl without --labels. Without TASK name the
    columns: --labels FILE --input COLUMN --output COLUMN, or --pair A,B for pairs. A judge is trusted if it agrees with
    people (kappa of at least 0.6 on at least 30 items), its verdicts can be read, and empty or evasive answers do not
    fool it. Each line shows a measurement with its 95 % interval.
    """
    measured, _, plan = judged_by(task, options, FEWEST)
    setup, items, labels = plan.setup, plan.items, plan.labels
    if setup.mode == "reference" and not all(item.reference for item in items):
        raise InputError(f"{labels}:1: the judge compares with a reference; write a column reference")
    if setup.mode == FAITHFULNESS and not any(item.passages for item in items):
        raise InputError(f"{labels}:1: the judge goes by the passages that were shown; write a column {PASSAGES}")
    models = setup.models
    created = {name: create_model(name) for name in models}
    lms = [created[name] for name in models]
    things = "pairs" if plan.is_pairwise else "answers"
    opening = f"judge {', '.join(models)} ({setup.mode}, {setup.id}) on {len(items)} {things} of {labels.name}"
    if dry_run:
        return CalibrationPlanned(would_ask=opening)

    async def perform(asking: Session[CalibrationResult]) -> CalibrationResult:
        table = await score(asking, judged_arms(asking, plan, lms), ())
        return trust.agreement(plan, table, about_judging(asking)).figures

    return Work(
        KIND,
        "judge_calibrated",
        perform,
        measured,
        lms,
        options,
        plan.calls,
        options.budget,
        command="judge calibrate",
        models=models,
        seed=options.seed,
        opening=opening,
        ended=lambda result: 100 if gate and not result.trusted else 0,
    )


def about_judging(asking: Session[Any], *roles: str) -> dict[str, Any]:
    """Return the fields of a result that describe its run; `roles` next to the judge."""
    spent = asking.spent()
    calls = {role: spent["calls"].get(role, 0) for role in ("judge", *roles, "cached")}
    return {"run_id": asking.id, "task": asking.task.name, "status": asking.status, **spent, "calls": calls}


@job("judge rate", has_json=False, required=("rater",))
def rate(run: str = "", *, options: RateOptions, ledger: LedgerOption, observer: Watcher) -> Printed[None]:
    """Rate answers of RUN (default: the latest) on the rubric's scale, blind to their prompts.

    For each answer, type a number for every criterion and one overall; s skips it, q quits. Ratings are kept: the same
    command continues. Several raters write to one file; their agreement is printed at the end.
    """

    def rated() -> None:
        with closing(open_history(ledger.db)) as history:
            session = rating_session(history, run, options)
        observer.on_rating(session)

    return Printed(None, exact="", later=rated)


class JudgedItems:
    """The judge as an arm: a verdict for each rated item."""

    def __init__(self, asking: Session[Any], judge: Judge, items: Sequence[RatedItem]) -> None:
        self._asking, self._judge = asking, judge
        self._items = {item.id: item for item in items}
        self._known: dict[tuple[str, int], Outcome] = {}

    def arm(self, name: str, most: int | None = None, repeats: int = 1) -> Arm:
        """Return the judge on the first `most` items as an arm."""
        rows = [Example(item.id, item.inputs, {}) for item in self._items.values()]
        return Arm(name, NamedCandidate(self._judge.setup.id), self, rows[:most], repeats)

    async def outcomes(
        self, candidate: Candidate, examples: Sequence[Example], split: SplitName, repeat: int = 0
    ) -> list[Outcome]:
        """Return the verdicts that the budget allows."""
        missing = [row.id for row in examples if (row.id, repeat) not in self._known]
        verdicts = await self._asking.gathered([self._verdict(self._items[each], repeat) for each in missing])
        for item_id, given in zip(missing, verdicts, strict=True):
            if given is not None:
                orders = {"orders": given.orders} if isinstance(given, Comparison) else {}
                scores = (Score(trust.JUDGE, given.value, given.reason),)
                outcome = Outcome(candidate.id, item_id, Prediction(orders, ""), scores, given.value)
                self._known[item_id, repeat] = outcome
        return [self._known[row.id, repeat] for row in examples if (row.id, repeat) in self._known]

    async def _verdict(self, item: RatedItem, repeat: int) -> Judgement | Comparison:
        if self._judge.setup.mode == "pairwise":
            return await self._judge.compare(item.inputs, item.answers[0], item.answers[1], repeat)
        return await self._judge.rate(item.inputs, item.answers[0], item.reference, repeat, item.passages)


def judged_arms(asking: Session[Any], plan: trust.CalibrationPlan, lms: Sequence[LM]) -> list[Arm]:
    """Return what a judge is asked: the items, again, in pairs, and doctored."""
    setup = plan.setup
    judge = Judge(setup, lms, asking.gateway)
    pairwise = Judge(JudgeSetup("pairwise", setup.models, setup.description, setup.rubric), lms, asking.gateway)
    items = JudgedItems(asking, judge, plan.items)
    arms = [items.arm(trust.JUDGE), items.arm(trust.AGAIN, trust.SAMPLED, plan.repeats)]
    arms.append(JudgedItems(asking, pairwise, plan.pairs).arm(trust.ORDERS))
    return [*arms, *(JudgedItems(asking, judge, rows).arm(name) for name, rows in plan.doctored.items())]


# -- from the words of the command ------------------------------------------------------------------------------------


def judged_by(
    name: str | None, options: CalibrateOptions, least: int
) -> tuple[Task, RatingColumns, trust.CalibrationPlan]:
    """Return a judge's task, the columns of the ratings, and what to measure.

    Raises InputError, also for fewer than `least` items.
    """
    scale = _scale(options.scale) if options.scale else None
    task, setup, columns, labels = _of_task(name, options, scale) if name else _of_columns(options, scale)
    setup = replace(setup, models=tuple(options.judge) or task.judges or (task.model or DEFAULT_MODEL,))
    items = read_ratings_file(labels, columns)
    items = (pairs_of(items) if setup.mode == "pairwise" else items)[: options.limit]
    require(items, least, labels)
    if len(columns.answers) < len(items[0].answers):  # ratings of single answers, for a judge of pairs
        columns = replace(columns, answers=tuple(f"{columns.answers[0]}_{at}" for at in (1, 2)))
    return task, columns, trust.CalibrationPlan(setup, items, labels, columns.scale, options.repeats, options.seed)


def _scale(text: str) -> trust.Scale:
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text)
    if not match or not int(match[1]) < int(match[2]) <= int(match[1]) + 100:
        raise InputError(f"--scale {text}: write LOWEST-HIGHEST in whole numbers, such as 1-5")
    return float(match[1]), float(match[2])


def _own(rubric: Rubric | None) -> trust.Scale:
    return (float(rubric.low), float(rubric.high)) if rubric else (1.0, 5.0)


def _of_task(
    name: str, options: CalibrateOptions, scale: trust.Scale | None
) -> tuple[Task, JudgeSetup, RatingColumns, Path]:
    for each in ("input", "rubric", "about"):
        if getattr(options, each):
            raise InputError(f"--{each} goes without TASK; the task has its own")
    task = with_judges(load_task(find_task(name)))
    judges = [m for m in task.metrics if m.name == "judge" and options.output in (None, m.field)]
    judges = [m for m in judges if options.mode in (None, m.options.get("mode", "rubric"))]
    if not judges:
        field = f" of {options.output}" if options.output else ""
        mode = f" with mode {options.mode}" if options.mode else ""
        raise InputError(
            f'{task.folder}/task.toml:1: no metric{field} is a judge{mode}; write name = "judge" in [[metrics]]'
        )
    labels = options.labels or Path(task.folder) / RATINGS
    answers = _pair(options.pair) if options.pair else (judges[0].field,)
    if options.pair and judges[0].options.get("mode") != "pairwise":
        raise InputError(f"--pair: the judge of {task.name} rates single answers; give it ratings, or set its mode")
    setup = judge_setup(judges[0], task, "")
    inputs, scale = tuple(f.name for f in task.signature.inputs), scale or _own(setup.rubric)
    passages = PASSAGES if setup.mode == FAITHFULNESS else ""
    return task, setup, RatingColumns(inputs, answers, options.rating, scale=scale, passages=passages), labels


def _of_columns(options: CalibrateOptions, scale: trust.Scale | None) -> tuple[Task, JudgeSetup, RatingColumns, Path]:
    labels = options.labels
    if labels is None or not (options.output or options.pair):
        raise InputError("without TASK give --labels FILE and --output COLUMN, or --pair A,B for pairs")
    if options.output and options.pair:
        raise InputError("--output and --pair: give one of the two")
    answers = _pair(options.pair) if options.pair else (options.output or "",)
    if options.mode:
        raise InputError("--mode goes with TASK; --pair A,B compares two answers")
    low, high = scale or _own(None)
    rubric = generic_rubric(low=int(low), high=int(high))
    if options.rubric:
        try:
            text = options.rubric.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{options.rubric}: cannot be read ({error}); give a UTF-8 text file") from error
        rubric = read_rubric(text, str(options.rubric))
    mode = "pairwise" if options.pair else "rubric"
    digest = hashlib.sha256(labels.read_bytes()).hexdigest() if labels.is_file() else ""
    signature = Signature(tuple(map(Field, options.input)), tuple(map(Field, answers)))
    task = bare_task(labels.stem, options.about, signature, labels.parent, {"labels": digest})
    columns = RatingColumns(tuple(options.input), answers, options.rating, scale=scale or _own(rubric))
    return task, JudgeSetup(mode, (), options.about, rubric), columns, labels


def _pair(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise InputError(f"--pair {text}: write two columns, A,B")
    return names
