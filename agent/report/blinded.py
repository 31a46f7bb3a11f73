"""Blinded rating: a rater sees inputs and answer, never which prompt wrote it.

Every rater gets the same answers in another order.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History, Row, run_folder, searched
from agent.ledger.trail import request_of
from agent.options.kinds import File
from agent.options.option import JobOptions, option
from agent.prompt.template import label_text
from agent.report.view import task_of
from agent.retrieval.passages import passages_in
from agent.scoring.llm_judge import FAITHFULNESS, judge_setup
from agent.task.judge_files import PASSAGES, RatedFile, generic_rubric
from agent.task.tables import DataFile
from agent.types import Criterion, Rubric, Task, content_id

OURS = ("item", "rater", "rating")
"""Columns of a file of ratings in addition to the task's."""
REFERENCE = "reference"
"""Extra column for judges that compare with the label; PASSAGES is one for judges that read passages."""
MOST_LOOKED_AT = 10_000  # answers of a run among which named ones are looked for
WHOLE = Criterion("the whole", 1.0, "How good is the answer, all in all?")


@dataclass(frozen=True, slots=True)
class BlindedAnswer:
    """One answer to rate.

    `reference`: the row's label, hidden from raters, for judges that compare with it. `passages`: retrieved by the
    prompt, for judges that read them.
    """

    item: str
    inputs: Mapping[str, str]
    answer: str
    reference: str = ""
    passages: str = ""

    @property
    def parts(self) -> dict[str, str]:
        """What the rater sees of the prompt's input."""
        return {**self.inputs, **({PASSAGES: self.passages} if self.passages else {})}

    def rated(self, rater: str, field: str, marks: Mapping[str, int]) -> dict[str, Any]:
        """Return the row for the file of ratings."""
        known = {REFERENCE: self.reference} if self.reference else {}
        return {"item": self.item, "rater": rater, **self.parts, field: self.answer, **known, **marks}


@dataclass(frozen=True, slots=True)
class RatingSession:
    """The answers for one rater, the same for all raters, and the file of ratings."""

    run: Row
    task: Task
    field: str
    rubric: Rubric
    items: Sequence[BlindedAnswer]
    file: RatedFile
    rater: str

    @property
    def todo(self) -> list[BlindedAnswer]:
        """Unrated answers, in this rater's order."""
        done, shuffled = self.file.done(self.rater), list(self.items)
        random.Random(f"{self.run['id']} {self.rater}").shuffle(shuffled)
        return [answer for answer in shuffled if answer.item not in done]

    @property
    def marks(self) -> list[tuple[str, Criterion]]:
        """Key and meaning of each mark. Every criterion, if there are several, and the overall one."""
        parts = self.rubric.criteria if len(self.rubric.criteria) > 1 else ()
        return [*((f"rating_{part.name}", part) for part in parts), ("rating", WHOLE)]

    @property
    def command(self) -> str:
        """The command that calibrates a judge on the ratings. It names the task's judge, or else columns."""
        task, rubric, options = self.task, self.rubric, self.run["options"] or {}
        words = ["optimize", "judge", "calibrate"]
        judged = [spec.field for spec in task.metrics if spec.name == "judge"]
        if self.field in judged:
            words += [options.get("task") or self.run["folder"], "--labels", str(self.file.path)]
            words += ["--output", self.field] * (self.field != judged[0])
            models = options.get("judge") or task.judges or [self.run["model"]]
            words += [word for model in models for word in ("--judge", model)]
        else:
            inputs = (word for own in task.signature.inputs for word in ("--input", own.name))
            words += ["--labels", str(self.file.path), *inputs, "--output", self.field]
        words += ["--scale", f"{rubric.low}-{rubric.high}"] * ((rubric.low, rubric.high) != (1, 5))
        return shlex.join(words)


class RateOptions(JobOptions):
    """What is rated, by whom and where to."""

    rater: str = option("", "Who rates: a name or initials, kept with each rating.", metavar="NAME")
    output: str | None = option(None, metavar="FIELD")
    """The field to rate, when the task has several. Default: the one that its judge rates."""
    count: int = option(40, "How many answers.", metavar="N", ge=1)
    file: File = option(None, "Default: ratings.jsonl in the run's folder.", short="-o")
    only: File = option(None, "Rate only the answers that this file names, as `judge tune` writes it.")


def rating_session(
    history: History,
    run_id: str,
    wanted: RateOptions,
    cached: Callable[[str, Callable[[], list[BlindedAnswer]]], list[BlindedAnswer]] = lambda run_id, make: make(),
) -> RatingSession:
    """Return the answers of a run for one rater. `cached` may return those of a run from a cache.

    Raises:
        InputError: the run is no search, its dev rows have changed, or no answer can be rated.
        ProblemsError: the file is not a file of ratings.
    """
    run = searched(history.run(run_id))
    file = RatedFile(wanted.file or run_folder(history.path.parent, run["id"]) / "ratings.jsonl")
    task = task_of(run)
    if task.hashes.get("dev") != run["hashes"].get("dev"):
        where = run["folder"] or run["options"]["task"]
        raise InputError(f"{run['id']}: the dev rows of {where} have changed; restore them to rate this run")
    field = field_of(task, wanted.output)
    named = None if wanted.only is None else items_in(wanted.only)
    most = wanted.count if named is None else MOST_LOOKED_AT
    items = cached(run["id"], lambda: items_of(history, run["id"], task, field, most))
    items = [each for each in items if named is None or each.item in named][: wanted.count]
    if not items:
        raise InputError(f"{run['id']}: no prompt that saw all of dev answered with the field {field}")
    return RatingSession(run, task, field, rubric_of(task, field), items, file, wanted.rater)


def items_in(path: Path) -> frozenset[str]:
    """Return the ids of items that a file of answers names. Raises ProblemsError."""
    file = DataFile(path)
    for line, row in file.rows:
        if not isinstance(row.get("item"), str):
            file.note(line, "no item: this is no file of answers to rate")
    file.refuse_all()
    return frozenset(str(row["item"]) for _, row in file.rows)


def field_of(task: Task, output: str | None) -> str:
    """Return the output to rate: `output`, else that of the task's judge, else the first.

    Raises InputError if there is no such output, or a field named like a column of ratings.
    """
    names = [field.name for field in task.signature.outputs]
    judged = [spec.field for spec in task.metrics if spec.name == "judge"]
    name = output or (judged or names)[0]
    if name not in names:
        raise InputError(f"--output {name}: the outputs of {task.name} are {', '.join(names)}")
    modes = _modes(task, name)
    fields = [*names, *(field.name for field in task.signature.inputs)]
    ours = (*OURS, *([REFERENCE] if "reference" in modes else []), *([PASSAGES] if FAITHFULNESS in modes else []))
    if taken := [name for name in fields if name in ours or name.startswith("rating_")]:
        raise InputError(
            f"{task.name}: field {taken[0]} has the name of a column of ratings; rename it to rate answers"
        )
    return name


def _modes(task: Task, field: str) -> set[str]:
    judges = (spec for spec in task.metrics if spec.name == "judge" and spec.field == field)
    return {judge_setup(spec, task, "").mode for spec in judges}


def items_of(history: History, run_id: str, task: Task, field: str, count: int) -> list[BlindedAnswer]:
    """Return up to `count` distinct dev answers, taken from the complete trials in turn."""

    rows, modes = {row.id: row for row in task.dev}, _modes(task, field)

    def passages_of(outcome: Row, settings: Mapping[str, Any]) -> str:
        request = request_of(history, outcome["call_key"])
        texts = [message["content"] for message in request["messages"]] if request else []
        return passages_in("\n".join(texts), settings["pool"]) if texts else ""

    def pile_of(number: int, candidate_id: str) -> list[BlindedAnswer]:
        pile, settings = [], history.candidate(candidate_id)["passages"] if FAITHFULNESS in modes else None
        for outcome in history.outcomes(run_id, candidate_id, "dev"):
            row, value = rows.get(outcome["example_id"]), outcome["fields"].get(field)
            if row is not None and value not in (None, ""):
                answer, label = label_text(value), row.labels.get(field) if "reference" in modes else None
                passages = passages_of(outcome, settings) if settings else ""
                item = content_id("item", [dict(row.inputs), [answer], *([passages] if passages else [])])
                reference = "" if label is None else label_text(label)
                pile.append(BlindedAnswer(item, row.inputs, answer, reference, passages))
        random.Random(f"{run_id} {number}").shuffle(pile)
        return pile

    trials = history.select(
        "SELECT number, candidate_id FROM trials WHERE run_id = ? AND state = 'complete' ORDER BY number", run_id
    )
    piles = (pile_of(trial["number"], trial["candidate_id"]) for trial in trials)
    answers: dict[str, BlindedAnswer] = {}
    for answer in _in_turn(piles):
        answers.setdefault(answer.item, answer)
        if len(answers) == count:
            break
    return list(answers.values())


def _in_turn(piles: Iterable[Sequence[BlindedAnswer]]) -> Iterator[BlindedAnswer]:
    # with many prompts the first of each are enough: the others' piles are then never read
    read = []
    for pile in piles:
        read.append(pile)
        yield from pile[:1]
    rest = chain.from_iterable(zip_longest(*(pile[1:] for pile in read)))
    yield from (answer for answer in rest if answer is not None)


def rubric_of(task: Task, field: str) -> Rubric:
    """Return the rating scale of `field`, by default one to five.

    The rubric of its judge comes first, then any rubric.
    """
    judges = (spec for spec in task.metrics if spec.name == "judge" and spec.field == field)
    named = [judge_setup(spec, task, "").rubric for spec in judges]
    return next((rubric for rubric in [*named, *task.rubrics.values()] if rubric), generic_rubric())


def agreement(rows: Sequence[Mapping[str, Any]], rubric: Rubric) -> str:
    """Return Krippendorff's alpha of the raters as a sentence; "" for one rater."""
    from agent.stats.agreement import alpha

    raters = sorted({str(row["rater"]) for row in rows})
    items = sorted({str(row["item"]) for row in rows})
    given = {(str(row["rater"]), str(row["item"])): int(row["rating"]) for row in rows}
    span = rubric.high - rubric.low
    table = [
        [(given[name, item] - rubric.low) / span if (name, item) in given else None for item in items]
        for name in raters
    ]
    if len(raters) < 2:
        return ""
    agreed = alpha(table, span + 1, 0)
    both = sum(sum(cell is not None for cell in column) > 1 for column in zip(*table, strict=True))
    level = "too few to tell"
    if agreed.value is not None and agreed.ci95:
        low, high = agreed.ci95
        level = f"alpha {agreed.value:.2f} ({low:.2f} to {high:.2f})"
    return f"agreement of {len(raters)} raters on {both} answers that more than one rated: {level}"
