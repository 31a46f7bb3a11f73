"""From the words of `optimize judge calibrate` to a calibration, and its table for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.common import plain
from agent.cli.errands import cost_line, run_job
from agent.errors import InputError
from agent.run.launch import budget_of, silence
from agent.run.locations import find_task

if TYPE_CHECKING:
    from agent.run.calibrate import Work
    from agent.run.job import Means
    from agent.scoring.judge import JudgeSetup
    from agent.types import LM, Budget, Rubric, Task

Scale = tuple[float, float]
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Job:
    """A calibration that is ready to start."""

    task: Task
    setup: JudgeSetup
    lms: tuple[LM, ...]
    work: Work
    labels: Path
    budget: Budget

    def opening(self) -> str:
        pairs = "pairs" if self.setup.mode == "pairwise" else "answers"
        judge = f"judge {', '.join(self.setup.models)} ({self.setup.mode}, {self.setup.id})"
        return f"{judge} on {len(self.work.items)} {pairs} of {self.labels.name}"


def prepare(options: Mapping[str, Any]) -> Job:
    """Loads and checks everything; calls nothing."""
    from agent.models.catalog import DEFAULT_MODEL, create_model
    from agent.run.calibrate import Work
    from agent.task.ratings import pairs_of, read_ratings_file, require

    silence()
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
    lms = {name: create_model(name) for name in models}
    return Job(task, setup, tuple(lms[name] for name in models), work, labels, budget)


def _scale(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text)
    if not match or not int(match[1]) < int(match[2]) <= int(match[1]) + 100:
        raise InputError(f"--scale {text}: write LOWEST-HIGHEST in whole numbers, such as 1-5")
    return float(match[1]), float(match[2])


def _own(rubric: Rubric | None) -> Scale:
    """The scale of a rubric, on which people are taken to have rated."""
    return (float(rubric.low), float(rubric.high)) if rubric else (1.0, 5.0)


def _of_task(options: Mapping[str, Any], scale: Scale | None) -> tuple[Task, JudgeSetup, Any, Path]:
    from agent.scoring.judge import setup_of
    from agent.task.load import load_task
    from agent.task.ratings import RatingColumns

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
    setup = setup_of(judges[0], task, "")
    inputs, scale = tuple(f.name for f in task.signature.inputs), scale or _own(setup.rubric)
    return task, setup, RatingColumns(inputs, answers, options["rating"], scale=scale), labels


def _of_columns(options: Mapping[str, Any], scale: Scale | None) -> tuple[Task, JudgeSetup, Any, Path]:
    from agent.scoring.judge import JudgeSetup
    from agent.task.ratings import RatingColumns
    from agent.task.rubric import generic_rubric, read_rubric

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
    import hashlib

    from agent.types import Budget, Constraints, Field, SearchSpace, Signature, Task

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


def calibrate(job: Job, options: Mapping[str, Any], db: Path, quiet: bool) -> dict[str, Any]:
    """Runs to the end; Ctrl-C lets what is in flight land."""
    from agent.run.calibrate import Calibration

    def make(means: Means) -> Calibration:
        return Calibration(job.task, job.setup, job.lms, means, job.work, job.labels)

    return run_job(make, job.lms, job.setup.models, job.budget, options, db, quiet=quiet)


# -- for people -------------------------------------------------------------------------------------------------------


def report(told: Mapping[str, Any]) -> str:
    """The calibration as a table: what was measured, the value, its interval."""
    trusted = "trusted" if told["trusted"] else "NOT TO BE TRUSTED"
    lines = ["", plain(f"judge {', '.join(told['models'])} ({told['mode']}) on {told['labels']}: {trusted}")]
    lines += [plain(f"  {why}") for why in told["why"]]
    if not told["trusted"]:
        lines.append(
            "  promotion is blocked while this judge counts, until somebody gives a reason (--override --reason)"
        )
    people = told["people"]
    rows = [
        ("items with a readable verdict", f"{told['items'] - told['unscored']} of {told['items']}", ""),
        _line("Cohen's kappa" + (", quadratic" if told["mode"] != "pairwise" else ""), told["kappa"], told["ci95"]),
        _named("Krippendorff's alpha, ordinal", told, "alpha"),
        _named("Spearman", told, "spearman"),
        _named("same rating as people", told, "agreement"),
        _line(
            f"alpha among {people['raters']} rater{'s' * (people['raters'] != 1)}",
            people["alpha"],
            people["alpha_ci95"],
        ),
        _named("same verdict in the other order", told, "order_consistency", f"{told['asked_in_both_orders']} pairs"),
        ("the answer shown first wins", _value(told["first_wins"]), "0.5 is fair"),
        _named("same verdict when asked again", told, "self_consistency", f"{told['asked_again']} times"),
        _named("length against its ratings", told, "length_judge", "Spearman"),
        _named("length against people's", told, "length_people", "Spearman"),
        _named("points for being longer", told, "length_bias", "beyond people's"),
    ]
    width = max(len(name) for name, _, _ in rows)
    lines += ["", *[f"  {name:<{width}}  {value:>8}  {note}".rstrip() for name, value, note in rows]]
    lines += ["", "  answers that are none, and how often they got a good rating:"]
    for name, control in told["negative_controls"].items():
        lines.append(f"    {name:<{width - 2}}  {control['fooled']:>4} of {control['n']}")
    lines += ["", *_table(told)]
    lines.append(cost_line(told))
    if told["status"] == "budget":
        lines.append("the budget ended it early: what was measured stands, on fewer items")
    for reason in told["reasons"]:
        lines.append(plain(f"unreadable: {reason[:160]}"))
    return "\n".join(lines)


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _line(name: str, value: float | None, ci95: Sequence[float] | None, note: str = "") -> tuple[str, str, str]:
    interval = f"{ci95[0]:.2f} to {ci95[1]:.2f}" if ci95 else ""
    return name, _value(value), ", ".join(part for part in (interval, note) if part)


def _named(name: str, told: Mapping[str, Any], key: str, note: str = "") -> tuple[str, str, str]:
    return _line(name, told[key], told[f"{key}_ci95"], note)


def _table(told: Mapping[str, Any]) -> list[str]:
    names, counts = told["scale"], told["confusion"]
    width = max(6, *[len(name) + 1 for name in names])
    head = "".join(f"{name:>{width}}" for name in names)
    lines = [f"  people's rating (down), the judge's (across)\n  {'':<{width}}{head}"]
    lines += [
        f"  {name:>{width}}" + "".join(f"{count:>{width}}" for count in row)
        for name, row in zip(names, counts, strict=True)
    ]
    return [*lines, ""]
