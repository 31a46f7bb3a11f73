"""What the files of a task to label hold at a moment, and the splits that its labels make of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.task.clean_rows import MIN_ROWS
from agent.task.input_files import read_rows
from agent.task.label_log import LabelEvent, first_labels
from agent.task.label_splits import SplitRow, places
from agent.task.unlabelled import UNLABELLED_FILE, UnlabelledRow, read_unlabelled_file
from agent.task.words import counted
from agent.types import SplitName

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
Placed = Mapping[str, SplitName | None]
"""By row its split; None: none."""
Made = Mapping[str, Sequence[Mapping[str, Any]]]
"""By split its rows."""


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """What the files hold.

    Args:
        inputs, field: of the task, by their names.
        rows: those of unlabelled.jsonl by their ids.
        given: split and row of those in the splits that are no labelled ones.
    """

    inputs: Sequence[str]
    field: str
    rows: Mapping[str, UnlabelledRow]
    given: Sequence[tuple[SplitName, Mapping[str, Any]]]

    def placed(self, events: Sequence[LabelEvent]) -> Placed:
        """By row of the log its split: as the log keeps it, else by the labels before."""
        first = first_labels(events)
        kept = {row: _split(event) for row, event in first.items() if event.split}
        if len(kept) == len(first):
            return kept
        beside = [SplitRow(self._text(row), str(row[self.field]), split) for split, row in self.given]
        rows = {
            row: SplitRow(self.rows[row].text if row in self.rows else row, event.label or "", kept.get(row))
            for row, event in first.items()
            if row not in kept or (kept[row] and row in self.rows)  # others say nothing of where the next ones go
        }
        return {**dict(zip(rows, places([*beside, *rows.values()])[len(beside) :], strict=True)), **kept}

    def made(self, labels: Mapping[str, str | None], placed: Placed) -> Made:
        """The rows of each split: those given otherwise, then the labelled ones in the order of their first label.

        Args:
            labels: by row the label that it has, None where labellers do not agree.
            placed: by row its split.
        """
        made: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for given, row in self.given:
            made[given].append(row)
        for row_id, split in placed.items():
            if split is not None and row_id in self.rows and (label := labels.get(row_id)) is not None:
                made[split].append({"id": row_id, **self.rows[row_id].inputs, self.field: label})
        return made

    def missing(self, made: Made) -> str:
        """What is wanted before the splits are written, in words; "" where that is nothing."""
        rows = [row for of_split in made.values() for row in of_split]
        if self.given:
            return ""
        if (more := MIN_ROWS - len(rows)) > 0:
            return f"at least {counted(more, 'more label')}"
        if len({row[self.field] for row in rows}) < 2:
            return "rows of a second label"
        return "" if all(made.values()) else "rows that are less alike"

    def _text(self, row: Mapping[str, Any]) -> str:
        return "\n".join(str(row.get(name, "")) for name in self.inputs)


def read_label_files(folder: Path, inputs: Sequence[str], field: str, logged: Collection[str] = ()) -> LabelFiles:
    """What the files of a folder hold now; `logged`: rows of its log, which are labelled ones also where they are
    deleted from unlabelled.jsonl. Raises ProblemsError or InputError where a file is broken or gone."""
    rows = {row.id: row for row in read_unlabelled_file(folder / UNLABELLED_FILE, inputs)}
    labelled, given = {*rows, *logged}, list[tuple[SplitName, Mapping[str, Any]]]()
    for split in SPLITS:
        if (path := folder / f"{split}.jsonl").exists():
            table, problems = read_rows(path)
            if problems:
                raise ProblemsError(tuple(problems))
            given += [(split, row) for _, row in table if row.get("id") not in labelled]
    return LabelFiles(inputs, field, rows, given)


def _split(event: LabelEvent) -> SplitName | None:
    return next((split for split in SPLITS if split == event.split), None)
