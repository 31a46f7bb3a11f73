"""What `optimize label --add FILE` brings: rows of a table, a text or traces, and the answers that traces confirm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.files import new_file
from agent.run.draft_files import CONFIRMED_BY
from agent.run.labelling import confirmed_answers, made_rows, read_table, some_rows
from agent.run.tasks import find_task
from agent.task.answers import text_of
from agent.task.columns import column_named
from agent.task.label_files import UNLABELLED_FILE, LabelledTask, UnlabelledRow, folded, read_fields, rows_text
from agent.task.splits import SPLITS
from agent.task.tables import DataFile, FileForm, read_rows
from agent.task.traces import TraceRows, is_traces, read_traces
from agent.task.words import counted, listed, near, quoted, shown


@dataclass(frozen=True, slots=True)
class AddedRows:
    """What was added.

    Args:
        rows: how many.
        traces: what was read, where the file holds traces.
        confirmed: rows that confirmed answers of traces are for and that had no label.
        labelled: those of them that got it; the other answers are no labels of the task.
        column: of a table, the one that has the name of the output, "" where there is none.
        not_taken: texts in it, which are no labels of a person.
        notes: on how the file was read.
    """

    rows: int
    traces: TraceRows | None
    confirmed: int
    labelled: int
    column: str
    not_taken: int
    notes: Sequence[str] = ()

    def lines(self) -> Iterator[str]:
        """The same in words."""
        if self.traces:
            yield from self.traces.lines()
        yield from self.notes
        yield f"added {counted(self.rows, 'row')} to label"
        if self.confirmed:
            yield f"labelled by {CONFIRMED_BY}: {self.labelled} of {self.confirmed}; other answers are no labels here"
        if self.not_taken:
            yield f"column {quoted(self.column)}, with {self.not_taken} filled in, is left out: people give the labels"


def add_rows(name: str, path: Path, form: FileForm) -> AddedRows:
    """Adds rows of a file to those without a label, and labels that traces confirm to rows that have none.

    Raises InputError or ProblemsError where the task or the file is wrong.
    """
    folder = find_task(name)
    inputs, field = read_fields(folder)
    traces = read_traces(path) if is_traces(path) else None
    file = DataFile(traces.questions, []) if traces else read_table(path, form)
    table = file.rows
    columns = _columns(table, inputs, path, traces is not None or path.suffix.lower() == ".txt")
    made = some_rows(made_rows(table, columns, path), inputs, path)
    known = _known(folder, inputs)
    new = [row for row in made if folded(row.inputs) not in known]
    if new:
        _append(folder / UNLABELLED_FILE, new)
    confirmed, labelled = _label(folder, confirmed_answers(traces, columns)) if traces else (0, 0)
    if not new and not labelled:
        raise InputError(f"{shown(path)}: none of its rows is new to {field} of {name}; give a file with others")
    column = "" if traces else column_named(_names(table), field) or ""
    not_taken = sum(bool(text_of(row.get(column)).strip()) for _, row in table)
    return AddedRows(len(new), traces, confirmed, labelled, column, not_taken, file.notes)


def _columns(
    table: Sequence[tuple[int, Mapping[str, Any]]], inputs: Sequence[str], path: Path, is_text: bool
) -> dict[str, str]:
    """By input its column; `is_text`: one that is alone has no name of the user's, and is the only input."""
    names = _names(table)
    if is_text and len(names) == len(inputs) == 1:
        return {inputs[0]: names[0]}
    columns = {own: column_named(names, own) for own in inputs}
    if missing := [own for own, column in columns.items() if column is None]:
        if path.suffix.lower() == ".txt":
            raise InputError(
                f"{shown(path)}: a line is one text, and the inputs are {listed(inputs)}; give a .csv file"
            )
        raise InputError(f"{shown(path)}: no column for the input {quoted(missing[0])}{near(missing[0], names)}")
    return {own: column or "" for own, column in columns.items()}


def _names(table: Sequence[tuple[int, Mapping[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(key for _, row in table for key in row))


def _known(folder: Path, inputs: Sequence[str]) -> set[tuple[str, ...]]:
    """The inputs that a task has, as they are compared."""
    known = {folded(row.inputs) for row in LabelledTask(folder).rows} if (folder / UNLABELLED_FILE).exists() else set()
    for split in SPLITS:
        if (file := folder / f"{split}.jsonl").exists():
            rows, _ = read_rows(file)
            known |= {folded({own: str(row.get(own, "")) for own in inputs}) for _, row in rows}
    return known


def _append(file: Path, rows: Sequence[UnlabelledRow]) -> None:
    before = file.read_bytes() if file.exists() else b""
    end = b"\n" if before and not before.endswith(b"\n") else b""  # an editor may have left it out
    with new_file(file) as opened:
        opened.write(before + end + rows_text(rows).encode("utf-8"))


def _label(folder: Path, confirmed: Mapping[str, str]) -> tuple[int, int]:
    """Gives rows without a label the answers that are confirmed; returns how many there are, and how many of them are
    labels."""
    if not (folder / UNLABELLED_FILE).exists():
        return 0, 0
    task = LabelledTask(folder)
    labelled = task.labels(task.log.events())
    answers = [(row, answer) for row, answer in confirmed.items() if row in task.by_id and row not in labelled]
    return len(answers), task.label_confirmed(answers, CONFIRMED_BY)
