"""From the words of `optimize judge calibrate` to a calibration that is ready to start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.models.model_registry import DEFAULT_MODEL, create_model
from agent.run.calibrate import Calibration, Work
from agent.run.launch import budget_of
from agent.run.locations import find_task
from agent.run.session import Ready
from agent.scoring.llm_judge import JudgeSetup, judge_setup
from agent.task.load import load_task
from agent.task.ratings import RatingColumns, pairs_of, read_ratings_file, require
from agent.task.rubric import generic_rubric, read_rubric
from agent.types import Budget, Constraints, Field, Rubric, SearchSpace, Signature, Task

Scale = tuple[float, float]
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Calibrating:
    """A calibration that is ready to start; `opening` says in a line what will be asked."""

    opening: str
    ready: Ready


def calibrating(options: Mapping[str, Any]) -> Calibrating:
    """Loads and checks everything; calls nothing.

    Args:
        options: the words of the command: task, labels, judge, inputs, output, pair, rating, scale (LOWEST-HIGHEST),
            mode, rubric, about, limit, repeats, seed, and the caps (`budget_of`).

    Raises:
        InputError: the task has no such judge, the columns are wrong, or there are too few ratings.
    """
    scale = _scale(options["scale"]) if options["scale"] else None
    task, setup, columns, labels = _of_task(options, scale) if options["task"] else _of_columns(options, scale)
    models = tuple(options["judge"]) or task.judges or ((task.model or DEFAULT_MODEL),)
    setup = replace(setup, models=models)
    items = read_ratings_file(labels, columns)
    if setup.mode == "pairwise":
        items = pairs_of(items)
    items = items[: options["limit"]]
    require(items, FEWEST, labels)
    if setup.mode == "reference" and not all(item.reference for item in items):
        raise InputError(f"{labels}:1: the judge compares with a reference; write a column reference")
    budget = budget_of(options)
    work = Work(items, columns.scale, options["repeats"], options["seed"])
    made = {name: create_model(name) for name in models}
    lms = [made[name] for name in models]
    things = "pairs" if setup.mode == "pairwise" else "answers"
    opening = f"judge {', '.join(models)} ({setup.mode}, {setup.id}) on {len(items)} {things} of {labels.name}"
    ready = Ready(lambda means: Calibration(task, setup, lms, means, work, labels), lms, models, budget)
    return Calibrating(opening, ready)


def _scale(text: str) -> Scale:
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text)
    if not match or not int(match[1]) < int(match[2]) <= int(match[1]) + 100:
        raise InputError(f"--scale {text}: write LOWEST-HIGHEST in whole numbers, such as 1-5")
    return float(match[1]), float(match[2])


def _own(rubric: Rubric | None) -> Scale:
    """The scale of a rubric, on which people are taken to have rated."""
    return (float(rubric.low), float(rubric.high)) if rubric else (1.0, 5.0)


def _of_task(options: Mapping[str, Any], scale: Scale | None) -> tuple[Task, JudgeSetup, RatingColumns, Path]:
    for name in ("inputs", "rubric", "about"):
        if options[name]:
            raise InputError(f"--{name.removesuffix('s')} goes without TASK; the task has its own")
    task = load_task(find_task(options["task"]))
    judges = [m for m in task.metrics if m.name == "judge" and options["output"] in (None, m.field)]
    judges = [m for m in judges if options["mode"] in (None, m.options.get("mode", "rubric"))]
    if not judges:
        field = f" of {options['output']}" if options["output"] else ""
        mode = f" with mode {options['mode']}" if options["mode"] else ""
        raise InputError(
            f'{task.folder}/task.toml:1: no metric{field} is a judge{mode}; write name = "judge" in [[metrics]]'
        )
    labels = options["labels"] or Path(task.folder) / "calibration.jsonl"
    answers = _pair(options["pair"]) if options["pair"] else (judges[0].field,)
    if options["pair"] and judges[0].options.get("mode") != "pairwise":
        raise InputError(f"--pair: the judge of {task.name} rates single answers; give it ratings, or set its mode")
    setup = judge_setup(judges[0], task, "")
    inputs, scale = tuple(f.name for f in task.signature.inputs), scale or _own(setup.rubric)
    return task, setup, RatingColumns(inputs, answers, options["rating"], scale=scale), labels


def _of_columns(options: Mapping[str, Any], scale: Scale | None) -> tuple[Task, JudgeSetup, RatingColumns, Path]:
    labels = options["labels"]
    if labels is None or not (options["output"] or options["pair"]):
        raise InputError("without TASK give --labels FILE and --output COLUMN, or --pair A,B for pairs")
    if options["output"] and options["pair"]:
        raise InputError("--output and --pair: give one of the two")
    answers = _pair(options["pair"]) if options["pair"] else (options["output"],)
    if options["mode"]:
        raise InputError("--mode goes with TASK; --pair A,B compares two answers")
    low, high = scale or _own(None)
    rubric = generic_rubric(low=int(low), high=int(high))
    if options["rubric"]:
        try:
            text = options["rubric"].read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{options['rubric']}: cannot be read ({error}); give a UTF-8 text file") from error
        found, problems = read_rubric(text, str(options["rubric"]))
        if found is None:
            raise InputError("\n".join(map(str, problems)))
        rubric = found
    mode = "pairwise" if options["pair"] else "rubric"
    task = _stand_in(labels, options["inputs"], answers, options["about"])
    columns = RatingColumns(tuple(options["inputs"]), answers, options["rating"], scale=scale or _own(rubric))
    return task, JudgeSetup(mode, (), options["about"], rubric), columns, labels


def _pair(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise InputError(f"--pair {text}: write two columns, A,B")
    return names


def _stand_in(labels: Path, inputs: Sequence[str], answers: Sequence[str], about: str) -> Task:
    """A task that is no more than its labels, for the ledger."""
    digest = hashlib.sha256(labels.read_bytes()).hexdigest() if labels.is_file() else ""
    signature = Signature(tuple(Field(name) for name in inputs), tuple(Field(name) for name in answers))
    return Task(
        labels.stem,
        about,
        signature,
        "",
        (),
        SearchSpace((), (), ()),
        Constraints(),
        Budget(),
        (),
        (),
        (),
        str(labels.parent),
        hashes={"labels": digest},
    )
