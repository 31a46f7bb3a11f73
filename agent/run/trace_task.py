"""A task folder out of traces: confirmed answers are its rows, the others lie beside them without a label. Where few
are confirmed it is a task to label: they are its first labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agent.errors import InputError
from agent.files import new_file
from agent.prompt.draft_requests import Refused, checked_labels
from agent.run.draft_files import CONFIRMED_BY, DraftPlan, labels_given, require_choice, write_draft
from agent.run.labelling import input_columns, made_rows, unlabelled_traces, verdict_lines
from agent.run.tasks import make_task, new_folder
from agent.task.answers import label_reader, target_type
from agent.task.checks import PLACEHOLDER
from agent.task.from_file import renamed
from agent.task.input_files import prompt_text
from agent.task.label_files import UNLABELLED_FILE, json_line, rows_text
from agent.task.scoring_rule import NOTHING, Asked
from agent.task.splits import MIN_ROWS
from agent.task.traces import TraceRows, read_traces
from agent.task.words import counted, listed, shown

SYSTEM_LINE = "prompt: the system text of most traces"
Next = Literal["run", "label"]
"""The command that goes on with the task."""


def task_from_traces(
    name: str, source: Path, prompt: str | None, seed: int, asked: Asked = NOTHING, labels: str = ""
) -> tuple[Path, list[str], Next]:
    """Makes a task folder out of a trace file.

    Args:
        name: as of `make_task`.
        source: the trace file.
        prompt: as of `make_task`. None: the system text of most traces, else a plain one.
        seed: decides which rows go to which split.
        asked: what else the user says of the rows.
        labels: the labels, apart by commas, where fewer than 30 answers are confirmed. "": the answers in the file.

    Returns:
        The folder, what was read of the file, in lines, and the command that is next.

    Raises:
        InputError: fewer than 30 answers are confirmed and the answers are no labels (the rows are then kept in a file
            to be filled in), or what `make_task` refuses.
    """
    found, choices = read_traces(source), labels_given(labels)
    lines = list(found.lines())
    if len(found.labelled) < MIN_ROWS:
        if choices or (choices := _labels_in(found.answers)):
            origin = "--labels" if labels else "the answers in the file"
            folder, more = _task_to_label(name, source, found, prompt, asked, choices)
            return folder, [*lines, f"labels, from {origin}: {listed(choices)}", *more], "label"
        confirmed = counted(len(found.labelled), "answer is", "answers are")
        file = Path(f"{Path(name).name}-{UNLABELLED_FILE}")
        if file.exists():
            raise InputError(f"{shown(file)} exists, and the rows to label would be written there; move it away")
        _write(file, "".join(map(json_line, [*found.labelled, *found.unlabelled])))
        raise InputError(
            "\n".join(
                [
                    *lines,
                    f"{shown(source)}: {confirmed} confirmed by a score or feedback, and a task "
                    f"needs {MIN_ROWS}; wrote the rows to {shown(file)}: fill in {found.column!r}, then "
                    f"`optimize init {name} --from {shown(file)} --target {found.column}`; where the answer is one of "
                    f"some labels, give them: `optimize init {name} --from {shown(source)} --labels A,B`",
                ]
            )
        )
    if choices:
        raise InputError(f"--labels: {len(found.labelled)} answers are confirmed and say the labels; leave it out")
    if prompt is None and found.instruction:
        prompt = f"{found.instruction}\n"  # with the end of a line it is never taken as the name of a file
        lines.append(SYSTEM_LINE)
    folder, reading = make_task(name, source, found.column, prompt, seed, asked, found.labelled)
    table = [(line, row) for line, row in found.table if found.column not in row]
    if rows := made_rows(table, input_columns(reading.columns), source):
        _write(folder / UNLABELLED_FILE, rows_text(rows))
        lines.append(f"{folder / UNLABELLED_FILE}: {counted(len(rows), 'row')} without a label, which no run reads")
    return folder, [*lines, *reading.lines()], "run"


def _task_to_label(
    name: str, source: Path, found: TraceRows, prompt: str | None, asked: Asked, labels: tuple[str, ...]
) -> tuple[Path, list[str]]:
    """A task whose confirmed answers are its first labels, and what is in it."""
    require_choice(asked)
    folder = new_folder(name)
    instruction = prompt_text(prompt) if prompt else found.instruction
    marks = frozenset(mark[1] for mark in PLACEHOLDER.finditer(instruction))
    columns, rows, confirmed = unlabelled_traces(found, source, found.column, asked, marks)
    own = renamed(instruction, columns)
    plan = DraftPlan(folder, "", found.column, labels, columns, tuple(rows), confirmed=confirmed, prompt=own)
    labelled = write_draft(plan, labels, {}, "", rows)
    lines = [f"{folder / UNLABELLED_FILE}: {counted(len(rows), 'row')}, {labelled} of them labelled by {CONFIRMED_BY}"]
    if others := len(confirmed) - labelled:
        are = counted(others, "confirmed answer is", "confirmed answers are")
        lines.append(f"{are} none of the labels: such a row has no label")
    if not prompt:
        lines.append(SYSTEM_LINE if found.instruction else "prompt: a plain one")
    return folder, [*lines, *verdict_lines(len(labels))]


def _labels_in(answers: Sequence[str]) -> tuple[str, ...]:
    """The labels that the answers are, each in its usual spelling; () where they are none."""
    if target_type(answers) != "choice":
        return ()
    read = label_reader("choice", answers)
    try:
        return checked_labels(sorted({read(answer) for answer in answers}))
    except Refused:  # a text that can be no label stands among them
        return ()


def _write(path: Path, text: str) -> None:
    with new_file(path, private=True) as file:
        file.write(text.encode("utf-8"))
