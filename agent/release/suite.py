"""A regression suite: frozen rows, their metrics, and a released prompt's answers to them. Knows no model.

`suite.json` is next to the prompt, and data only: nothing in it is run, no path in it is opened. It needs neither
the task's folder nor a ledger, unless a metric of the task is the user's Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from agent.errors import ReleaseError
from agent.evaluate.breakdown import is_answer
from agent.redact import mask
from agent.release.texts import Loaded
from agent.safe_data import REAL, Rule, parse_json, read_as
from agent.safe_file import disk_errors, new_files, read_file
from agent.types import Example, MetricSpec, Outcome, Prediction, Task, content_id

SUITE_FILE = "suite.json"
FORM = 1
MAX_FILE = 200 * 1024 * 1024  # bytes, as of the rows that it was made of
MOST_ANSWERS = 5
"""The most recorded answers of one row."""
RECORDED = "recorded"
"""The `call_key` of a suite's outcomes."""
_SCORE = Rule("a score from 0 to 1", lambda value: value is None or (REAL.holds(value) and 0 <= value <= 1))


@dataclass(frozen=True, slots=True)
class Sample:
    """One recorded answer to a row: the reply (or calibrated label) and its score, or the `error` of a failed call."""

    reply: str = ""
    value: Annotated[float | None, _SCORE] = None
    error: str = ""

    @staticmethod
    def of(outcome: Outcome, is_calibrated: bool = False) -> Sample:
        prediction = outcome.prediction
        if not is_answer(outcome):
            return Sample("", None, prediction.error or "no answer")
        if prediction.confidence is not None or (is_calibrated and prediction.fields):  # the label reads as itself
            return Sample(str(next(iter(prediction.fields.values()))), outcome.value)
        return Sample(prediction.raw, outcome.value)

    def without(self, secrets: tuple[str, ...]) -> Sample:
        """Return the sample with secrets masked."""
        return replace(self, reply=mask(self.reply, secrets), error=mask(self.error, secrets))


@dataclass(frozen=True, slots=True)
class SuiteRow(Example):
    """A row with its recorded answers, one per repeat."""

    answers: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """Frozen rows, metrics and recorded answers of a prompt. `note`: actor, time and reason."""

    name: str
    version: str
    model: str
    description: str
    metrics: tuple[MetricSpec, ...]
    rows: tuple[SuiteRow, ...]
    judges: tuple[str, ...] = ()
    rubrics: Mapping[str, str] = field(default_factory=dict)
    note: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The hash of rows, metrics and recorded answers."""
        data = _data(self)
        return content_id("s", {key: value for key, value in data.items() if key != "note"})

    def recorded(self, prompt: Loaded) -> list[list[Outcome]]:
        """Return the recorded outcomes of each row, each reply parsed as the prompt does today."""
        return [[self._outcome(prompt, row, each) for each in row.answers] for row in self.rows]

    def _outcome(self, prompt: Loaded, row: Example, sample: Sample) -> Outcome:
        if sample.error:
            return Outcome(self.version, row.id, Prediction({}, "", sample.error), (), None)
        return Outcome(self.version, row.id, prompt.parse(sample.reply), (), sample.value, RECORDED)


def require_fit(suite: Suite, prompt: Loaded, file: str) -> None:
    """Raise ReleaseError unless each row has exactly the inputs of the prompt."""
    wanted = set(prompt.release.inputs)
    for row in suite.rows:
        if set(row.inputs) != wanted:
            has, needs = ", ".join(sorted(row.inputs)) or "none", ", ".join(sorted(wanted)) or "none"
            raise ReleaseError(
                f"{file}: row {row.id!r:.60} has the inputs {has}, the prompt needs {needs}; delete it and "
                "record a new one with `optimize bless`"
            )


# -- the file ---------------------------------------------------------------------------------------------------------


def write_suite(suite: Suite, path: Path) -> None:
    """Write the file atomically. Raises ReleaseError when the disk refuses."""
    text = json.dumps(_data(suite), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    with disk_errors(f"{path}: cannot write the suite"), new_files(path.parent) as staged:
        (staged / path.name).write_text(text, "ascii")


def read_suite(path: Path) -> Suite:
    """Read a suite. Raises ReleaseError, one line with the file, for anything else."""
    try:
        data = parse_json(read_file(path, MAX_FILE).decode("utf-8"))
        if not isinstance(data, dict) or data.pop("suite", None) != FORM:
            raise ValueError(f'is not a suite of form {FORM} (its first key is "suite": {FORM})')
        suite: Suite = read_as(Suite, data, "suite")
        if wrong := _contradiction(suite):
            raise ValueError(wrong)
    except (OSError, ValueError) as error:
        why = f"is not JSON ({error})" if isinstance(error, json.JSONDecodeError) else f"is damaged: {error}"
        raise ReleaseError(
            f"{path}: {why}; restore it, or delete it and record a new one with `optimize bless`"
        ) from None
    return replace(suite, judges=_judges(suite.judges, suite.metrics))


def _contradiction(suite: Suite) -> str:
    rows, metrics = suite.rows, suite.metrics
    if not rows or not metrics:
        return "no metrics" if rows else "no rows"
    if not all(row.answers for row in rows):
        return "a row without a recorded answer"
    if any(len(row.answers) > MOST_ANSWERS for row in rows):
        return f"a row with more than {MOST_ANSWERS} recorded answers"
    if len({row.id for row in rows}) < len(rows):
        return "two rows have the same id"
    for each in metrics:
        rubric = str(each.options.get("rubric", "rubric.md"))
        by_rubric = each.options.get("mode", "rubric") == "rubric"  # the other modes do without
        if each.name == "judge" and by_rubric and rubric not in suite.rubrics:
            return f"its judge uses {rubric!r:.60}, which is not among its rubrics"
    return ""


def _data(suite: Suite) -> dict[str, Any]:
    rows = [
        {
            "id": row.id,
            "inputs": dict(row.inputs),
            "labels": dict(row.labels),
            "answers": [
                {"error": each.error} if each.error else {"reply": each.reply, "value": each.value}
                for each in row.answers
            ],
        }
        for row in suite.rows
    ]
    return {"suite": FORM, **asdict(suite), "rows": rows}


def _judges(judges: tuple[str, ...], metrics: Sequence[MetricSpec]) -> tuple[str, ...]:
    return judges if any(each.name == "judge" for each in metrics) else ()


def suite_of(
    task: Task, prompt: Loaded, model: str, samples: Sequence[Sequence[Sample]], note: Mapping[str, str]
) -> Suite:
    """Build a suite from the dev rows of a task and the prompt's answers."""
    return Suite(
        name=task.name,
        version=prompt.version,
        model=model,
        description=task.description,
        metrics=task.metrics,
        rows=tuple(
            SuiteRow(row.id, row.inputs, row.labels, answers=tuple(each))
            for row, each in zip(task.dev, samples, strict=True)
        ),
        judges=_judges(task.judges, task.metrics),
        rubrics={name: rubric.text for name, rubric in task.rubrics.items()},
        note=note,
    )
