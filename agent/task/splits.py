"""Rows into train, dev and test: stratified by label, seeded, without near-duplicates in dev and test.

And corrected answers that may become train rows.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import get_args

from agent.shipped import fold
from agent.task.examples import PlacedExample
from agent.types import Example, SplitName, Task, canonical

Parts = tuple[list[int], list[int], list[int]]
"""Positions of the rows of train, dev and test."""
Compared = frozenset[str] | str
"""What of a text is compared: its words, or the folded text where it has none."""

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
FRACTIONS = (0.30, 0.25, 0.45)
CAPS = (300, 200, 400)
NEAR = 0.8
_COMPARE_ALL = 32  # up to this number sets are compared each with each
_WORTH_SPLITTING = 0.8  # more are divided by their next word if that leaves at most this share of the pairs
_WORD = re.compile(r"\w+")
_SCRIPT = re.compile(  # Thai, Lao, Myanmar, Khmer, Kana and Han: no spaces between their words
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def near_duplicates(texts: Sequence[str], threshold: float = NEAR) -> list[tuple[int, ...]]:
    """Group positions (each group sorted, two or more) whose texts are near-duplicates, directly or by a chain.

    Two texts are near when they are equal after folding or when the Jaccard similarity of their sets of lower-cased
    words (pairs of characters where a script has no spaces) is at least `threshold` (0 < threshold <= 1). Exact: prefix
    filtering (Chaudhuri et al. 2006; Bayardo et al. 2007), again among those that share a word, finds every such pair
    without comparing all of them.
    """
    groups = _Groups(len(texts))
    first: dict[Compared, int] = {}
    for position, text in enumerate(texts):
        groups.join(position, first.setdefault(compared(text), position))
    sets = {position: words for words, position in first.items() if isinstance(words, frozenset)}
    _NearDuplicates(sets, threshold, groups).join(list(sets))
    return groups.found()


def compared(text: str) -> Compared:
    """Return what `are_near` compares of a text."""
    folded = fold(text)
    return _words(folded) or folded


def are_near(one: Compared, other: Compared, threshold: float = NEAR) -> bool:
    """Whether two texts are near-duplicates themselves, not only by a chain."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    fewer, more = sorted((len(one), len(other)))
    if fewer < threshold * more - 1e-9:
        return False
    common = len(one & other)
    return common >= threshold * (fewer + more - common) - 1e-9


class _NearDuplicates:
    """Joins the groups of near-duplicates. The words of each set go from rare to frequent, so two sets have a first
    word in common, a second and so on; in a pair that is near, neither has more than a few other words before these."""

    def __init__(self, sets: Mapping[int, frozenset[str]], threshold: float, groups: _Groups) -> None:
        frequency = Counter(word for words in sets.values() for word in words)
        self._sets = sets
        self._sorted = {
            position: sorted(words, key=lambda word: (frequency[word], word)) for position, words in sets.items()
        }
        self._threshold = threshold
        self._groups = groups

    def join(self, members: Sequence[int], shared: int = 0, last: str = "") -> None:
        """Join the near ones among sets that have their first `shared` words in common, the last of which is `last`."""
        if len(members) <= _COMPARE_ALL:
            return self._compare(members)
        smallest = min(len(self._sets[position]) for position in members)
        whole: list[int] = []  # two of these may have no other word in common and be near
        next_word: dict[str, list[int]] = defaultdict(list)
        for position in members:
            words = self._sorted[position]
            needed = self._needed(len(words), smallest)
            start = words.index(last) + 1 if shared else 0
            for word in words[start : len(words) - needed + shared + 1]:
                next_word[word].append(position)
            if shared >= needed:
                whole.append(position)
        if sum(len(each) ** 2 for each in (whole, *next_word.values())) > _WORTH_SPLITTING * len(members) ** 2:
            return self._compare(members)
        self._compare(whole)
        for word, each in next_word.items():
            self.join(each, shared + 1, word)
        return None

    def _needed(self, size: int, smallest: int) -> int:
        """The fewest words that a set of `size` has in common with a near one of `smallest` or more."""
        other = max(smallest, self._threshold * size)
        return math.ceil(self._threshold * (size + other) / (1 + self._threshold) - 1e-6)

    def _compare(self, members: Sequence[int]) -> None:
        parent = self._groups.parent
        for one, other in combinations(members, 2):
            if parent[one] == parent[other]:  # known to be alike, as in a table full of copies
                continue
            if are_near(self._sets[one], self._sets[other], self._threshold):
                self._groups.join(one, other)


def _words(text: str) -> frozenset[str]:
    """The words of a folded text; of scripts without spaces every two neighbouring characters."""
    runs = _SCRIPT.findall(text)
    pairs = [run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1))]
    return frozenset([*_WORD.findall(_SCRIPT.sub(" ", text)), *pairs])


class _Groups:
    """Union-find over positions."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def root(self, position: int) -> int:
        while self.parent[position] != position:
            self.parent[position] = self.parent[self.parent[position]]
            position = self.parent[position]
        return position

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parent[second] = self.parent[one] = self.parent[other] = first

    def found(self) -> list[tuple[int, ...]]:
        members: dict[int, list[int]] = defaultdict(list)
        for position in range(len(self.parent)):
            members[self.root(position)].append(position)
        return [tuple(group) for group in members.values() if len(group) > 1]


def split_rows(
    texts: Sequence[str],
    labels: Sequence[str],
    rng: random.Random,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Parts:
    """Split rows by their texts into train, dev and test in random order, at most 300, 200 and 400.

    Of near-duplicates the one with the rarest label stands for all: dev and test hold no two, as their rows count as
    independent of each other. The others follow it into train while there is room, or are left out, as are rows past
    the caps. Each split gets about the same share of every label, and train one row of each where it has room.

    Args:
        fractions: Of the rows that are different, for each split; their sum is at most 1.
    """
    count = Counter(labels)
    twins = [tuple(sorted(group, key=lambda at: (count[labels[at]], at))) for group in near_duplicates(texts)]
    single = set(range(len(texts))).difference(*twins)
    groups = [*twins, *((position,) for position in sorted(single))]
    rng.shuffle(groups)
    sizes = _sizes(len(groups), fractions)
    parts = _Filling({group[0]: labels[group[0]] for group in groups}, sizes, rng).fill([group[0] for group in groups])
    trained = set(parts[0])
    others = [position for group in groups if group[0] in trained for position in group[1:]]
    parts[0] += others[: _sizes(len(texts), fractions)[0] - len(trained)]
    for part in parts:
        rng.shuffle(part)
    train, dev, test = parts
    return train, dev, test


def _sizes(count: int, fractions: tuple[float, float, float]) -> list[int]:
    sizes = [min(cap, round(share * count)) for cap, share in zip(CAPS, fractions, strict=True)]
    if math.isclose(sum(fractions), 1):  # the rounding goes to test
        sizes[2] = min(CAPS[2], count - sizes[0] - sizes[1])
    return sizes


class _Filling:
    """Three splits being filled row by row (iterative stratification, Sechidis et al. 2011). `labels` by position."""

    def __init__(self, labels: Mapping[int, str], sizes: list[int], rng: random.Random) -> None:
        self._labels = labels
        self._rng = rng
        self._room = list(sizes)
        counts = Counter(labels.values())
        self._wanted = [{label: size * count / len(labels) for label, count in counts.items()} for size in sizes]
        self._parts: list[list[int]] = [[] for _ in sizes]
        self._trained: set[str] = set()

    def fill(self, positions: Sequence[int]) -> list[list[int]]:
        for position in [position for position in positions if not self._seeds(position)]:
            if fits := [split for split, room in enumerate(self._room) if room]:
                self._put(position, max(fits, key=lambda split: self._lack(position, split)))
        return self._parts

    def _seeds(self, position: int) -> bool:
        """Whether train lacked the row's label and took the row for it."""
        label = self._labels[position]
        if label in self._trained or not self._room[0]:
            return False
        self._trained.add(label)
        self._put(position, 0)
        return True

    def _lack(self, position: int, split: int) -> tuple[float, int, float]:
        return self._wanted[split][self._labels[position]], self._room[split], self._rng.random()

    def _put(self, position: int, split: int) -> None:
        self._parts[split].append(position)
        self._wanted[split][self._labels[position]] -= 1
        self._room[split] -= 1


# -- corrected answers: unlike all rows of dev and test, new, and without secrets --------------------------------------


HELD_OUT: tuple[SplitName, ...] = ("dev", "test")
IN_TRAIN = "is in train already"
IN_TRAIN_OTHERWISE = "is in train with another answer"
AGAIN = "stands in the log before"
CONTRADICTS = "stands in the log with another answer as well"
SECRET = "holds what looks like a key"


@dataclass(frozen=True, slots=True)
class Corrections:
    """Rows of a log: those that may become train rows, and by reason the lines of the others."""

    taken: tuple[PlacedExample, ...]
    left_out: Mapping[str, tuple[int, ...]]


def sorted_out(task: Task, rows: Sequence[PlacedExample], holds_secret: Callable[[str], bool]) -> Corrections:
    """Tell which corrected answers, valid under the task's signature, may be added to its train rows.

    `holds_secret`: whether a text must not be kept.
    """
    held_out = _near_held_out(task, rows)
    train = {_key(row): _labels(row) for row in task.train}
    answers: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        answers.setdefault(_key(row.example), set()).add(_labels(row.example))
    seen: Counter[tuple[str, ...]] = Counter()
    taken: list[PlacedExample] = []
    left_out: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        key = _key(row.example)
        seen[key] += 1
        reason = held_out.get(position, "")
        if not reason and any(map(holds_secret, (*row.example.inputs.values(), _labels(row.example)))):
            reason = SECRET
        if not reason and key in train:
            reason = IN_TRAIN if train[key] == _labels(row.example) else IN_TRAIN_OTHERWISE
        if not reason and len(answers[key]) > 1:
            reason = CONTRADICTS
        if not reason and seen[key] > 1:
            reason = AGAIN
        if reason:
            left_out.setdefault(reason, []).append(row.line)
        else:
            taken.append(row)
    return Corrections(tuple(taken), {reason: tuple(lines) for reason, lines in left_out.items()})


def _near_held_out(task: Task, rows: Sequence[PlacedExample]) -> dict[int, str]:
    """By position the reason of rows that are equal or near to rows of dev or test, also by a chain of others."""
    splits = {"dev": task.dev, "test": task.test}
    kept = [name for name in HELD_OUT for _ in splits[name]]
    texts = [_text(row) for name in HELD_OUT for row in splits[name]] + [_text(row.example) for row in rows]
    found: dict[int, str] = {}
    for group in near_duplicates(texts):
        near = sorted({kept[position] for position in group if position < len(kept)})
        if near:
            reason = f"is equal or near to a row of {' and '.join(near)}"
            found |= {position - len(kept): reason for position in group if position >= len(kept)}
    return found


def _text(row: Example) -> str:
    return "\n".join(row.inputs.values())


def _key(row: Example) -> tuple[str, ...]:
    return tuple(fold(text) for text in row.inputs.values())


def _labels(row: Example) -> str:
    return canonical(dict(row.labels))
