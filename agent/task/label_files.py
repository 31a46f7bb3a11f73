"""The files of a task to label: its rows without a label in unlabelled.jsonl, and the splits that labels make of them.

    {"id": "row_1f...", "text": "...", "source": "mails.csv:2"}
    {"id": "row_2e...", "text": "...", "source": "synthetic", "drafted": "bug"}

The place of a row follows from the labels before it: rows come in the order of their first label, and each goes where
its label is most lacking, by the fractions of `splits.py`. It stays there, as the log keeps its split: whatever is
labelled, changed, undone, added or deleted later, a prompt that was chosen on a dev row is never tested on it. Of
near-duplicates the first stands for all; a later one follows it into train, or is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.shipped import fold
from agent.task.clean_rows import MIN_ROWS
from agent.task.input_files import read_bytes
from agent.task.label_log import LabelEvent, first_labels
from agent.task.splits import CAPS, FRACTIONS, SPLITS, are_near, compared, near_duplicates
from agent.task.tables import read_rows, rows_of
from agent.task.words import counted, problem, quoted, shown
from agent.types import SplitName, content_id

UNLABELLED_FILE = "unlabelled.jsonl"
SYNTHETIC = "synthetic"
"""The source of a row that a model wrote."""


@dataclass(frozen=True, slots=True)
class UnlabelledRow:
    """A row of unlabelled.jsonl. `source`: FILE:LINE, or SYNTHETIC, where `drafted` is the label that it was written
    for; that is never shown and goes into no split."""

    id: str
    inputs: Mapping[str, str]
    source: str
    drafted: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it is written in the file."""
        drafted = {"drafted": self.drafted} if self.drafted else {}
        return {"id": self.id, **self.inputs, "source": self.source, **drafted}

    @property
    def text(self) -> str:
        """The inputs as one text."""
        return "\n".join(self.inputs.values())


def unlabelled_rows(table: Sequence[tuple[Mapping[str, str], str]]) -> list[UnlabelledRow]:
    """Make rows of inputs and source, of equal inputs (whatever the case) the first."""
    found: dict[tuple[str, ...], UnlabelledRow] = {}
    for inputs, source in table:
        row = UnlabelledRow(content_id("row", dict(inputs)), dict(inputs), source)
        found.setdefault(folded(row.inputs), row)
    return list(found.values())


def folded(inputs: Mapping[str, str]) -> tuple[str, ...]:
    """Return the inputs case-folded, for comparison."""
    return tuple(fold(text) for text in inputs.values())


def rows_text(rows: Sequence[UnlabelledRow]) -> str:
    """Return the text of unlabelled.jsonl."""
    return "".join(json_line(row.as_dict()) for row in rows)


def json_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of a .jsonl file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_unlabelled_file(path: Path, inputs: Sequence[str]) -> list[UnlabelledRow]:
    """Read the rows of the file. Raises ProblemsError with each that is no row with these inputs."""
    data, where = read_bytes(path), shown(path)
    rows, problems = rows_of(data, path)
    found: dict[str, UnlabelledRow] = {}
    for line, row in rows:
        texts = {name: row.get(name) for name in ("id", *inputs, "source")}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str) or not text.strip()]:
            problems.append(problem(where, line, f"{wrong[0]}: no text; write one"))
        elif row["id"] in found:
            problems.append(
                problem(where, line, f"the id {quoted(row['id'])} stands there before; keep one of the two")
            )
        else:
            own = {name: row[name] for name in inputs}
            found[row["id"]] = UnlabelledRow(row["id"], own, row["source"], str(row.get("drafted", "")))
    if problems:
        raise ProblemsError(tuple(problems))
    return list(found.values())


# -- all files at a moment ---------------------------------------------------------------------------------------------

Placed = Mapping[str, SplitName | None]
"""By row its split; None: none."""
Made = Mapping[str, Sequence[Mapping[str, Any]]]
"""By split its rows."""


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """What the files hold. `rows`: those of unlabelled.jsonl by their ids; `given`: split and row of the others."""

    inputs: Sequence[str]
    field: str
    rows: Mapping[str, UnlabelledRow]
    given: Sequence[tuple[SplitName, Mapping[str, Any]]]

    def placed(self, events: Sequence[LabelEvent]) -> Placed:
        """Return the split of each row of the log: as the log keeps it, else by the labels before."""
        first = first_labels(events)
        kept = {row: _split(event) for row, event in first.items() if event.split}
        if len(kept) == len(first):
            return kept
        others = [SplitRow(self._text(row), str(row[self.field]), split) for split, row in self.given]
        rows = {
            row: SplitRow(self.rows[row].text if row in self.rows else row, event.label or "", kept.get(row))
            for row, event in first.items()
            if row not in kept or (kept[row] and row in self.rows)  # others say nothing of where the next ones go
        }
        return {**dict(zip(rows, places([*others, *rows.values()])[len(others) :], strict=True)), **kept}

    def made(self, labels: Mapping[str, str | None], placed: Placed) -> Made:
        """Return the rows of each split: those given otherwise, then the labelled ones by their first label.

        `labels`: by row its label, None where labellers disagree; `placed`: by row its split.
        """
        made: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for given, row in self.given:
            made[given].append(row)
        for row_id, split in placed.items():
            if split is not None and row_id in self.rows and (label := labels.get(row_id)) is not None:
                made[split].append({"id": row_id, **self.rows[row_id].inputs, self.field: label})
        return made

    def missing(self, made: Made) -> str:
        """Say what is wanted before the splits are written, or ""."""
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
    """Read the files of a folder. `logged`: rows of its log, which are labelled ones also where they are deleted from
    unlabelled.jsonl. Raises ProblemsError or InputError where a file is broken or gone."""
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


# -- where a row goes --------------------------------------------------------------------------------------------------

_PREFERRED: tuple[SplitName, ...] = ("test", "dev", "train")  # of splits that lack as much
_SHARE = dict(zip(("train", "dev", "test"), FRACTIONS, strict=True))
_CAP = dict(zip(("train", "dev", "test"), CAPS, strict=True))


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A row to place: its inputs as one text, its first label, and its split where that is given."""

    text: str
    label: str
    split: SplitName | None = None


def places(rows: Sequence[SplitRow]) -> list[SplitName | None]:
    """Return the split of each row, None for one that is left out; a longer list begins with the same places.

    >>> places([SplitRow(f"{word} note", "a") for word in ("red", "blue", "green", "grey", "pink")])
    ['train', 'test', 'dev', 'test', 'train']
    """
    groups = {at: group for group in near_duplicates([row.text for row in rows]) for at in group}
    words = {at: compared(rows[at].text) for at in groups}
    placed: list[SplitName | None] = []
    total: Counter[str] = Counter()
    by_label: Counter[tuple[str, str]] = Counter()
    for at, row in enumerate(rows):
        earlier = [other for other in groups.get(at, ()) if other < at and placed[other]]
        twins = {placed[other] for other in earlier if are_near(words[other], words[at])}
        of_twins: SplitName | None = "train" if twins == {"train"} else None
        found = row.split or (of_twins if twins else _lacking(row.label, by_label, total))
        if not twins:
            by_label[row.label, found or ""] += 1
        total[found or ""] += 1
        placed.append(found)
    return placed


def _lacking(label: str, by_label: Counter[tuple[str, str]], total: Counter[str]) -> SplitName | None:
    room = [split for split in _PREFERRED if total[split] < _CAP[split]]
    if not by_label[label, "train"] and "train" in room:
        return "train"
    count = 1 + sum(by_label[label, split] for split in _PREFERRED)
    return max(room, key=lambda split: _SHARE[split] * count - by_label[label, split], default=None)
