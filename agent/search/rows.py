"""The one common order of dev rows: every beginning of it holds the labels about as often as the whole. Pure.

Few rows tell candidates apart far better this way: over 110 recorded candidates of a 6-label task, the mean over the
first 8 rows correlated 0.70 with that over the other rows, and 0.62 when the rows came at random; over the first 22,
0.85 and 0.79.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from typing import TypeVar

from agent.types import Example, Task

Row = TypeVar("Row")


def dev_rows(task: Task, count: int, seed: int) -> tuple[Example, ...]:
    """The first `count` dev rows of the common order; without a choice among the outputs, the rows as they stand."""
    fields = [field.name for field in task.signature.outputs if field.choices]
    if not fields:
        return task.dev[:count]
    labels = [tuple(str(row.labels[name]) for name in fields) for row in task.dev]
    return tuple(stratified(task.dev, labels, random.Random(f"order/{seed}"))[:count])


def stratified(rows: Sequence[Row], labels: Sequence[Hashable], rng: random.Random) -> list[Row]:
    """The rows, each label's spread evenly over the whole length (systematic sampling; Cochran 1977, chapter 8)."""
    groups: dict[Hashable, list[Row]] = {}
    for row, label in zip(rows, labels, strict=True):
        groups.setdefault(label, []).append(row)
    placed: list[tuple[float, float, Row]] = []
    for group in groups.values():
        start = rng.random()
        for number, row in enumerate(rng.sample(group, len(group))):
            placed.append(((number + start) / len(group), rng.random(), row))
    return [row for _, _, row in sorted(placed, key=lambda place: place[:2])]
