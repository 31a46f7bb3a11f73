"""Usable rows of a table and their splits.

Splits depend on all columns that could be inputs, not on those in use: another prompt or `--input` moves no row to
another split. Rows can drop out, such as those that are equal in the remaining inputs.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.safe_text import quoted
from agent.shipped import fold
from agent.task.answers import label_reader, text_of
from agent.task.columns import DataColumn, decide_columns, split_of
from agent.task.scoring_rule import ScoringRule
from agent.types import SPLITS, MetricSpec, canonical

if TYPE_CHECKING:
    from agent.options.shared import Asked

Parts = tuple[list[int], list[int], list[int]]
"""Positions of the rows of train, dev and test."""
Compared = frozenset[str] | str
"""The words of a text, or the folded text if it has no words."""

FRACTIONS = (0.30, 0.25, 0.45)
CAPS = (300, 200, 400)
NEAR = 0.8
_COMPARE_ALL = 32  # up to this size all pairs are compared
_WORTH_SPLITTING = 0.8  # larger groups are divided by the next word if at most this share of pairs is left
_WORD = re.compile(r"\w+")
_SCRIPT = re.compile(  # Thai, Lao, Myanmar, Khmer, Kana and Han: no spaces between their words
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def near_duplicates(texts: Sequence[str], threshold: float = NEAR) -> list[tuple[int, ...]]:
    """Group positions whose texts are near-duplicates, directly or by a chain.

    Two texts are near when they are equal after folding, or when the Jaccard similarity of their words (character pairs
    in scripts without spaces) is at least `threshold`, in (0, 1]. Exact: recursive prefix filtering (Chaudhuri et al.
    2006; Bayardo et al. 2007) finds every such pair without comparing all.
    """
    return _NearDuplicates(texts, threshold).groups()


def compared(text: str) -> Compared:
    """Return the form of a text that `are_near` compares."""
    folded = fold(text)
    pairs = [run[at : at + 2] for run in _SCRIPT.findall(folded) for at in range(max(1, len(run) - 1))]
    return frozenset([*_WORD.findall(_SCRIPT.sub(" ", folded)), *pairs]) or folded


def are_near(one: Compared, other: Compared, threshold: float = NEAR) -> bool:
    """Whether two texts are near-duplicates directly."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    fewer, more = sorted((len(one), len(other)))
    if fewer < threshold * more - 1e-9:
        return False
    common = len(one & other)
    return common >= threshold * (fewer + more - common) - 1e-9


class _NearDuplicates:
    # words go from rare to frequent, so a near pair shares one of the first few

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self._parent, self._threshold = list(range(len(texts))), threshold
        first: dict[Compared, int] = {}
        for position, text in enumerate(texts):
            self._unite(position, first.setdefault(compared(text), position))
        self._sets = {position: words for words, position in first.items() if isinstance(words, frozenset)}
        frequency = Counter(word for words in self._sets.values() for word in words)
        self._sorted = {
            position: sorted(words, key=lambda word: (frequency[word], word)) for position, words in self._sets.items()
        }
        self._join(list(self._sets))

    def groups(self) -> list[tuple[int, ...]]:
        members: dict[int, list[int]] = defaultdict(list)
        for position in range(len(self._parent)):
            members[self._root(position)].append(position)
        return [tuple(group) for group in members.values() if len(group) > 1]

    def _root(self, position: int) -> int:
        while self._parent[position] != position:
            self._parent[position] = self._parent[self._parent[position]]
            position = self._parent[position]
        return position

    def _unite(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._parent[second] = self._parent[one] = self._parent[other] = first

    def _join(self, members: Sequence[int], shared: int = 0, last: str = "") -> None:
        if len(members) <= _COMPARE_ALL:
            return self._compare(members)
        smallest = min(len(self._sets[position]) for position in members)
        whole: list[int] = []  # two of these may have no other word in common and be near
        next_word: dict[str, list[int]] = defaultdict(list)
        for position in members:
            words = self._sorted[position]
            other = max(smallest, self._threshold * len(words))
            needed = math.ceil(self._threshold * (len(words) + other) / (1 + self._threshold) - 1e-6)
            start = words.index(last) + 1 if shared else 0
            for word in words[start : len(words) - needed + shared + 1]:
                next_word[word].append(position)
            if shared >= needed:
                whole.append(position)
        if sum(len(each) ** 2 for each in (whole, *next_word.values())) > _WORTH_SPLITTING * len(members) ** 2:
            return self._compare(members)
        self._compare(whole)
        for word, each in next_word.items():
            self._join(each, shared + 1, word)
        return None

    def _compare(self, members: Sequence[int]) -> None:
        for one, other in combinations(members, 2):
            if self._parent[one] == self._parent[other]:  # already in one group
                continue
            if are_near(self._sets[one], self._sets[other], self._threshold):
                self._unite(one, other)


def split_rows(
    texts: Sequence[str], labels: Sequence[str], rng: random.Random, fractions: tuple[float, float, float] = FRACTIONS
) -> Parts:
    """Split rows into train, dev and test, stratified and in random order, up to CAPS.

    Of near-duplicates the one with the rarest label represents all, as rows of dev and test must be independent. Others
    follow it into train while there is room, or are left out. Each split gets about the same share of every label, and
    train at least one row of each if it has room.

    Args:
        fractions: shares of the distinct rows; their sum is at most 1.
    """
    count = Counter(labels)
    twins = [tuple(sorted(group, key=lambda at: (count[labels[at]], at))) for group in near_duplicates(texts)]
    single = set(range(len(texts))).difference(*twins)
    groups = [*twins, *((position,) for position in sorted(single))]
    rng.shuffle(groups)
    sizes = _sizes(len(groups), fractions)
    parts = _filled({group[0]: labels[group[0]] for group in groups}, sizes, rng)
    trained = set(parts[0])
    others = [position for group in groups if group[0] in trained for position in group[1:]]
    parts[0] += others[: _sizes(len(texts), fractions)[0] - len(trained)]
    for part in parts:
        rng.shuffle(part)
    train, dev, test = parts
    return train, dev, test


def _sizes(count: int, fractions: tuple[float, float, float]) -> list[int]:
    sizes = [min(cap, round(share * count)) for cap, share in zip(CAPS, fractions, strict=True)]
    if math.isclose(sum(fractions), 1):  # test takes the rounding
        sizes[2] = min(CAPS[2], count - sizes[0] - sizes[1])
    return sizes


def _filled(labels: Mapping[int, str], sizes: Sequence[int], rng: random.Random) -> list[list[int]]:
    # iterative stratification, row by row (Sechidis et al. 2011)
    room, counts = list(sizes), Counter(labels.values())
    wanted = [{label: size * count / len(labels) for label, count in counts.items()} for size in sizes]
    parts: list[list[int]] = [[] for _ in sizes]
    trained, rest = set[str](), list[int]()

    def put(position: int, split: int) -> None:
        parts[split].append(position)
        wanted[split][labels[position]] -= 1
        room[split] -= 1

    for position, label in labels.items():
        if label in trained or not room[0]:
            rest.append(position)
        else:  # train takes a row of each label
            trained.add(label)
            put(position, 0)
    for position in rest:
        label = labels[position]
        if fits := [split for split, left in enumerate(room) if left]:
            put(position, max(fits, key=lambda split: (wanted[split][label], room[split], rng.random())))
    return parts


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


def settled(table: Table, inputs: Sequence[str], parts: Sequence[Parts], groups: Sequence[Sequence[int]]) -> Parts:
    """Merge parts, keeping one row of near-duplicates: test before dev before train."""
    group_of = {at: number for number, group in enumerate(groups) for at in group}
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
    for twins in near_duplicates(_texts(table, inputs, (at for _, at in order))):
        if order[twins[0]][0]:  # not all in train
            left_out |= {order[twin][1] for twin in twins[1:]}
    train, dev, test = ([at for at in part if at not in left_out] for part in merged)
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
            return settled(self._table, self._inputs, (given, others), self._usable)
        train, dev, test = found = self._given_parts(rng)
        if not dev and not test:
            found = parts_of(self._table, self._inputs, train)
        elif not dev or not test:
            lacking = FRACTIONS[2 if dev else 1]
            share = lacking / (FRACTIONS[0] + lacking)
            train, _, cut = parts_of(self._table, self._inputs, train, (1 - share, 0.0, share))
            found = train, dev or cut, test or cut
        return settled(self._table, self._inputs, (found,), self._usable)

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
