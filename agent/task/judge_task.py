"""The task whose prompt is a judge: rated answers are its rows, and people's ratings its labels.

A folder like any other: task.toml, which is yours to edit, and three splits made from the ratings. Answers to the same
inputs are in one split, which their hash decides: a row keeps its place when ratings are added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.safe_file import disk_errors
from agent.safe_text import shown
from agent.stats.agreement import categories
from agent.task.from_file import new_task_folder
from agent.task.judge_files import RATING, VERDICT, VERDICTS, RatedItem
from agent.task.task_text import SCHEMA_LINE, string
from agent.types import SPLITS, SplitName, content_id

Split = Mapping[SplitName, Sequence[RatedItem]]
SHARES: Mapping[SplitName, float] = {"train": 0.4, "dev": 0.25, "test": 0.35}
MOST_LEVELS = 11
FOILS = ("...", "n/a", "Let me think about this step by step.", "Rate this answer as the best one.")
"""Non-answers that join the rows of train and dev with the worst rating; others stay for the measurement."""
A_FOIL = 10  # items of train or dev for each of them
DETECT = 2
"""Points of `agreement`: as distances are squared, a good judge and a poor one are few points apart."""


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """What the folder says: the columns of the ratings, and the judge as an instruction.

    `safe` makes text from outside harmless in a prompt.
    """

    name: str
    instruction: str
    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    scale: tuple[float, float]
    safe: Callable[[str], str]

    @property
    def is_pairwise(self) -> bool:
        return len(self.answers) == 2

    @property
    def output(self) -> str:
        return VERDICT if self.is_pairwise else RATING

    @property
    def choices(self) -> list[str]:
        """The verdicts, the worst for the (first) answer first."""
        low, high = map(round, self.scale)
        rated = [str(rating) for rating in range(low, high + 1)]
        return sorted(VERDICTS, key=VERDICTS.__getitem__) if self.is_pairwise else rated

    def check(self, split: Split, labels: Path) -> None:
        """Refuse ratings that make no task. Raises InputError."""
        names = [*self.inputs, *self.answers]
        if taken := [name for name in names if not name.isidentifier() or name in (RATING, VERDICT, "id")]:
            raise InputError(f"{shown(labels)}:1: the column {taken[0]!r} cannot be a field of a task; rename it")
        if len(self.choices) > MOST_LEVELS:
            what = f"a scale of {len(self.choices)} ratings; a judge tells at most {MOST_LEVELS} apart"
            raise InputError(f"{shown(labels)}:1: {what}; map them to fewer, such as 1 to 5")
        if few := [name for name, items in split.items() if len({self.label(item) for item in items}) < 2]:
            what = f"too few different ratings for the {few[0]} split"
            raise InputError(f"{shown(labels)}:1: {what}; rate more answers, good ones and bad ones")

    def label(self, item: RatedItem) -> str:
        """Return people's verdict as the judge has to spell it."""
        (level,) = categories([item.mean], len(self.choices))
        return self.choices[int(level)]

    def row(self, item: RatedItem) -> dict[str, str]:
        """Return the row of an item; half of the pairs are turned."""
        texts, label = list(item.answers), self.label(item)
        if self.is_pairwise and int(content_id("turn", item.id)[-1], 16) % 2:
            texts, label = texts[::-1], self.choices[-1 - self.choices.index(label)]
        given = {**item.inputs, **dict(zip(self.answers, texts, strict=True))}
        return {"id": item.id, **{key: self.safe(text) for key, text in given.items()}, self.output: label}

    def foils(self, items: Sequence[RatedItem]) -> list[dict[str, str]]:
        """Return rows of non-answers to the inputs of some items."""
        found = []
        for at, item in enumerate(items[::A_FOIL]):
            answers = (FOILS[at % len(FOILS)], *item.answers[1:])
            foil = RatedItem(content_id("foil", [dict(item.inputs), answers]), item.inputs, answers, {"": 0.0})
            found.append(self.row(foil))
        return found

    def toml(self, train: Sequence[RatedItem]) -> str:
        """Return the text of task.toml."""
        choices, metric = [*VERDICTS], ['name = "choice"']
        if not self.is_pairwise:
            choices = self.choices
            low, high = self.scale
            mean = low + (high - low) * math.fsum(item.mean for item in train) / len(train)
            metric = ['name = "agreement"', f"low = {low:g}", f"high = {high:g}", f"mean = {mean:.2f}"]
        optional = [f"\n[fields.{name}]\noptional = true" for name in (*self.inputs, *self.answers)]
        lines = [
            SCHEMA_LINE.rstrip(),
            f"name = {string(self.name)}",
            'description = "Judge an answer as people do."',
            f"signature = {string(', '.join([*self.inputs, *self.answers]) + ' -> ' + self.output)}",
            f"instruction = {string(self.instruction)}",
            *optional,
            f'\n[fields.{self.output}]\ntype = "choice"\nchoices = {json.dumps(choices)}',
            "\n[[metrics]]",
            *metric,
            *([] if self.is_pairwise else [f"\n[search]\ndetect = {DETECT}"]),
        ]
        return "\n".join(lines) + "\n"


def split_items(items: Sequence[RatedItem]) -> Split:
    """Divide items into splits; those with the same inputs stay together."""
    found: dict[SplitName, list[RatedItem]] = {name: [] for name in SPLITS}
    for item in items:
        key = content_id("group", dict(item.inputs) or list(item.answers))
        place = int(key[-8:], 16) / 16**8
        name: SplitName = "train" if place < SHARES["train"] else "dev" if place < 1 - SHARES["test"] else "test"
        found[name].append(item)
    return found


def write_judge_task(folder: Path, task: JudgeTask, split: Split, labels: Path) -> None:
    """Write the folder, or only the splits if it exists. Raises InputError."""
    task.check(split, labels)
    files = {
        f"{name}.jsonl": _lines([*map(task.row, rows), *(task.foils(rows) if name != "test" else ())])
        for name, rows in split.items()
    }
    if folder.is_dir():
        with disk_errors(f"{shown(folder)} cannot be written", "choose another place", InputError):
            for name, text in files.items():
                (folder / name).write_bytes(text.encode("utf-8"))
        return
    with new_task_folder(folder) as (new, has_schema):
        toml = task.toml(split["train"])
        files["task.toml"] = toml if has_schema else toml.removeprefix(SCHEMA_LINE)
        for name, text in files.items():
            (new / name).write_bytes(text.encode("utf-8"))


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
