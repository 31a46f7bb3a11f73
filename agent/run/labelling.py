"""What `optimize label` runs: a task to label by its name, rows out of files, and what is wanted for a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.results.rows import LabellingResult
from agent.run.tasks import find_task
from agent.stats.preflight import rows_for
from agent.task.columns import DataColumn, column_named, decide_columns
from agent.task.documents import html_notes, stripped
from agent.task.input_files import as_utf8, decode, read_bytes
from agent.task.label_files import LabelledTask, UnlabelledRow, unlabelled_rows
from agent.task.label_session import LabelSession, agreements, queue_of
from agent.task.scoring_rule import NOTHING, Asked
from agent.task.splits import FRACTIONS
from agent.task.tables import DataFile, FileForm, Rows, encoding_notes, read_data_file
from agent.task.traces import TraceRows, is_traces, read_traces
from agent.task.words import problem, quoted, shown
from agent.types import content_id

GAINS = (0.3, 0.1)
"""Gains for which the labels are counted, as shares."""
TEXT = "text"
"""The input of a .txt file: a row a line."""


def opened(name: str) -> LabelledTask:
    """The task of this name or path, with its splits as its labels are. Raises InputError where it is none."""
    task = LabelledTask(find_task(name))
    task.write_splits()
    return task


Unlabelled = tuple[tuple[DataColumn, ...], list[UnlabelledRow], tuple[tuple[str, str], ...]]
"""Columns, rows, and row and answer where feedback confirms it."""


def read_unlabelled(path: Path, target: str, asked: Asked = NOTHING) -> Unlabelled:
    """The columns and rows of a file without labels.

    Args:
        path: .txt with a row a line, a data file, or traces.
        target: the name of the output, which may be no column of it.
        asked: `--input` and `--ignore`.

    Raises:
        InputError: there is such a column, no input, or no row.
        ProblemsError: the file has broken rows.
    """
    if is_traces(path):
        return unlabelled_traces(read_traces(path), path, target, asked)
    columns, rows = _unlabelled(read_table(path, asked.form).rows, path, target, asked, frozenset())
    return columns, rows, ()


def unlabelled_traces(
    found: TraceRows, path: Path, target: str, asked: Asked, marks: frozenset[str] = frozenset()
) -> Unlabelled:
    """The same of a trace file that was read; `marks` are the columns in the `{{ }}` of its prompt."""
    columns, rows = _unlabelled(found.questions, path, target, asked, marks)
    confirmed, ids = confirmed_answers(found, input_columns(columns)), {row.id for row in rows}
    return columns, rows, tuple((row, answer) for row, answer in confirmed.items() if row in ids)


def confirmed_answers(found: TraceRows, columns: Mapping[str, str]) -> dict[str, str]:
    """By row the answer of a trace file that feedback confirms; `columns`: by input its column."""
    return {content_id("row", _inputs(row, columns)): row[found.column] for row in found.labelled}


def input_columns(columns: Sequence[DataColumn]) -> dict[str, str]:
    """By input the name of its column."""
    return {column.field: column.name for column in columns if column.use == "input"}


def _unlabelled(
    table: Sequence[tuple[int, Mapping[str, Any]]], path: Path, target: str, asked: Asked, marks: frozenset[str]
) -> tuple[tuple[DataColumn, ...], list[UnlabelledRow]]:
    names = list(dict.fromkeys(key for _, row in table for key in row))
    if (column := column_named(names, target)) is not None:
        raise InputError(
            f"{shown(path)}: has a column {quoted(column)}; where it holds the labels: optimize init NAME --from "
            f"{shown(path)} --target {column}; else name another output with --target"
        )
    columns = decide_columns([{**row, target: ""} for _, row in table], [target], marks, asked)
    inputs = input_columns(columns)
    return columns, some_rows(made_rows(table, inputs, path), inputs, path)


def made_rows(
    table: Sequence[tuple[int, Mapping[str, Any]]], columns: Mapping[str, str], path: Path
) -> list[UnlabelledRow]:
    """Rows of fields out of a table, without those that lack one."""
    texts = [(_inputs(row, columns), line) for line, row in table]
    full = [(inputs, f"{path.name}:{line}") for inputs, line in texts if all(map(str.strip, inputs.values()))]
    return unlabelled_rows(full)


def some_rows(rows: list[UnlabelledRow], inputs: Iterable[str], path: Path) -> list[UnlabelledRow]:
    """These rows of a file. Raises InputError where there are none."""
    if not rows:
        raise InputError(f"{shown(path)}: no row has a text for {' and '.join(inputs)}; give a file with others")
    return rows


def _inputs(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    from agent.task.answers import text_of

    return {own: text_of(row.get(column)) for own, column in columns.items()}


def read_table(path: Path, form: FileForm) -> DataFile:
    """The rows of a data file, or the lines of a .txt one, with their lines. Raises ProblemsError for broken ones."""
    file = _lines_of(path, form) if path.suffix.lower() == ".txt" else read_data_file(path, form)
    if not file.rows and not file.problems:
        raise ProblemsError((problem(shown(path), 1, "no rows; write one a line"),))
    if file.problems:
        raise ProblemsError(tuple(file.problems))
    table = [row for _, row in file.rows]
    notes = (*file.notes, *html_notes(table, dict.fromkeys(name for row in table for name in row), form))
    rows = [(line, stripped(row)) for line, row in file.rows] if form.strip_html else file.rows
    return replace(file, rows=rows, notes=notes)


def _lines_of(path: Path, form: FileForm) -> DataFile:
    data, name = as_utf8(read_bytes(path), form.encoding)
    lines, problems = decode(data, shown(path))
    rows: Rows = [(number, {TEXT: line}) for number, line in enumerate(lines, start=1) if line and line.strip()]
    return DataFile(rows, problems, encoding_notes(path, name, form))


def labels_wanted(task: LabelledTask) -> LabellingResult:
    """How far labelling is and what is wanted for a verdict."""
    events = task.log.events()
    status = task.status(events)
    splits = ", ".join(f"{split} {count}" for split, count in status.splits.items())
    wanted = [f"rows: {splits}"]
    if status.missing:
        wanted = [f"wanted before train, dev and test are written: {status.missing}"]
    wanted += list(verdict_lines(len(task.choices)))
    if status.chosen_in_test:
        wanted.append(
            f"{status.chosen_in_test} of {status.splits['test']} test rows were chosen because prompts answered them "
            "differently: the gain that is measured on them is larger than on all rows"
        )
    name = task.folder.name if task.folder.parent == Path("tasks") else str(task.folder)
    more = " --add FILE" * (status.labelled == status.rows)
    return LabellingResult(
        task=task.name,
        folder=str(task.folder),
        rows=status.rows,
        labelled=status.labelled,
        disputed=status.disputed,
        by_label=status.by_label,
        splits=status.splits,
        agreement=tuple(pair.line for pair in agreements(task, events)),
        wanted=tuple(wanted),
        next=f"optimize label {name}{more}" if status.missing else f"optimize run {name}",
    )


def rows_next(task: LabelledTask, answers: Mapping[str, Sequence[str]], count: int = 20) -> list[dict[str, Any]]:
    """The rows that are to be labelled next, JSON-ready: id, inputs and why."""
    session, found = LabelSession(task, "next", queue_of(task, answers), 0), list[dict[str, Any]]()
    events = task.log.events()
    while len(found) < count and (shown := session.next(events, [each["row"] for each in found])) is not None:
        found.append({"row": shown.row.id, "inputs": dict(shown.row.inputs), "why": shown.why})
    return found


def verdict_lines(labels: int) -> list[str]:
    """How many labels show which gain, in words; `labels`: how many there are to choose from."""
    parts = []
    for gain in GAINS:
        rows = rows_for(gain, 0.5) or 0
        count = math.ceil(rows / FRACTIONS[2])
        parts.append(f"{100 * gain:.0f} points about {count} labels ({math.ceil(count / labels)} a label)")
    return [f"to show a gain of {', of '.join(parts)} are wanted, as {FRACTIONS[2]:.0%} of them become test rows"]
