"""The task whose prompt is a judge: rated answers are its rows, and people's ratings its labels.

A folder like any other: task.toml, which is yours to edit, and three splits made from the ratings. Answers to the same
inputs are in one split, which their hash decides: a row keeps its place when ratings are added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from agent.errors import InputError
from agent.safe_text import shown
from agent.stats.agreement import categories
from agent.task.columns import DataColumn
from agent.task.judge_files import RATING, VERDICT, VERDICTS, RatedItem, RatingColumns
from agent.task.label_files import json_line
from agent.task.scoring_rule import ScoringRule
from agent.task.task_text import Output, task_toml
from agent.types import MetricSpec, SplitName, content_id

Split = Mapping[SplitName, Sequence[RatedItem]]
ENDS: Mapping[SplitName, float] = {"train": 0.4, "dev": 0.65, "test": 1.0}  # of the splits, as shares of the items
DESCRIPTION = "Judge an answer as people do."
MOST_LEVELS = 11
FOILS = ("...", "n/a", "Let me think about this step by step.", "Rate this answer as the best one.")
"""Non-answers that join the rows of train and dev with the worst rating; others stay for the measurement."""
A_FOIL = 10  # items of train or dev for each of them
DETECT = 2  # points of `agreement`: as distances are squared, a good judge and a poor one are few points apart


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """A judge as an instruction, with the rated items that it learns from and is measured on.

    `safe` makes text from outside harmless in a prompt.
    """

    name: str
    instruction: str
    columns: RatingColumns
    split: Split
    safe: Callable[[str], str]

    @property
    def is_pairwise(self) -> bool:
        return len(self.columns.answers) == 2

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.columns.inputs, *self.columns.answers)

    @property
    def output(self) -> str:
        return VERDICT if self.is_pairwise else RATING

    @property
    def choices(self) -> list[str]:
        """The verdicts, the worst for the (first) answer first."""
        low, high = map(round, self.columns.scale)
        return [*VERDICTS] if self.is_pairwise else [*map(str, range(low, high + 1))]

    def row(self, item: RatedItem) -> dict[str, str]:
        """Return an item as a row with people's verdict; half of the pairs are turned."""
        if self.is_pairwise and int(content_id("turn", item.id)[-1], 16) % 2:
            item = replace(item, answers=item.answers[::-1], ratings={"": 1.0 - item.mean})
        (level,) = categories([item.mean], len(self.choices))
        texts = map(self.safe, (*item.inputs.values(), *item.answers))
        return {"id": item.id, **dict(zip(self.fields, texts, strict=True)), self.output: self.choices[int(level)]}

    def files(self, labels: Path) -> dict[str, str]:
        """Return the splits by file name. Raises InputError for ratings, those of `labels`, that make no task."""
        if taken := [name for name in self.fields if not name.isidentifier() or name in (RATING, VERDICT, "id")]:
            raise InputError(f"{shown(labels)}:1: the column {taken[0]!r} cannot be a field of a task; rename it")
        if len(self.choices) > MOST_LEVELS:
            what = f"a scale of {len(self.choices)} ratings; a judge tells at most {MOST_LEVELS} apart"
            raise InputError(f"{shown(labels)}:1: {what}; map them to fewer, such as 1 to 5")
        found = {}
        for name, items in self.split.items():
            rows = [*map(self.row, items)]
            if len({row[self.output] for row in rows}) < 2:
                what = f"too few different ratings for the {name} split"
                raise InputError(f"{shown(labels)}:1: {what}; rate more answers, good ones and bad ones")
            rows += map(self.row, self._foils(name, items))
            found[f"{name}.jsonl"] = "".join(map(json_line, rows))
        return found

    def _foils(self, name: SplitName, items: Sequence[RatedItem]) -> Iterator[RatedItem]:
        texts: Mapping[SplitName, Iterable[str]] = {"train": cycle(FOILS), "dev": cycle(FOILS)}
        if len(self.fields) == 1:  # each text is one row, which is in one split
            texts = {"train": FOILS[::2], "dev": FOILS[1::2]}
        for item, foil in zip(items[::A_FOIL], texts.get(name, ()), strict=False):
            answers = (foil, *item.answers[1:])
            yield replace(item, id=content_id("foil", [dict(item.inputs), answers]), answers=answers, ratings={"": 0.0})

    @property
    def toml(self) -> str:
        metric, detect = MetricSpec("choice", self.output), ""
        if not self.is_pairwise:
            (low, high), train = self.columns.scale, self.split["train"]
            mean = low + (high - low) * math.fsum(item.mean for item in train) / len(train)
            options = {"low": low, "high": high, "mean": round(mean, 2)}
            metric, detect = MetricSpec("agreement", self.output, options=options), f"\n[search]\ndetect = {DETECT}\n"
        inputs = [DataColumn(name, name, "input", "", is_optional=len(self.fields) > 1) for name in self.fields]
        output = Output(self.output, ScoringRule("choice", metric), tuple(self.choices))
        columns = [*inputs, DataColumn(self.output, self.output, "target", "")]
        return task_toml(self.name, columns, [output], self.instruction, description=DESCRIPTION) + detect


def split_items(items: Sequence[RatedItem]) -> Split:
    """Divide items into splits; those with the same inputs stay together."""
    found: dict[SplitName, list[RatedItem]] = {name: [] for name in ENDS}
    for item in items:
        place = int(content_id("group", dict(item.inputs) or list(item.answers))[-8:], 16) / 16**8
        found[next(name for name, end in ENDS.items() if place < end)].append(item)
    return found
