"""Usable rows of a table, and the split of each: by the columns that hold text, whichever of them are inputs.

So another prompt, or `--input`, moves no row from one split to another. Rows can drop out, as when they are the same in
the inputs that are left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import InputError
from agent.shipped import fold
from agent.task.answers import label_reader, text_of
from agent.task.asked import Asked
from agent.task.columns import DataColumn, decide_columns, split_of
from agent.task.scoring_rule import ScoringRule
from agent.task.splits import CAPS, FRACTIONS, SPLITS, Parts, near_duplicates, split_rows
from agent.task.words import quoted
from agent.types import MetricSpec, canonical

MIN_ROWS = 30
Table = Sequence[Mapping[str, Any]]
RuleOf = Callable[[str, Sequence[Any], Sequence[str]], ScoringRule]
"""From a field, its answers and their texts to how it is scored."""


@dataclass(frozen=True, slots=True)
class Usable:
    """The rows, by position, that have all that is needed. `groups`: those that agree, by equal inputs."""

    groups: tuple[tuple[int, ...], ...]
    dropped: Mapping[str, int]

    @property
    def kept(self) -> list[int]:
        """One row of each group."""
        return [group[0] for group in self.groups]


def full_rows(table: Table, needed: Sequence[str]) -> list[int]:
    """Return the rows in which no column of `needed` is blank."""
    return [at for at, row in enumerate(table) if all(text_of(row.get(name)).strip() for name in needed)]


def main_input(table: Table, inputs: Sequence[str]) -> str:
    """Return the input with the most text; the others may be empty."""
    return max(inputs, key=lambda name: sum(len(text_of(row.get(name)).strip()) for row in table))


def usable_rows(table: Table, inputs: Sequence[str], full: Sequence[int], labels: Mapping[int, Any]) -> Usable:
    """Drop repeated and contradictory rows of the `full` ones, and count them."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for at in full:
        groups.setdefault(tuple(fold(text_of(table[at].get(name))) for name in inputs), []).append(at)
    agreed = [group for group in groups.values() if len({canonical(labels[at]) for at in group}) == 1]
    in_agreed = sum(map(len, agreed))
    dropped = {
        "repeated": in_agreed - len(agreed),
        "with the same inputs but different answers": len(full) - in_agreed,
    }
    return Usable(tuple(map(tuple, agreed)), dropped)


def parts_of(
    table: Table,
    inputs: Sequence[str],
    positions: Sequence[int],
    labels: Mapping[int, str],
    rng: random.Random,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Parts:
    """Do `split_rows` over the texts of `inputs` in the rows at these positions."""
    texts = ["\n".join(text_of(table[at].get(name)) for name in inputs) for at in positions]
    train, dev, test = split_rows(texts, [labels[at] for at in positions], rng, fractions)
    return [positions[at] for at in train], [positions[at] for at in dev], [positions[at] for at in test]


def settled(table: Table, inputs: Sequence[str], parts: Sequence[Parts], usable: Usable) -> Parts:
    """Merge parts that were split by other columns: of rows that the `inputs` make near-duplicates, keep that in test,
    else that in dev; those in train stay together."""
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
    for twins in near_duplicates(["\n".join(text_of(table[at].get(name)) for name in inputs) for _, at in order]):
        if order[twins[0]][0]:  # not all in train
            left_out |= {order[twin][1] for twin in twins[1:]}
    train, dev, test = ([at for at in part if at not in left_out] for part in merged)
    return train, dev, test


def each_once(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table without rows that are the same in every cell."""
    return list({tuple((key, text_of(value)) for key, value in row.items()): row for row in table}.values())


@dataclass(frozen=True, slots=True)
class DataTable:
    """The rows of a data file and the columns to predict.

    Args:
        plain: the rows, with the objects opened that hold targets.
        table: the same rows, with the objects opened of all columns that are named.
        targets: the columns to predict.
        siblings: columns out of the objects that hold targets.
        spoken: columns that hold conversations.
    """

    plain: list[dict[str, Any]]
    table: list[dict[str, Any]]
    targets: tuple[str, ...]
    siblings: frozenset[str]
    spoken: frozenset[str]


class Splitting:
    """A table on its way into splits.

    Which split a row goes to is decided by the columns that the file has as inputs when nothing is asked for (`basis`),
    unless too few rows have them.
    """

    def __init__(self, data: DataTable, columns: tuple[DataColumn, ...], asked: Asked) -> None:
        self._plain, self._table, self._targets = data.plain, data.table, data.targets
        self._columns = [column for column in columns if column.use == "input"]
        self._inputs = [column.name for column in self._columns]
        self._are_calls = bool(asked.tools)
        self._has_id = any(column.use == "id" for column in columns)
        fields = {column.name: column.field for column in columns if column.use == "target"}
        self.fields = tuple(fields[name] for name in data.targets)
        self._split = next((column.name for column in columns if column.use == "split"), "")
        self._full = self._complete(data.table, self._inputs)
        self._basis, self._basis_full = self._inputs, self._full
        try:
            usual = decide_columns(each_once(data.plain), data.targets, siblings=data.siblings, dates=True)
        except InputError:  # nothing is an input unless it is named
            return
        basis = [column.name for column in usual if column.use == "input"]
        full = self._complete(data.plain, basis)
        if len(full) >= MIN_ROWS:
            self._basis, self._basis_full = basis, full

    def _complete(self, table: Table, inputs: Sequence[str]) -> list[int]:
        return full_rows(table, [main_input(table, inputs), *self._targets])

    @property
    def dropped(self) -> dict[str, int]:
        """How many rows cannot be used, by the reason."""
        lacking: dict[str, int] = {}
        left = len(self._table)
        for count, name in enumerate(self._targets, start=1):
            now = len(full_rows(self._table, self._targets[:count]))
            lacking[f"without {quoted(name)}"] = left - now
            left = now
        main = main_input(self._table, self._inputs)
        lacking[f"without {quoted(main)}"] = left - len(self._full)
        return lacking | dict(self.usable.dropped)

    @property
    def empty(self) -> dict[str, int]:
        """By input that is empty in usable rows, in how many."""
        found = {
            name: sum(not text_of(self._table[at].get(name)).strip() for at in self.usable.kept)
            for name in self._inputs
        }
        return {name: count for name, count in found.items() if count}

    @property
    def split_line(self) -> str:
        """How the rows are split where a column says it; else ""."""
        if not self._split:
            return ""
        given = {split_of(self._table[at].get(self._split)) for at in self.usable.kept}
        missing = [split for split in ("dev", "test") if split not in given]
        cut = f"; {' and '.join(missing)} rows are cut from its train rows, as it names none" if missing else ""
        return f"splits: as the column {quoted(self._split)} says{cut}"

    def read(self, rule_of: RuleOf) -> tuple[ScoringRule, ...]:
        """Read labels and usable rows by the rule for each field with its answers and texts."""
        texts = ["\n".join(text_of(self._plain[at].get(name)) for name in self._basis) for at in self._basis_full]
        rules: list[ScoringRule] = []
        readers: list[Callable[[Any], Any]] = []
        for target, field in zip(self._targets, self.fields, strict=True):
            values = [self._plain[at][target] for at in self._basis_full]
            rule = rule_of(field, values, texts) if values else ScoringRule("text", MetricSpec("exact_match", field))
            rules.append(rule)
            readers.append((lambda calls: calls) if self._are_calls else label_reader(rule.type, values))
        self.labels: dict[int, tuple[Any, ...]] = {}
        for at in full_rows(self._plain, self._targets):
            try:
                cells = (self._plain[at][target] for target in self._targets)
                self.labels[at] = tuple(read(cell) for read, cell in zip(readers, cells, strict=True))
            except ValueError:  # only where a column that the splits rest on is blank
                continue
        full = [at for at in self._full if at in self.labels]
        self.usable: Usable = usable_rows(self._table, self._inputs, full, self.labels)
        return tuple(rules)

    def parts(self, rng: random.Random, rules: Sequence[ScoringRule]) -> Parts:
        """Return the rows of train, dev and test, with equal shares of the labels of the first target that has some."""
        labelled = [at for at, rule in enumerate(rules) if rule.type == "choice" or rule.is_scale]
        strata = {at: str(label[labelled[0]]) if labelled else "" for at, label in self.labels.items()}
        if self._split:
            return settled(self._table, self._inputs, (self._given_parts(rng, strata),), self.usable)
        usable = usable_rows(self._plain, self._basis, self._basis_full, self.labels)
        given = parts_of(self._plain, self._basis, usable.kept, strata, rng)
        if self._basis == self._inputs:
            return given
        based = set(self._basis_full)
        rest = [at for at in self.labels if at not in based]
        others = parts_of(self._plain, self._basis, rest, strata, rng) if rest else ([], [], [])
        return settled(self._table, self._inputs, (given, others), self.usable)

    def _given_parts(self, rng: random.Random, strata: Mapping[int, str]) -> Parts:
        """The rows as the column of splits has them; dev and test rows that it lacks are cut from train."""
        parts: Parts = ([], [], [])
        for group in self.usable.groups:
            places = {SPLITS.index(split_of(self._table[at].get(self._split))): at for at in group}
            parts[max(places)].append(places[max(places)])
        for part in parts:
            rng.shuffle(part)
        train, dev, test = parts
        rest = (self._table, self._inputs, train, strata, rng)
        if not dev and not test:
            return parts_of(*rest)
        if dev and test:
            return parts
        lacking = FRACTIONS[2 if dev else 1]
        share = lacking / (FRACTIONS[0] + lacking)
        train, _, cut = parts_of(*rest, (1 - share, 0.0, share))
        return train, dev or cut, test or cut

    def made(self, at: int) -> dict[str, Any]:
        """Return a row of fields."""
        row = self._table[at]
        made: dict[str, Any] = {"id": text_of(row["id"]).strip()} if self._has_id else {}
        return (
            made
            | {c.field: text_of(row.get(c.name)) for c in self._columns}
            | dict(zip(self.fields, self.labels[at], strict=True))
        )
