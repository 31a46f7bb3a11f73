"""Usable rows of a table and their splits.

Splits depend on all columns that could be inputs, not on those in use: another prompt or `--input` moves no row to
another split. Rows can drop out, such as those that are equal in the remaining inputs.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.safe_text import quoted
from agent.shipped import fold
from agent.task.answers import label_reader, text_of
from agent.task.columns import DataColumn, decide_columns, split_of
from agent.task.copies import FEW, PARTS, Source, sources
from agent.task.scoring_rule import ScoringRule
from agent.types import SPLITS, MetricSpec, canonical

if TYPE_CHECKING:
    from agent.options.shared import Asked

Parts = tuple[list[int], list[int], list[int]]
"""Positions of the rows of train, dev and test."""

FRACTIONS = (0.30, 0.25, 0.45)
CAPS = (300, 200, 400)


def split_rows(
    texts: Sequence[str], labels: Sequence[str], rng: random.Random, fractions: tuple[float, float, float] = FRACTIONS
) -> Parts:
    """Split rows into train, dev and test, stratified, up to CAPS, in random order.

    The rows of a source stay together. Each split gets about the same share of every label. A label with at least three
    sources is in each of them, and any label in train, where there is room. Of the rows of one source at most FEW are
    used; others follow it into train while there is room, or are left out.

    Args:
        fractions: shares of the rows; their sum is at most 1.
    """
    count = Counter(labels)
    groups = [tuple(sorted(source, key=lambda at: (count[labels[at]], at))) for source in sources(texts, labels)]
    rng.shuffle(groups)
    used = [group[:FEW] for group in groups]
    sizes = _sizes(sum(map(len, used)), fractions)
    filling = _Filling(labels, sizes, used, rng)
    trained = set(filling.parts[0])
    others = [at for group in groups if group[0] in trained for at in group if at not in trained]
    filling.parts[0] += others[: _sizes(len(texts), fractions)[0] - len(trained)]
    for part in filling.parts:
        rng.shuffle(part)
    train, dev, test = filling.parts
    return train, dev, test


def _sizes(count: int, fractions: tuple[float, float, float]) -> list[int]:
    sizes = [min(cap, round(share * count)) for cap, share in zip(CAPS, fractions, strict=True)]
    if math.isclose(sum(fractions), 1):  # test takes the rounding
        sizes[2] = min(CAPS[2], count - sizes[0] - sizes[1])
    return sizes


class _Filling:
    """Iterative stratification, source by source (Sechidis et al. 2011), and a source of each label in each part."""

    def __init__(self, labels: Sequence[str], sizes: Sequence[int], used: Sequence[Source], rng: random.Random) -> None:
        self._labels, self._room, self._rng = labels, list(sizes), rng
        counts = Counter(labels[at] for source in used for at in source)
        total = counts.total()
        self._wanted = [{label: size * count / total for label, count in counts.items()} for size in sizes]
        self._placed: list[list[Source]] = [[] for _ in sizes]
        trained, rest = set[str](), list[Source]()
        for source in used:
            new = {labels[at] for at in source} - trained
            if new and self._room[0]:  # train takes a row of each label
                trained |= self._put(source, 0)
            else:
                rest.append(source)
        for source in rest:
            if fits := [split for split, left in enumerate(self._room) if left]:
                self._put(source, max(fits, key=lambda split: self._fit(source, split)))
        self._spread(used)
        self.parts = [[at for source in placed for at in source] for placed in self._placed]

    def _fit(self, source: Source, split: int) -> tuple[float, int, float]:
        wanted = sum(self._wanted[split][self._labels[at]] for at in source) / len(source)
        return wanted, self._room[split], self._rng.random()

    def _put(self, source: Source, split: int) -> set[str]:
        source = source[: self._room[split]]
        self._placed[split].append(source)
        self._room[split] -= len(source)
        for at in source:
            self._wanted[split][self._labels[at]] -= 1
        return {self._labels[at] for at in source}

    def _spread(self, used: Sequence[Source]) -> None:
        """Exchange sources until each label with enough of them is in every part."""
        homes = Counter(label for source in used for label in {self._labels[at] for at in source})
        for label in [label for label, count in homes.items() if count >= PARTS]:
            for split, placed in enumerate(self._placed):
                if placed and not self._count(split, label):
                    self._exchange(label, split)

    def _count(self, split: int, label: str) -> int:
        return sum(self._labels[at] == label for source in self._placed[split] for at in source)

    def _exchange(self, label: str, split: int) -> None:
        """Bring a source of the label to the split, for one that it can spare."""
        for other in sorted({*range(len(self._placed))} - {split}, key=lambda each: -self._count(each, label)):
            mine = [source for source in self._placed[other] if label in self._labels_of(source)]
            for given in mine if len(mine) > 1 else ():
                for taken in self._placed[split]:
                    if len(taken) == len(given) and self._is_spared(taken, split) and self._is_spared(given, other):
                        self._placed[split].remove(taken)
                        self._placed[other].remove(given)
                        self._placed[split].append(given)
                        self._placed[other].append(taken)
                        return

    def _labels_of(self, source: Source) -> set[str]:
        return {self._labels[at] for at in source}

    def _is_spared(self, source: Source, split: int) -> bool:
        return all(self._count(split, label) > len(source) for label in self._labels_of(source))


# -- a table to split --------------------------------------------------------------------------------------------------


MIN_ROWS = 30
Table = Sequence[Mapping[str, Any]]
RuleOf = Callable[[str, Sequence[Any], Sequence[str]], ScoringRule]
"""From a field, its answers and their texts to its scoring rule."""


def full_rows(table: Table, needed: Sequence[str]) -> list[int]:
    return [at for at, row in enumerate(table) if all(text_of(row.get(name)).strip() for name in needed)]


def _texts(table: Table, inputs: Sequence[str], positions: Iterable[int]) -> list[str]:
    return ["\n".join(text_of(table[at].get(name)) for name in inputs) for at in positions]


def _groups(
    table: Table, inputs: Sequence[str], full: Sequence[int], labels: Mapping[int, Any]
) -> tuple[list[list[int]], dict[str, int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for at in full:
        groups.setdefault(tuple(fold(text_of(table[at].get(name))) for name in inputs), []).append(at)
    agreed = [group for group in groups.values() if len({canonical(labels[at]) for at in group}) == 1]
    in_agreed = sum(map(len, agreed))
    return agreed, {
        "repeated": in_agreed - len(agreed),
        "with the same inputs but different answers": len(full) - in_agreed,
    }


def settled(parts: Sequence[Parts], groups: Sequence[Sequence[int]], found: Sequence[Source]) -> Parts:
    """Merge parts, each source in one of them: test before dev before train.

    Args:
        groups: rows that are equal; one row of each is used.
        found: the sources of the first rows of the groups.
    """
    first = {at: group[0] for group in groups for at in group}
    source_of = {at: number for number, source in enumerate(found) for at in source}
    merged: list[list[int]] = [[], [], []]
    taken: set[int] = set()
    home: dict[int, int] = {}
    used = Counter[int]()
    for split in (2, 1, 0):
        for at in (at for part in parts for at in part[split]):
            if at not in first or first[at] in taken or len(merged[split]) == CAPS[split]:
                continue
            source = source_of[first[at]]
            if home.setdefault(source, split) == split and (not split or used[source] < FEW):
                taken.add(first[at])
                used[source] += 1
                merged[split].append(at)
    train, dev, test = merged
    return train, dev, test


def each_once(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple((key, text_of(value)) for key, value in row.items()): row for row in table}.values())


@dataclass(frozen=True, slots=True)
class DataTable:
    """The rows of a data file (`plain`, and with named objects expanded) and its targets."""

    plain: list[dict[str, Any]]
    table: list[dict[str, Any]]
    targets: tuple[str, ...]
    siblings: frozenset[str]
    spoken: frozenset[str]


class Splitting:
    """A table to split by its default inputs (`basis`), whatever the inputs in use."""

    def __init__(self, data: DataTable, columns: tuple[DataColumn, ...], asked: Asked) -> None:
        self._plain, self._table, self._targets = data.plain, data.table, data.targets
        self._columns = [column for column in columns if column.use == "input"]
        self._inputs = [column.name for column in self._columns]
        self._are_calls = bool(asked.tools)
        self._has_id = any(column.use == "id" for column in columns)
        fields = {column.name: column.field for column in columns if column.use == "target"}
        self.fields = tuple(fields[name] for name in data.targets)
        self._split = next((column.name for column in columns if column.use == "split"), "")
        self._main, self._full = self._complete(data.table, self._inputs)
        self._basis, self._basis_full = self._inputs, self._full
        try:
            usual = decide_columns(each_once(data.plain), data.targets, siblings=data.siblings, dates=True)
        except InputError:  # no input by default
            return
        basis = [column.name for column in usual if column.use == "input"]
        _, full = self._complete(data.plain, basis)
        if len(full) >= MIN_ROWS:
            self._basis, self._basis_full = basis, full

    def _complete(self, table: Table, inputs: Sequence[str]) -> tuple[str, list[int]]:
        main = max(inputs, key=lambda name: sum(len(text_of(row.get(name)).strip()) for row in table))
        return main, full_rows(table, [main, *self._targets])

    def read(self, rule_of: RuleOf) -> tuple[ScoringRule, ...]:
        """Read labels and usable rows; return the scoring rule of each target."""
        texts = _texts(self._plain, self._basis, self._basis_full)
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
            except ValueError:  # only if a basis column is blank
                continue
        full = [at for at in self._full if at in self.labels]
        self._usable, dropped = _groups(self._table, self._inputs, full, self.labels)
        self.kept = [group[0] for group in self._usable]
        """One row of each group."""
        lacking: dict[str, int] = {}
        left = len(self._table)
        for count, name in enumerate(self._targets, start=1):
            now = len(full_rows(self._table, self._targets[:count]))
            lacking[f"without {quoted(name)}"] = left - now
            left = now
        lacking[f"without {quoted(self._main)}"] = left - len(self._full)
        self.dropped = lacking | dropped
        """Unusable rows by reason."""
        empty = {name: sum(not text_of(self._table[at].get(name)).strip() for at in self.kept) for name in self._inputs}
        self.empty = {name: count for name, count in empty.items() if count}
        """Usable rows with an empty input, by input."""
        return tuple(rules)

    @property
    def split_line(self) -> str:
        if not self._split:
            return ""
        given = {split_of(self._table[at].get(self._split)) for at in self.kept}
        missing = [split for split in ("dev", "test") if split not in given]
        cut = f"; {' and '.join(missing)} rows are taken from train, as it names none" if missing else ""
        return f"splits: by the column {quoted(self._split)}{cut}"

    def parts(self, rng: random.Random, rules: Sequence[ScoringRule]) -> Parts:
        """Return the rows of train, dev and test, stratified by the first target with labels."""
        labelled = [at for at, rule in enumerate(rules) if rule.type == "choice" or rule.is_scale]
        strata = {at: str(label[labelled[0]]) if labelled else "" for at, label in self.labels.items()}
        texts = _texts(self._table, self._inputs, self.kept)
        self.sources = [
            tuple(self.kept[at] for at in source) for source in sources(texts, [strata[at] for at in self.kept])
        ]

        def parts_of(
            table: Table, inputs: Sequence[str], rows: Sequence[int], fractions: tuple[float, float, float] = FRACTIONS
        ) -> Parts:
            found = split_rows(_texts(table, inputs, rows), [strata[at] for at in rows], rng, fractions)
            train, dev, test = ([rows[at] for at in part] for part in found)
            return train, dev, test

        if not self._split:
            groups, _ = _groups(self._plain, self._basis, self._basis_full, self.labels)
            given = parts_of(self._plain, self._basis, [group[0] for group in groups])
            if self._basis == self._inputs:
                return given
            based = set(self._basis_full)
            rest = [at for at in self.labels if at not in based]
            others = parts_of(self._plain, self._basis, rest) if rest else ([], [], [])
            return settled((given, others), self._usable, self.sources)
        train, dev, test = found = self._given_parts(rng)
        if not dev and not test:
            found = parts_of(self._table, self._inputs, train)
        elif not dev or not test:
            lacking = FRACTIONS[2 if dev else 1]
            share = lacking / (FRACTIONS[0] + lacking)
            train, _, cut = parts_of(self._table, self._inputs, train, (1 - share, 0.0, share))
            found = train, dev or cut, test or cut
        return settled((found,), self._usable, self.sources)

    def _given_parts(self, rng: random.Random) -> Parts:
        parts: Parts = ([], [], [])
        for group in self._usable:
            places = {SPLITS.index(split_of(self._table[at].get(self._split))): at for at in group}
            parts[max(places)].append(places[max(places)])
        for part in parts:
            rng.shuffle(part)
        return parts

    def made(self, at: int) -> dict[str, Any]:
        row = self._table[at]
        made: dict[str, Any] = {"id": text_of(row["id"]).strip()} if self._has_id else {}
        made |= {column.field: text_of(row.get(column.name)) for column in self._columns}
        return made | dict(zip(self.fields, self.labels[at], strict=True))
