"""The folder of a task that is drafted: what was asked for, and the files that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InputError
from agent.prompt.draft_requests import Refused, checked_labels
from agent.task.columns import DataColumn
from agent.task.from_file import new_task_folder
from agent.task.label_files import UNLABELLED_FILE, LabelledTask, UnlabelledRow, rows_text
from agent.task.scoring_rule import Asked, ScoringRule
from agent.task.task_text import SCHEMA_LINE, Output, slug, task_toml, words
from agent.types import MetricSpec

CONFIRMED_BY = "feedback in the traces"
"""The labeller of answers that a trace file confirms."""


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """What is drafted: a folder for a task that the user describes.

    Args:
        folder: it is not there yet.
        description: the user's words.
        target: the name of the output.
        labels: as the user gave them; none: the proposer names them.
        columns: of the file without labels; none: there is no file.
        rows: of that file.
        synthetic: how many rows are written where there is no file.
        confirmed: row and answer, where feedback in the file confirms it.
        prompt: the user's own, "" where it is drafted.
    """

    folder: Path
    description: str
    target: str
    labels: tuple[str, ...]
    columns: tuple[DataColumn, ...]
    rows: tuple[UnlabelledRow, ...]
    synthetic: int = 0
    confirmed: tuple[tuple[str, str], ...] = ()
    prompt: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(column.field for column in self.columns if column.use == "input")


def labels_given(text: str) -> tuple[str, ...]:
    """The labels of `--labels A,B`; () for none. Raises InputError for those that cannot be."""
    try:
        return checked_labels([name.strip() for name in text.split(",")]) if text else ()
    except Refused as error:
        raise InputError(f"--labels {text}: {error}") from None


def require_choice(asked: Asked) -> None:
    """Raises InputError for options that say how answers without labels are scored."""
    if asked.metric or asked.type:
        raise InputError("--metric and --type: a task without labels has a choice of labels as its answer; leave them")


def drafted_prompt(plan: DraftPlan, labels: Sequence[str], definitions: Mapping[str, str], opening: str) -> str:
    """The first prompt: what to do, the labels with their definitions, the form of the answer."""
    given = " and ".join(map(words, plan.inputs))
    answer = words(plan.target)
    lines = [opening or f"Read the {given} and give the {answer}.", f"The {answer} is exactly one of:"]
    lines += [f"- {label}: {about}" if (about := definitions.get(label)) else f"- {label}" for label in labels]
    return "\n".join([*lines, "Answer with that one only, spelled as above."])


def write_draft(
    plan: DraftPlan,
    labels: Sequence[str],
    definitions: Mapping[str, str],
    opening: str,
    rows: Sequence[UnlabelledRow],
) -> int:
    """Writes the folder, whole or not at all; returns how many rows have a label. Raises InputError where that cannot
    be."""
    folder = plan.folder
    prompt = plan.prompt or drafted_prompt(plan, labels, definitions, opening)
    rule = ScoringRule("choice", MetricSpec("choice", plan.target))
    field = next(column.field for column in plan.columns if column.use == "target")
    output = Output(field, rule, tuple(labels))
    text = task_toml(slug(folder.name), plan.columns, [output], prompt, has_metrics=False, description=plan.description)
    with new_task_folder(folder) as (new, has_schema):
        (new / "task.toml").write_text(text if has_schema else text.removeprefix(SCHEMA_LINE), "utf-8")
        (new / UNLABELLED_FILE).write_text(rows_text(rows), "utf-8")
        task = LabelledTask(new)  # raises where it could not be labelled
        return task.label_confirmed(plan.confirmed, CONFIRMED_BY)
