"""A task whose rows people label: its fields, the rows without a label, the labels, and the splits made of both.

    task.toml + unlabelled.jsonl + labels.jsonl  ->  train.jsonl, dev.jsonl, test.jsonl

The splits are written again after each label, from what the files hold then, as other processes may have added rows.
Rows in the splits that are not labelled ones stay unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from agent.errors import InputError, ProblemsError
from agent.files import new_files
from agent.shipped import fold
from agent.task.input_files import parse_toml, read_bytes
from agent.task.label_files import UNLABELLED_FILE, LabelFiles, UnlabelledRow, json_line, read_label_files
from agent.task.label_log import (
    CONFIRMED,
    DISAGREEMENT,
    LABELS_FILE,
    LEFT_OUT,
    LabelEvent,
    LabelLog,
    agreed,
    first_labels,
    standing,
)
from agent.task.splits import SPLITS
from agent.task.words import listed, problem, quoted, shown


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """How far labelling is.

    Args:
        rows: in unlabelled.jsonl.
        labelled: rows with a label on which the labellers agree.
        disputed: rows on which no label has a majority.
        by_label: labelled rows by label.
        splits: rows in each split, from labels or not.
        chosen_in_test: test rows that were chosen because prompts answered them differently.
        missing: what is wanted before the splits are written, in words, or "".
    """

    rows: int
    labelled: int
    disputed: int
    by_label: Mapping[str, int]
    splits: Mapping[str, int]
    chosen_in_test: int
    missing: str


class LabelledTask:
    """A task folder whose rows people label. `rows` are those of unlabelled.jsonl when it was opened.

    Raises ProblemsError or InputError unless the task has one output, a choice, and a file unlabelled.jsonl.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name, self.inputs, self.field, self.choices, self.instruction = _read_toml(folder)
        if not (folder / UNLABELLED_FILE).is_file():
            raise InputError(
                f"{shown(folder / UNLABELLED_FILE)}: no such file; add rows without a label with "
                f"`optimize label {folder.name} --add FILE`"
            )
        self.rows = list(read_label_files(folder, self.inputs, self.field).rows.values())
        self.log = LabelLog(folder / LABELS_FILE, self._write_splits, self._with_splits)

    @property
    def definitions(self) -> dict[str, str]:
        """The meaning of each label, by a line `- LABEL: ...` of the instruction, or ""."""
        return definitions_in(self.instruction, self.choices)

    @cached_property
    def by_id(self) -> Mapping[str, UnlabelledRow]:
        """The rows by their ids."""
        return {row.id: row for row in self.rows}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """By id the position of a row."""
        return {row.id: at for at, row in enumerate(self.rows)}

    def label(self, row: str, label: str, labeller: str, chosen: str) -> LabelEvent:
        """Log a label and write the splits. Raises InputError for another row or label."""
        if row not in self.by_id:
            raise InputError(
                f"{quoted(row)} is no row of {shown(self.folder / UNLABELLED_FILE)}; label one of its rows"
            )
        if label not in self.choices:
            raise InputError(f"{quoted(label)} is no label of {self.name}; the labels are {listed(self.choices)}")
        return self.log.add(row, label, labeller, chosen)

    def label_confirmed(self, answers: Sequence[tuple[str, str]], labeller: str) -> int:
        """Give rows the answers that feedback confirmed, in the spelling of the labels; return how many are labels."""
        spelled = {fold(choice): choice for choice in self.choices}
        labels = [(row, spelled[fold(answer)]) for row, answer in answers if fold(answer) in spelled]
        if labels:
            self.log.add_all(labels, labeller, CONFIRMED)
        return len(labels)

    def write_splits(self) -> None:
        """Write the splits of the labels, as after a process that was killed between the two."""
        if events := self.log.events():
            self._write_splits(events)

    def status(self, events: Sequence[LabelEvent]) -> LabelStatus:
        """Tell how far labelling is after all `events` of the log."""
        now, chosen = self._files(events), {event.row: event.chosen for event in events if event.chosen}
        placed, of_rows = now.placed(events), self._agreed(events, now)
        made = now.made(of_rows, placed)
        in_test = [row for row, split in placed.items() if split == "test" and of_rows.get(row) is not None]
        return LabelStatus(
            rows=len(now.rows),
            labelled=sum(label is not None for label in of_rows.values()),
            disputed=sum(label is None for label in of_rows.values()),
            by_label={choice: sum(label == choice for label in of_rows.values()) for choice in self.choices},
            splits={split: len(made[split]) for split in SPLITS},
            chosen_in_test=sum(chosen.get(row) == DISAGREEMENT for row in in_test),
            missing=now.missing(made),
        )

    def labels(self, events: Sequence[LabelEvent]) -> dict[str, dict[str, LabelEvent]]:
        """Return by row and labeller the labels that stand and that the task still has."""
        return self._labels(events, self.by_id)

    def _labels(
        self, events: Sequence[LabelEvent], rows: Mapping[str, UnlabelledRow]
    ) -> dict[str, dict[str, LabelEvent]]:
        found = {
            row: {name: event for name, event in given.items() if event.label in self.choices}
            for row, given in standing(events).items()
            if row in rows
        }
        return {row: given for row, given in found.items() if given}

    def _with_splits(self, events: Sequence[LabelEvent], added: Sequence[LabelEvent]) -> list[LabelEvent]:
        """The added labels, each that is the first one of its row with the split that the row has from now on."""
        whole = [*events, *added]
        placed, first = self._files(whole).placed(whole), first_labels(whole)
        return [
            replace(event, split=placed[event.row] or LEFT_OUT) if first[event.row] is event else event
            for event in added
        ]

    def _files(self, events: Sequence[LabelEvent]) -> LabelFiles:
        return read_label_files(self.folder, self.inputs, self.field, {event.row for event in events})

    def _agreed(self, events: Sequence[LabelEvent], now: LabelFiles) -> dict[str, str | None]:
        return {row: agreed(given) for row, given in self._labels(events, now.rows).items()}

    def _write_splits(self, events: Sequence[LabelEvent]) -> None:
        now = self._files(events)
        made = now.made(self._agreed(events, now), now.placed(events))
        is_written = (self.folder / "test.jsonl").exists()
        if now.missing(made) and not (is_written and all(made.values())):
            return
        texts = {f"{split}.jsonl": "".join(map(json_line, rows)).encode() for split, rows in made.items()}
        with new_files(self.folder) as new:
            for name, text in texts.items():
                if not (old := self.folder / name).exists() or old.read_bytes() != text:
                    (new / name).write_bytes(text)


def read_fields(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return inputs and output of a task that people can label. Raises ProblemsError or InputError for any other."""
    _, inputs, field, _, _ = _read_toml(folder)
    return inputs, field


def rows_to_label(folder: str) -> int:
    """Count the rows of a task folder without a label; 0 where it is no readable task that people label."""
    if not folder or not Path(folder, UNLABELLED_FILE).is_file():
        return 0
    try:
        task = LabelledTask(Path(folder))
        return len(task.rows) - len(task.labels(task.log.events()))
    except InputError:
        return 0


def definitions_in(instruction: str, choices: Sequence[str]) -> dict[str, str]:
    """Return the meaning of each label, by the lines `- LABEL: ...` of an instruction, or "".

    >>> definitions_in("Name the team.\\n- bug: Something is broken.", ["bug", "question"])
    {'bug': 'Something is broken.', 'question': ''}
    """
    lines = {choice: re.search(rf"^- {re.escape(choice)}: *(.*)$", instruction, re.MULTILINE) for choice in choices}
    return {choice: line[1].strip() if line else "" for choice, line in lines.items()}


def _read_toml(folder: Path) -> tuple[str, tuple[str, ...], str, tuple[str, ...], str]:
    """Name, inputs, output, labels and instruction of the task. Raises where people cannot label it."""
    from agent.task.checks import parse_signature
    from agent.task.task_file import parse

    toml = folder / "task.toml"
    where = shown(toml)
    parsed = parse(parse_toml(read_bytes(toml, folder).decode("utf-8-sig"), where))
    if parsed.faults:
        raise ProblemsError(tuple(problem(where, 1, fault.what) for fault in parsed.faults))
    file = parsed.file
    inputs, outputs = parse_signature(file.signature)
    table = file.fields.get(outputs[0])
    if len(outputs) != 1 or table is None or table.type != "choice" or len(table.choices) < 2:
        raise InputError(f'{where}: labels are for a task with one output of type = "choice" and its choices')
    if set(inputs) & {"id", "source", "drafted"}:
        raise InputError(
            f"{where}: an input is called id, source or drafted, as a part of {UNLABELLED_FILE}; rename it"
        )
    if any(getattr(file.splits, split) not in (None, f"{split}.jsonl") for split in SPLITS) or any(
        (folder / f"{split}.csv").exists() for split in SPLITS
    ):
        raise InputError(f"{where}: labelled rows are added to train.jsonl, dev.jsonl and test.jsonl; name the rows so")
    return file.name, tuple(inputs), outputs[0], tuple(table.choices), file.instruction
