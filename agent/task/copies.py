"""Rows that are copies of one another: near-duplicate texts, and the sources that a table was made from.

Rows that are near-duplicates may be copies (a text typed twice, the mails of an insistent customer), or rows of one
template: a form, a log line, a generated sentence, in which a name, a number or a word decides the answer. Copies
belong together in one split and are worth little more than one row; rows of a template are rows like any others.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

from agent.shipped import fold

Compared = frozenset[str] | str
"""The words of a text, or the folded text if it has no words."""
Source = tuple[int, ...]
"""The positions of the rows that are copies of one another, or of one row."""

NEAR = 0.8
FEW = 3
"""Rows of one source that dev and test use at most."""
PARTS = 3
"""A label with as many sources can be in train, dev and test."""
_CHANCE = 0.01  # of guessing the labels of a group as often
_SHRUNK = 50  # rows in which a label has each word as often as the table has it
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


def sources(texts: Sequence[str], labels: Sequence[str]) -> list[Source]:
    """Divide the rows of a table into sources; copies of one row are one source.

    Near-duplicates are copies, unless they are rows of one template, which only equal words make copies. If most words
    of most rows are the same (a form, a log), rows are compared by their other words. A large group is of one template
    if the words in which its rows differ tell their labels better than chance; any group is, if most of its labels have
    enough rows for every split, but would have fewer sources than there are splits.
    """
    words = [_words(text) for text in texts]
    if frame := _frame(words):
        texts = [" ".join(sorted(row - frame)) or text for row, text in zip(words, texts, strict=True)]
    found = _divided(texts, range(len(texts)), NEAR)
    if len(found) == len(texts):
        return found
    rows = Counter(labels)
    told = _Told(words, labels)
    homes = Counter(label for source in found for label in {labels[at] for at in source})
    scarce = {label for label, count in homes.items() if count < PARTS and rows[label] > FEW}

    def is_template(source: Source) -> bool:
        if 2 * sum(labels[at] in scarce for at in source) >= len(source):
            return True
        return len(source) > FEW and told.by_what_differs(source)

    divided = [_divided(texts, source, 1.0) if is_template(source) else [source] for source in found]
    return [source for parts in divided for source in parts]


def _divided(texts: Sequence[str], rows: Sequence[int], likeness: float) -> list[Source]:
    twins = [tuple(rows[at] for at in group) for group in near_duplicates([texts[at] for at in rows], likeness)]
    single = set(rows).difference(*twins)
    return [*twins, *((at,) for at in sorted(single))]


def _frame(words: Sequence[frozenset[str]]) -> frozenset[str]:
    """Return the words of most rows, if they are most words of most rows."""
    count = Counter(word for row in words for word in row)
    frame = frozenset(word for word, rows in count.items() if 2 * rows > len(words))
    framed = sum(2 * len(row & frame) > len(row) for row in words)
    return frame if 2 * framed > len(words) else frozenset()


class _Told:
    """Whether the words in which near-duplicates differ tell their labels: naive Bayes, without the row itself."""

    def __init__(self, words: Sequence[frozenset[str]], labels: Sequence[str]) -> None:
        self._words, self._labels, self._rows = words, labels, Counter(labels)
        self._seen: dict[str, Counter[str]] = defaultdict(Counter)
        for row, label in zip(words, labels, strict=True):
            for word in row:
                self._seen[word][label] += 1

    def by_what_differs(self, source: Source) -> bool:
        labels = Counter(self._labels[at] for at in source)
        common = frozenset.intersection(*(self._words[at] for at in source))
        hits = sum(self._guess(at, common, labels) == self._labels[at] for at in source) if len(labels) > 1 else 0
        return _chance(hits, len(source), max(labels.values()) / len(source)) < _CHANCE

    def _guess(self, at: int, common: frozenset[str], labels: Counter[str]) -> str:
        own, score = self._labels[at], dict.fromkeys(labels, 0.0)
        for word in self._words[at] - common:
            seen = self._seen[word]
            usual = (seen.total() - 1) / len(self._words)
            for label in labels if usual else ():
                without = label == own
                likely = (seen[label] - without + _SHRUNK * usual) / (self._rows[label] - without + _SHRUNK)
                score[label] += math.log(likely)
        return max(labels, key=lambda label: (score[label], labels[label] - (label == own), label))


def _words(text: str) -> frozenset[str]:
    words = compared(text)
    return words if isinstance(words, frozenset) else frozenset((words,))


def _chance(hits: int, tries: int, share: float) -> float:
    return sum(math.comb(tries, n) * share**n * (1 - share) ** (tries - n) for n in range(hits, tries + 1))


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
