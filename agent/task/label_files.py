"""The files of a task to label: rows without a label in unlabelled.jsonl, and the splits made from labels.

    {"id": "row_1f...", "text": "...", "source": "mails.csv:2"}
    {"id": "row_2e...", "text": "...", "source": "synthetic", "drafted": "bug"}

Rows are placed in the order of their first label. Each goes to the split that lacks its label most, by the fractions
of `splits.py`, and stays there, as the log records its split. So whatever is labelled, undone, added or deleted later,
a prompt that was chosen on a dev row is never tested on it. A near-duplicate follows the earlier row into train, or is
left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.errors import InputError, refuse_all
from agent.safe_file import new_files
from agent.safe_text import counted, listed, problem, quoted, shown
from agent.shipped import fold
from agent.task.checks import parse_signature
from agent.task.copies import are_near, compared, near_duplicates
from agent.task.examples import folded
from agent.task.label_log import CONFIRMED, DISAGREEMENT, LabelEvent, LabelLog, agreed, current_labels, first_labels
from agent.task.splits import CAPS, FRACTIONS, MIN_ROWS
from agent.task.tables import DataFile
from agent.types import SPLITS, SplitName, content_id

UNLABELLED_FILE = "unlabelled.jsonl"
LABELS_FILE = "labels.jsonl"
SYNTHETIC = "synthetic"
"""The source of a row written by a model."""
LEFT_OUT = "none"
"""The split of a near-duplicate that is left out."""


@dataclass(frozen=True, slots=True)
class UnlabelledRow:
    """A row of unlabelled.jsonl; its source is FILE:LINE or SYNTHETIC.

    `drafted` is the label that a synthetic row was written for.
    """

    id: str
    inputs: Mapping[str, str]
    source: str
    drafted: str = ""

    def as_dict(self) -> dict[str, Any]:
        drafted = {"drafted": self.drafted} if self.drafted else {}
        return {"id": self.id, **self.inputs, "source": self.source, **drafted}

    @property
    def text(self) -> str:
        return "\n".join(self.inputs.values())


def unlabelled_rows(table: Sequence[tuple[Mapping[str, str], str]]) -> list[UnlabelledRow]:
    found: dict[tuple[str, ...], UnlabelledRow] = {}
    for inputs, source in table:
        row = UnlabelledRow(content_id("row", dict(inputs)), dict(inputs), source)
        found.setdefault(folded(row.inputs), row)
    return list(found.values())


def rows_text(rows: Sequence[UnlabelledRow]) -> str:
    return "".join(json_line(row.as_dict()) for row in rows)


def json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_unlabelled_file(path: Path, inputs: Sequence[str]) -> list[UnlabelledRow]:
    """Read unlabelled rows. Raises ProblemsError."""
    file, found = DataFile(path), dict[str, UnlabelledRow]()
    for line, row in file.rows:
        texts = {name: row.get(name) for name in ("id", *inputs, "source")}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str) or not text.strip()]:
            file.note(line, f"{wrong[0]}: no text; write one")
        elif row["id"] in found:
            file.note(line, f"the id {quoted(row['id'])} is used before; keep one of the two")
        else:
            own = {name: row[name] for name in inputs}
            found[row["id"]] = UnlabelledRow(row["id"], own, row["source"], str(row.get("drafted", "")))
    file.refuse_all()
    return list(found.values())


# -- where a row goes --------------------------------------------------------------------------------------------------

_PREFERRED: tuple[SplitName, ...] = ("test", "dev", "train")  # between splits that lack equally many
_SHARE = dict(zip(("train", "dev", "test"), FRACTIONS, strict=True))
_CAP = dict(zip(("train", "dev", "test"), CAPS, strict=True))


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A row to place: its text, first label, and split if already decided."""

    text: str
    label: str
    split: SplitName | None = None


def places(rows: Sequence[SplitRow]) -> list[SplitName | None]:
    """Return the split of each row in order, None for one that is left out.

    Later rows never change the splits of earlier ones.

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


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """Progress of labelling; `missing` is what the splits still need."""

    rows: int
    labelled: int
    disputed: int
    by_label: Mapping[str, int]
    splits: Mapping[str, int]
    chosen_in_test: int
    missing: str


class LabelledTask:
    """A task folder whose rows people label. Raises ProblemsError or InputError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name, self.inputs, self.field, self.choices, self.instruction = _read_toml(folder)
        if not (folder / UNLABELLED_FILE).is_file():
            fix = f"add rows: `optimize label {folder.name} --add FILE`"
            raise InputError(f"{shown(folder / UNLABELLED_FILE)}: no such file; {fix}")
        self.rows = list(_Moment(self, ()).rows.values())
        self.log = LabelLog(folder / LABELS_FILE, self._write_splits, self._with_splits)

    @property
    def definitions(self) -> dict[str, str]:
        """The meaning of each label from lines `- LABEL: ...` of the instruction."""
        lines = [re.search(rf"^- {re.escape(each)}: *(.*)$", self.instruction, re.MULTILINE) for each in self.choices]
        return {choice: line[1].strip() if line else "" for choice, line in zip(self.choices, lines, strict=True)}

    @cached_property
    def by_id(self) -> Mapping[str, UnlabelledRow]:
        return {row.id: row for row in self.rows}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {row.id: at for at, row in enumerate(self.rows)}

    def label(self, row: str, label: str, labeller: str, chosen: str) -> LabelEvent:
        """Log a label and write the splits. Raises InputError for an unknown row or label."""
        if row not in self.by_id:
            raise InputError(f"{quoted(row)} is no row of {shown(self.folder / UNLABELLED_FILE)}; take another")
        if label not in self.choices:
            raise InputError(f"{quoted(label)} is no label of {self.name}; the labels are {listed(self.choices)}")
        return self.log.add(row, label, labeller, chosen)

    def label_confirmed(self, answers: Sequence[tuple[str, str]], labeller: str) -> int:
        """Log confirmed answers that are labels, as (row, answer); return their number."""
        spelled = {fold(choice): choice for choice in self.choices}
        labels = [(row, spelled[fold(answer)]) for row, answer in answers if fold(answer) in spelled]
        return len(self.log.add_all(labels, labeller, CONFIRMED)) if labels else 0

    def write_splits(self) -> None:
        """Write the splits again, such as after a kill between log and splits."""
        if events := self.log.events():
            self._write_splits(events)

    def status(self, events: Sequence[LabelEvent]) -> LabelStatus:
        now, chosen = _Moment(self, events), {event.row: event.chosen for event in events if event.chosen}
        labels = [*now.agreed.values()]
        in_test = [row for row, split in now.placed.items() if split == "test" and now.agreed.get(row) is not None]
        return LabelStatus(
            rows=len(now.rows),
            labelled=sum(label is not None for label in labels),
            disputed=labels.count(None),
            by_label={choice: labels.count(choice) for choice in self.choices},
            splits={split: len(now.made[split]) for split in SPLITS},
            chosen_in_test=sum(chosen.get(row) == DISAGREEMENT for row in in_test),
            missing=now.missing,
        )

    def labels(
        self, events: Sequence[LabelEvent], rows: Mapping[str, UnlabelledRow] | None = None
    ) -> dict[str, dict[str, LabelEvent]]:
        """Return the current labels by row and labeller, of rows and labels that still exist."""
        found = {
            row: {name: event for name, event in given.items() if event.label in self.choices}
            for row, given in current_labels(events).items()
            if row in (self.by_id if rows is None else rows)
        }
        return {row: given for row, given in found.items() if given}

    def _with_splits(self, events: Sequence[LabelEvent], added: Sequence[LabelEvent]) -> list[LabelEvent]:
        whole = [*events, *added]
        placed, first = _Moment(self, whole).placed, first_labels(whole)
        return [
            replace(event, split=placed[event.row] or LEFT_OUT) if first[event.row] is event else event
            for event in added
        ]

    def _write_splits(self, events: Sequence[LabelEvent]) -> None:
        now = _Moment(self, events)
        if now.missing and not ((self.folder / "test.jsonl").exists() and all(now.made.values())):
            return
        with new_files(self.folder) as new:
            for split, rows in now.made.items():
                text = "".join(map(json_line, rows)).encode()
                if not (old := self.folder / f"{split}.jsonl").exists() or old.read_bytes() != text:
                    (new / old.name).write_bytes(text)


class _Moment:
    # the files of a task after the `events` of its log; `given` are split rows that no label made

    def __init__(self, task: LabelledTask, events: Sequence[LabelEvent]) -> None:
        self._task, self._events = task, events
        self.rows = {row.id: row for row in read_unlabelled_file(task.folder / UNLABELLED_FILE, task.inputs)}
        labelled = {*self.rows, *(event.row for event in events)}
        self.given: list[tuple[SplitName, Mapping[str, Any]]] = []
        for split in SPLITS:
            if (path := task.folder / f"{split}.jsonl").exists():
                file = DataFile(path)
                file.refuse_all()
                self.given += [(split, row) for _, row in file.rows if row.get("id") not in labelled]

    @cached_property
    def placed(self) -> Mapping[str, SplitName | None]:
        names: dict[str, SplitName] = {split: split for split in SPLITS}
        first = first_labels(self._events)
        kept = {row: names.get(event.split) for row, event in first.items() if event.split}
        if len(kept) == len(first):
            return kept
        texts = ["\n".join(str(row.get(name, "")) for name in self._task.inputs) for _, row in self.given]
        others = [
            SplitRow(text, str(row[self._task.field]), split)
            for text, (split, row) in zip(texts, self.given, strict=True)
        ]
        rows = {
            row: SplitRow(self.rows[row].text if row in self.rows else row, event.label or "", kept.get(row))
            for row, event in first.items()
            if row not in kept or (kept[row] and row in self.rows)  # others say nothing of where the next ones go
        }
        return {**dict(zip(rows, places([*others, *rows.values()])[len(others) :], strict=True)), **kept}

    @cached_property
    def agreed(self) -> dict[str, str | None]:
        return {row: agreed(given) for row, given in self._task.labels(self._events, self.rows).items()}

    @cached_property
    def made(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        made: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for given, row in self.given:
            made[given].append(row)
        for row_id, split in self.placed.items():
            if split is not None and row_id in self.rows and (label := self.agreed.get(row_id)) is not None:
                made[split].append({"id": row_id, **self.rows[row_id].inputs, self._task.field: label})
        return made

    @property
    def missing(self) -> str:
        rows = [row for of_split in self.made.values() for row in of_split]
        if self.given:
            return ""
        if (more := MIN_ROWS - len(rows)) > 0:
            return f"at least {counted(more, 'more label')}"
        if len({row[self._task.field] for row in rows}) < 2:
            return "rows of a second label"
        return "" if all(self.made.values()) else "rows that are less alike"


def read_fields(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return inputs and output of a task to label. Raises ProblemsError or InputError."""
    _, inputs, field, _, _ = _read_toml(folder)
    return inputs, field


def rows_to_label(folder: str) -> int:
    """Count the rows without a label; 0 if the folder is no task to label."""
    if not folder or not Path(folder, UNLABELLED_FILE).is_file():
        return 0
    try:
        task = LabelledTask(Path(folder))
        return len(task.rows) - len(task.labels(task.log.events()))
    except InputError:
        return 0


def _read_toml(folder: Path) -> tuple[str, tuple[str, ...], str, tuple[str, ...], str]:
    from agent.task.task_file import parse_folder

    where, parsed = shown(folder / "task.toml"), parse_folder(folder)
    refuse_all(problem(where, 1, fault.what) for fault in parsed.faults)
    file = parsed.file
    inputs, outputs = parse_signature(file.signature)
    table = file.fields.get(outputs[0])
    if len(outputs) != 1 or table is None or table.type != "choice" or len(table.choices) < 2:
        raise InputError(f'{where}: labelling needs one output of type = "choice" with two or more choices')
    if set(inputs) & {"id", "source", "drafted"}:
        raise InputError(f"{where}: an input is called id, source or drafted, a key of {UNLABELLED_FILE}; rename it")
    if any(getattr(file.splits, split) not in (None, f"{split}.jsonl") for split in SPLITS) or any(
        (folder / f"{split}.csv").exists() for split in SPLITS
    ):
        raise InputError(f"{where}: labelled rows are added to train.jsonl, dev.jsonl and test.jsonl; name the rows so")
    return file.name, tuple(inputs), outputs[0], tuple(table.choices), file.instruction
