"""Which rows of a pool are shown as worked examples for an input: one function for search, release and exports.

Imports the standard library alone and is one file, as an export to Python holds it whole (so no annotation is a
text here: a dataclass would look for its module, which not every loader registers). BM25 is computed here
and not by SQLite's FTS5: the picks then do not depend on how SQLite was built or which version it is, a text has no
query syntax to break, no file is opened, threads may share an index, and a pick takes half the time.

Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; reciprocal rank fusion:
Cormack, Clarke & Buettcher 2009.
"""

import heapq
import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, islice, zip_longest
from typing import Any

RETRIEVERS = ("bm25", "chars", "hybrid")
ORDERS = ("nearest-last", "nearest-first")
MOST_PICKED = 16
MOST_LETTERS = 20_000
"""Of a text, its first letters: what follows does not count."""
MOST_TERMS = 256
MOST_POSTINGS = 5_000
"""Rows with the terms of one input, summed: its rarest terms count, up to this number."""
DEPTH = 64  # ranked rows, besides those that are left out
FUSED = 50  # rows of each ranking that count in their fusion
_FUSION = 60
_K1, _B = 1.2, 0.75
_UNIT = 1_000_000
_UNSPACED = re.compile(  # Thai, Lao, Myanmar, Khmer, Kana and Han: no spaces between their words
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


@dataclass(frozen=True, slots=True)
class Picks:
    """How examples are picked.

    `retriever`: "bm25" (words), "chars" (three neighbouring letters of a word: short texts, misspellings) or "hybrid"
    (both rankings, fused by reciprocal rank); for rows with vectors, "dense" or "bm25+dense". `k`: 1 to 16. `order`:
    whether the nearest comes last, right before the input, or first. `diverse`: at most one of near-duplicate rows.
    `balanced`: at most half of k, rounded up, have the same label. `pool`: the hash of the rows.
    """

    retriever: str
    k: int
    order: str = ORDERS[0]
    diverse: bool = False
    balanced: bool = False
    pool: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A row of a pool: `text` is compared with an input, `label` is its class or "", `group` is the same for
    near-duplicates.
    """

    id: str
    text: str
    label: str
    group: str


def words_of(text: str) -> list[str]:
    """Return the words of a text without case; of scripts without spaces every two neighbouring letters.

    >>> words_of("It's LATE, late!"), words_of("東京都")
    (['it', 's', 'late', 'late'], ['東京', '京都'])
    """
    folded = unicodedata.normalize("NFKC", text[:MOST_LETTERS]).casefold()
    pairs = [run[at : at + 2] for run in _UNSPACED.findall(folded) for at in range(max(1, len(run) - 1))]
    return [*re.findall(r"\w+", _UNSPACED.sub(" ", folded)), *pairs]


def grams_of(text: str) -> list[str]:
    """Return every three neighbouring letters of each word, its two ends marked by blanks.

    >>> grams_of("Ab c")
    [' ab', 'ab ', ' c ']
    """
    folded = unicodedata.normalize("NFKC", text[:MOST_LETTERS]).casefold()
    words = [f" {word} " for word in re.findall(r"\w+", folded)]
    return [word[at : at + 3] for word in words for at in range(len(word) - 2)]


class _Ranking:
    """BM25 over documents of terms. Terms add whole numbers to a document, so sums are exact and each platform gives
    the same order.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._size, self._positions = len(documents), dict[str, Any]()
        adds: dict[str, list[float]] = {}
        self._mean = max(1.0, sum(map(len, documents)) / max(1, self._size))
        for position, terms in enumerate(documents):
            length = self._length(terms)
            for term, count in Counter(terms).items():
                if term not in adds:
                    adds[term], self._positions[term] = [], array("L")
                adds[term].append(count / (count + length))
                self._positions[term].append(position)
        self._adds = {term: self._whole(shares) for term, shares in adds.items()}

    def _length(self, terms: Sequence[str]) -> float:
        return _K1 * (1 - _B + _B * len(terms) / self._mean)

    def _rarity(self, count: int) -> float:
        return _UNIT * (_K1 + 1) * math.log(1 + (self._size - count + 0.5) / (count + 0.5))

    def _whole(self, shares: Sequence[float]) -> Sequence[int]:
        rarity = self._rarity(len(shares))
        return array("L", [round(rarity * share) for share in shares])

    def nearest(self, terms: Collection[str], most: int) -> list[int]:
        """Return at most `most` positions that share a term with the input, nearest first.

        Ties are in the order of the pool.
        """
        scores = self.scores(terms)
        ranked = heapq.nlargest(most, (score * self._size - position for position, score in scores.items()))
        return [-key % self._size for key in ranked]

    def scores(self, terms: Collection[str]) -> dict[int, int]:
        """Return the score of each document that shares a term with the input, by position."""
        scores: dict[int, int] = {}
        left = MOST_POSTINGS
        known = sorted((len(self._adds[term]), term) for term in set(terms) if term in self._adds)
        for count, term in known[:MOST_TERMS]:
            if count > left and scores:
                break
            left -= count
            for position, add in zip(self._positions[term], self._adds[term], strict=True):
                scores[position] = scores.get(position, 0) + add
        return scores

    def score_of(self, terms: Collection[str], document: Sequence[str]) -> int:
        """Score a document outside of the ranking, by how rare its terms are in it."""
        counts, length = Counter(document), self._length(document)
        return sum(
            round(self._rarity(len(self._adds.get(term, ()))) * counts[term] / (counts[term] + length))
            for term in set(terms)
            if term in counts
        )


def fused(*rankings: Iterable[int]) -> Iterator[int]:
    """Yield the positions of several rankings by the sum of their reciprocal ranks, best first."""
    places = Counter[int]()
    for ranking in rankings:
        for place, position in enumerate(ranking):
            places[position] += round(1e9 / (_FUSION + place + 1))
    return iter(sorted(places, key=lambda position: (-places[position], position)))


def chosen(rows: Sequence[PoolRow], nearest: Iterable[int], picks: Picks, leave_out: Collection[str]) -> list[int]:
    """Return the positions of the examples among ranked rows, in the order they are shown.

    `nearest`: positions in `rows`, the best first; one may repeat. `leave_out`: ids of rows that are not picked.
    """
    most = math.ceil(picks.k / 2) if picks.balanced else picks.k
    taken, groups, labels = list[int](), set[str](), Counter[str]()
    seen = set[int]()
    for position in nearest:
        row = rows[position]
        if len(taken) == picks.k:
            break
        if position in seen or row.id in leave_out:
            continue
        if (picks.diverse and row.group in groups) or (row.label and labels[row.label] >= most):
            continue
        seen.add(position)
        groups.add(row.group)
        labels[row.label] += 1
        taken.append(position)
    return taken[::-1] if picks.order == ORDERS[0] else taken


class PoolIndex:
    """An index of the rows of a pool; immutable, so threads may share it."""

    def __init__(self, rows: Sequence[PoolRow]) -> None:
        self.rows = tuple(rows)

    @cached_property
    def _words(self) -> _Ranking:
        return _Ranking([words_of(row.text) for row in self.rows])

    @cached_property
    def _grams(self) -> _Ranking:
        return _Ranking([grams_of(row.text) for row in self.rows])

    @cached_property
    def _in_turn(self) -> tuple[int, ...]:
        """All positions, labels in turn: the order of rows that have nothing in common with an input."""
        groups: dict[str, list[int]] = {}
        for position, row in enumerate(self.rows):
            groups.setdefault(row.label, []).append(position)
        turns = zip_longest(*groups.values())
        return tuple(position for turn in turns for position in turn if position is not None)

    def pick(self, text: str, picks: Picks, leave_out: Collection[str] = ()) -> list[int]:
        """Return the positions of the examples for an input, in the order they are shown.

        Rows without a common term come last, labels in turn; there are fewer than k only if the pool has no more.
        `leave_out`: ids of rows that are not picked: those that the prompt always shows, and for a row of the pool that
        row and its near-duplicates.
        """
        return chosen(self.rows, self.candidates(text, picks, len(leave_out)), picks, leave_out)

    def candidates(self, text: str, picks: Picks, left_out: int = 0) -> Iterator[int]:
        """Yield all positions: nearest first, then those without a common term, labels in turn.

        `left_out`: how many rows will not be picked, so that enough others are ranked.
        """
        return chain(self.alike(text, picks, left_out), self._in_turn)

    def alike(self, text: str, picks: Picks, left_out: int = 0) -> Iterator[int]:
        """Yield the positions of `candidates` that share a term with the input."""
        return self._ranked(text, picks.retriever, DEPTH + left_out)

    def nearest(self, text: str, retriever: str, k: int) -> list[int]:
        """Return at most `k` positions that share a term with a text, nearest first."""
        return list(islice(self._ranked(text, retriever, k + DEPTH), k))

    def similarities(self, text: str, others: Sequence[str] = ()) -> dict[int, float]:
        """Return the similarity of each row to a text, from 0 to 2, by position; rows without a common term are left
        out.

        It is the sum of the row's scores by words and by letters, each as a share of the highest one. `others`: texts
        compared as if they were in the pool; their positions follow the pool's.

        Source: Fox & Shaw 1994, "Combination of Multiple Searches" (CombSUM).
        """
        found: dict[int, float] = {}
        for ranking, terms_of in ((self._words, words_of), (self._grams, grams_of)):
            terms = terms_of(text)
            scores = ranking.scores(terms)
            for position, other in enumerate(others, len(self.rows)):
                if score := ranking.score_of(terms, terms_of(other)):
                    scores[position] = score
            top = max(scores.values(), default=1)
            for position, score in scores.items():
                found[position] = found.get(position, 0.0) + score / top
        return found

    def _ranked(self, text: str, retriever: str, most: int) -> Iterator[int]:
        if retriever == "bm25":
            return iter(self._words.nearest(words_of(text), most))
        if retriever == "chars":
            return iter(self._grams.nearest(grams_of(text), most))
        deep = FUSED + most - DEPTH
        return fused(self._words.nearest(words_of(text), deep), self._grams.nearest(grams_of(text), deep))
