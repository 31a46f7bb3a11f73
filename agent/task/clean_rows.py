"""Usable rows of a table, and which split each goes to: by the columns that hold text, whichever of them are inputs.

So another prompt, or `--input`, moves no row from one split to another: rows can drop out, as when they are the same in
the inputs that are left.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.shipped import fold
from agent.task.columns import text_of
from agent.task.splits import CAPS, near_duplicates, split_rows
from agent.types import canonical

Table = Sequence[Mapping[str, Any]]
Parts = tuple[list[int], list[int], list[int]]
"""Positions of the rows of train, dev and test."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Rows by position. `full`: with all that is needed; `groups`: of those the ones that agree, by equal inputs."""

    full: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    dropped: Mapping[str, int]

    @property
    def kept(self) -> list[int]:
        """One row of each group."""
        return [group[0] for group in self.groups]


def full_rows(table: Table, inputs: Sequence[str], target: str) -> list[int]:
    """The rows whose inputs and target are not blank."""
    needed = [*inputs, target]
    return [at for at, row in enumerate(table) if all(text_of(row.get(name)).strip() for name in needed)]


def usable_rows(table: Table, inputs: Sequence[str], full: Sequence[int], labels: Mapping[int, Any]) -> Usable:
    """The `full` rows without repeated and contradictory ones, and how many of the table went for what."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for at in full:
        groups.setdefault(tuple(fold(text_of(table[at][name])) for name in inputs), []).append(at)
    agreed = [group for group in groups.values() if len({canonical(labels[at]) for at in group}) == 1]
    in_agreed = sum(map(len, agreed))
    dropped = {
        "empty": len(table) - len(full),
        "duplicate": in_agreed - len(agreed),
        "conflicting": len(full) - in_agreed,
    }
    return Usable(tuple(full), tuple(map(tuple, agreed)), dropped)


def parts_of(
    table: Table,
    inputs: Sequence[str],
    positions: Sequence[int],
    labels: Mapping[int, Any],
    rng: random.Random,
    even: bool,
) -> Parts:
    """`split_rows` over the texts of `inputs`; `even`: each label in the same share."""
    rows = [
        {"id": at, **{f"{n} input": text_of(table[at].get(name)) for n, name in enumerate(inputs)}, "label": labels[at]}
        for at in positions
    ]
    train, dev, test = split_rows(rows, "label", rng, stratify=even)
    return [row["id"] for row in train], [row["id"] for row in dev], [row["id"] for row in test]


def settled(table: Table, inputs: Sequence[str], parts: Sequence[Parts], usable: Usable) -> Parts:
    """Parts that were split by other columns, without what the `inputs` make the same: of rows that are near-duplicates
    the one in test stands for all, else the one in dev; those in train stay together."""
    group_of = {at: number for number, group in enumerate(usable.groups) for at in group}
    merged: list[list[int]] = [[], [], []]
    taken: set[int] = set()
    for split in (2, 1, 0):
        for part in parts:
            for at in part[split]:
                if at in group_of and group_of[at] not in taken and len(merged[split]) < CAPS[split]:
                    taken.add(group_of[at])
                    merged[split].append(at)
    order = [(split, at) for split in (2, 1, 0) for at in merged[split]]
    left_out: set[int] = set()
    for twins in near_duplicates(["\n".join(text_of(table[at][name]) for name in inputs) for _, at in order]):
        if order[twins[0]][0]:  # not all in train
            left_out |= {order[twin][1] for twin in twins[1:]}
    train, dev, test = ([at for at in part if at not in left_out] for part in merged)
    return train, dev, test
