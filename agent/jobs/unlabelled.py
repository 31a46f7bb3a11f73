"""Unlabelled rows: read them from a table, a text or traces, and write the folder of a task to label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.options.shared import Asked, FormOptions
from agent.prompt.draft_requests import Refused, checked_labels
from agent.safe_text import quoted, shown
from agent.task.answers import text_of
from agent.task.columns import DataColumn, column_named, decide_columns
from agent.task.from_file import new_task_folder
from agent.task.html_text import html_notes, stripped
from agent.task.label_files import UNLABELLED_FILE, LabelledTask, UnlabelledRow, rows_text, unlabelled_rows
from agent.task.scoring_rule import ScoringRule
from agent.task.tables import TEXT_COLUMN, DataFile
from agent.task.task_text import SCHEMA_LINE, Output, slug, task_toml, words
from agent.task.traces import TraceRows, is_traces, read_traces
from agent.types import MetricSpec, content_id

TEXT = TEXT_COLUMN
CONFIRMED_BY = "feedback in the traces"
"""The labeller of answers that a trace file confirms."""
Table = Sequence[tuple[int, Mapping[str, Any]]]
"""Rows with their lines."""


def table_of(path: Path, form: FormOptions) -> tuple[Table, Sequence[str], TraceRows | None]:
    """Return rows, notes and traces of a file: traces, a table or .txt. Raises ProblemsError."""
    if is_traces(path):
        traces = read_traces(path)
        return traces.questions, (), traces
    file = DataFile(path, form, has_lines=True)
    file.refuse_all()
    if not file.rows:
        raise file.refusal(1, "no rows; write one a line")
    notes = html_notes([row for _, row in file.rows], names_in(file.rows), form)
    rows = [(line, stripped(row)) for line, row in file.rows] if form.strip_html else file.rows
    return rows, (*file.notes, *notes), None


def unlabelled(
    table: Table, path: Path, target: str, asked: Asked, traces: TraceRows | None, marks: frozenset[str] = frozenset()
) -> tuple[tuple[DataColumn, ...], list[UnlabelledRow], tuple[tuple[str, str], ...]]:
    """Return columns, rows, and the answers that feedback in traces confirms.

    `marks` are the columns in the `{{ }}` of the prompt. Raises InputError if `target` is a column.
    """
    if (column := column_named(names_in(table), target)) is not None:
        raise InputError(
            f"{shown(path)}: has a column {quoted(column)}; where it holds the labels: optimize init NAME --from "
            f"{shown(path)} --target {column}; else name another output with --target"
        )
    columns = decide_columns([{**row, target: ""} for _, row in table], [target], marks, asked)
    inputs = input_columns(columns)
    rows = made_rows(table, inputs, path)
    require_rows(rows, inputs, path)
    ids = {row.id for row in rows}
    confirmed = confirmed_answers(traces, inputs) if traces else {}
    return columns, rows, tuple((row, answer) for row, answer in confirmed.items() if row in ids)


def names_in(table: Table) -> list[str]:
    return list(dict.fromkeys(key for _, row in table for key in row))


def input_columns(columns: Sequence[DataColumn]) -> dict[str, str]:
    return {column.field: column.name for column in columns if column.use == "input"}


def confirmed_answers(found: TraceRows, columns: Mapping[str, str]) -> dict[str, str]:
    """Return, by row, the answers of a trace file that feedback confirms; `columns` by input."""
    return {content_id("row", _inputs(row, columns)): row[found.column] for row in found.labelled}


def made_rows(table: Table, columns: Mapping[str, str], path: Path) -> list[UnlabelledRow]:
    """Make rows of fields from a table; skip rows that lack a field."""
    texts = [(_inputs(row, columns), line) for line, row in table]
    full = [(inputs, f"{path.name}:{line}") for inputs, line in texts if all(map(str.strip, inputs.values()))]
    return unlabelled_rows(full)


def require_rows(rows: Sequence[UnlabelledRow], inputs: Iterable[str], path: Path) -> None:
    if not rows:
        raise InputError(f"{shown(path)}: no row has a text for {' and '.join(inputs)}; give a file with others")


def _inputs(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    return {own: text_of(row.get(column)) for own, column in columns.items()}


# -- the folder of a task to label ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """A new folder for a described task, with the rows of a file, or `synthetic` rows.

    The proposer names the labels of a task without any, and drafts the prompt if it is "". `confirmed` holds rows and
    their answers that feedback in the file confirms.
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
        return tuple(input_columns(self.columns))


def labels_given(text: str) -> tuple[str, ...]:
    """Return the labels of `--labels A,B`; () for none. Raises InputError for invalid ones."""
    try:
        return checked_labels([name.strip() for name in text.split(",")]) if text else ()
    except Refused as error:
        raise InputError(f"--labels {text}: {error}") from None


def require_choice(asked: Asked) -> None:
    """Raise InputError for scoring options that do not fit answers without labels."""
    if asked.metric or asked.type:
        raise InputError("--metric and --type: a task without labels has a choice of labels as its answer; leave them")


def write_draft(
    plan: DraftPlan, labels: Sequence[str], definitions: Mapping[str, str], opening: str, rows: Sequence[UnlabelledRow]
) -> int:
    """Write the folder, whole or not at all; return how many rows have a label."""
    answer = words(plan.target)
    lines = [opening or f"Read the {' and '.join(map(words, plan.inputs))} and give the {answer}."]
    lines += [f"The {answer} is exactly one of:"]
    lines += [f"- {label}: {about}" if (about := definitions.get(label)) else f"- {label}" for label in labels]
    prompt = plan.prompt or "\n".join([*lines, "Answer with that one only, spelled as above."])
    field = next(column.field for column in plan.columns if column.use == "target")
    output = Output(field, ScoringRule("choice", MetricSpec("choice", plan.target)), tuple(labels))
    name = slug(plan.folder.name)
    text = task_toml(name, plan.columns, [output], prompt, has_metrics=False, description=plan.description)
    with new_task_folder(plan.folder) as (new, has_schema):
        (new / "task.toml").write_text(text if has_schema else text.removeprefix(SCHEMA_LINE), "utf-8")
        (new / UNLABELLED_FILE).write_text(rows_text(rows), "utf-8")
        task = LabelledTask(new)  # raises where it could not be labelled
        return task.label_confirmed(plan.confirmed, CONFIRMED_BY)
