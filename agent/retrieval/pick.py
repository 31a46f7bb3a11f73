"""Which rows of a pool are shown as worked examples for an input: one function for search, release and exports.

An export to Python holds this file whole (so it needs the standard library alone, and no annotation is a text here: a
dataclass would look for its module, which not every loader registers). BM25 is computed here and not by SQLite's FTS5:
the picks then do not depend on the version of SQLite, a text has no query syntax to break, no file is opened, threads
may share an index, and a pick takes half the time.

Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; reciprocal rank fusion:
Cormack, Clarke & Buettcher 2009; votes: Dudani 1976, "The Distance-Weighted k-Nearest-Neighbor Rule".
"""

import heapq
import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, islice, zip_longest
from typing import Any

from agent.conversation import AS_TURNS, last_said

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
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
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


SEPARATOR = "\n"


def text_of(inputs: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the compared text of an input: its values, one per line.

    For a conversation, whose name ends in `AS_TURNS`, the user's last messages.
    """
    return SEPARATOR.join(
        last_said(inputs[name.removesuffix(AS_TURNS)]) if name.endswith(AS_TURNS) else inputs[name] for name in names
    )


def words_of(text: str) -> list[str]:
    """Return the words of a text, casefolded. Scripts without spaces give bigrams of letters.

    >>> words_of("It's LATE, late!"), words_of("東京都")
    (['it', 's', 'late', 'late'], ['東京', '京都'])
    """
    folded = unicodedata.normalize("NFKC", text[:MOST_LETTERS]).casefold()
    pairs = [run[at : at + 2] for run in _UNSPACED.findall(folded) for at in range(max(1, len(run) - 1))]
    return [*re.findall(r"\w+", _UNSPACED.sub(" ", folded)), *pairs]


def same_words(text: str) -> str:
    """Return the sorted distinct words of a text. Texts that differ only in word order or case give the same.

    >>> same_words("Late, LATE parcel") == same_words("parcel late")
    True
    """
    return " ".join(sorted(set(words_of(text))))


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
        """Return at most `most` positions that share a term, nearest first. Ties are in the order of the pool."""
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
    """Return the positions of the examples among `nearest`, in display order."""
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
    """An index of the rows of a pool, which threads and the prompts of a run may share."""

    def __init__(self, rows: Sequence[PoolRow]) -> None:
        self.rows = tuple(rows)
        self._votes: dict[Any, tuple[float, ...]] = {}

    @cached_property
    def _words(self) -> _Ranking:
        return _Ranking([words_of(row.text) for row in self.rows])

    @cached_property
    def _grams(self) -> _Ranking:
        return _Ranking([grams_of(row.text) for row in self.rows])

    @cached_property
    def _in_turn(self) -> tuple[int, ...]:
        """Return all positions, alternating between labels: for inputs that share no term with any row."""
        groups: dict[str, list[int]] = {}
        for position, row in enumerate(self.rows):
            groups.setdefault(row.label, []).append(position)
        turns = zip_longest(*groups.values())
        return tuple(position for turn in turns for position in turn if position is not None)

    def pick(self, text: str, picks: Picks, leave_out: Collection[str] = ()) -> list[int]:
        """Return the positions of the examples for an input, in the order they are shown.

        Rows without a common term come last; there are fewer than k only if the pool has no more. `leave_out`: ids of
        rows that the prompt always shows, and for a row of the pool its own and those of its near-duplicates.
        """
        return chosen(self.rows, self.candidates(text, picks, len(leave_out)), picks, leave_out)

    def candidates(self, text: str, picks: Picks, left_out: int = 0) -> Iterator[int]:
        """Yield all positions: nearest first, then those without a common term, labels in turn."""
        return chain(self.alike(text, picks, left_out), self._in_turn)

    def alike(self, text: str, picks: Picks, left_out: int = 0) -> Iterator[int]:
        """Yield the positions of `candidates` that share a term with the input."""
        return self._ranked(text, picks.retriever, DEPTH + left_out)

    def nearest(self, text: str, retriever: str, k: int) -> list[int]:
        """Return at most `k` positions that share a term with a text, nearest first."""
        return list(islice(self._ranked(text, retriever, k + DEPTH), k))

    def similarities(self, text: str, others: Sequence[str] = ()) -> dict[int, float]:
        """Return the similarity (0 to 2) by position of rows that share a term.

        It is the sum of the row's scores by words and by letters, each as a share of the highest (CombSUM, Fox & Shaw
        1994). `others`: texts compared as if they were in the pool; their positions follow the pool's.
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

    @cached_property
    def _by_id(self) -> dict[str, PoolRow]:
        return {row.id: row for row in self.rows}

    @cached_property
    def _groups(self) -> dict[str, frozenset[str]]:
        members: dict[str, set[str]] = {}
        for row in self.rows:
            members.setdefault(row.group, set()).add(row.id)
        return {group: frozenset(ids) for group, ids in members.items()}

    @cached_property
    def _ids_by_words(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(same_words(row.text), []).append(row.id)
        return found

    def same(self, row_id: str, text: str) -> frozenset[str]:
        """Return the ids of a train row and its near-duplicates.

        Rows that are not in train have none, whatever their id.
        """
        known = self._by_id.get(row_id) if row_id else None
        return self._groups[known.group] if known is not None and known.text == text else frozenset()

    def replaced(self, own: Sequence[PoolRow]) -> list[str]:
        """Return the ids of rows with the same words as one of these. Their labels may be corrections."""
        return [name for row in own for name in self._ids_by_words.get(same_words(row.text), ())]

    def votes(
        self, text: str, labels: Sequence[str], k: int, row_id: str = "", own: Sequence[PoolRow] = ()
    ) -> tuple[float, ...]:
        """Sum the similarities of the `k` nearest rows for each label: weighted k-nearest neighbours (kNN).

        A row of the pool (`row_id`) does not vote for itself. `labels`: a row with another label takes a place and
        counts for none. `own`: rows of a user, which vote as if they were in the pool.
        """
        left_out = self.same(row_id, text) or self.replaced(own)
        key = (text, tuple(labels), k, frozenset(left_out))
        if not own and key in self._votes:
            return self._votes[key]
        rows = (*self.rows, *own)
        alike = self.similarities(text, [row.text for row in own])
        able = ((value, -at) for at, value in alike.items() if at >= len(self.rows) or rows[at].id not in left_out)
        votes = dict.fromkeys(labels, 0.0)
        for value, at in heapq.nlargest(k, able):  # of equal ones the first
            if (label := rows[-at].label) in votes:
                votes[label] += value
        found = tuple(votes.values())
        if row_id and not own:  # a search reads each dev row again for every candidate that picks
            self._votes[key] = found
        return found

    def _ranked(self, text: str, retriever: str, most: int) -> Iterator[int]:
        if retriever == "bm25":
            return iter(self._words.nearest(words_of(text), most))
        if retriever == "chars":
            return iter(self._grams.nearest(grams_of(text), most))
        deep = FUSED + most - DEPTH
        return fused(self._words.nearest(words_of(text), deep), self._grams.nearest(grams_of(text), deep))
