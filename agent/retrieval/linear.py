"""A linear classifier of texts as plain numbers: hashed terms, one row of small integers for each label.

An export to Python holds this file and `pick.py` whole (so no annotation is a text here). A search, a released prompt
and an export score a text with this very code, so their answers are equal. Terms are words and pairs of words, and 2 to
5 neighbouring letters within a word; each kind is weighted by rarity and scaled to length 1.
"""

import base64
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from agent.retrieval.pick import MOST_LETTERS

MOST_FEATURES = 16_384
MOST_NUMBERS = 300_000
"""Of a classifier: features times labels. So its section in a release has at most 0.5 MB."""
_TOKEN = re.compile(r"\w+|[^\w\s]+")  # a word, or a run of signs


def word_terms(text: str) -> Iterator[str]:
    """Yield the words of a text, and each two that follow each other.

    >>> list(word_terms("My card!"))
    ['my', 'card', '!', 'my card', 'card !']
    """
    words = _TOKEN.findall(text.lower())
    yield from words
    yield from (f"{one} {two}" for one, two in pairwise(words))


def letter_terms(text: str) -> Iterator[str]:
    """Yield the 2- to 5-grams of a word's letters, with blanks at both ends.

    A word shorter than a size is one term of that size.

    >>> list(letter_terms("My"))
    [' m', 'my', 'y ', ' my', 'my ', ' my ']
    """
    for word in text.lower().split():
        marked = f" {word} "
        for size in range(2, 6):
            yield marked[:size]
            yield from (marked[at : at + size] for at in range(1, len(marked) - size + 1))
            if len(marked) <= size:
                break


def term_counts(text: str) -> tuple[Counter[int], Counter[int]]:
    """Count the terms of a text by their 32-bit hashes: words, then letters."""
    text = text[:MOST_LETTERS]
    words = Counter(zlib.crc32(term.encode("utf-8", "surrogatepass"), 1) for term in word_terms(text))
    letters = Counter(zlib.crc32(term.encode("utf-8", "surrogatepass"), 2) for term in letter_terms(text))
    return words, letters


@dataclass(frozen=True)
class LabelClassifier:
    """Multinomial logistic regression over hashed terms.

    `features`: the hashes of its terms, ascending. `rarity`: of each term, 1 to 255 in one unit. `weights`: for each
    label a signed byte for each term, in units of `scale`.
    """

    trained_on: str
    features: tuple[int, ...]
    rarity: bytes
    weights: tuple[bytes, ...]
    intercepts: tuple[float, ...]
    scale: float

    @cached_property
    def _at(self) -> dict[int, int]:
        return {feature: at for at, feature in enumerate(self.features)}

    @cached_property
    def _signed(self) -> list[Any]:
        return [memoryview(row).cast("b") for row in self.weights]

    def values(self, text: str) -> list[tuple[int, float]]:
        """Return the features of a text, by position, words and letters each of length 1."""
        found: list[tuple[int, float]] = []
        for counts in term_counts(text):
            known = [(self._at[term], count) for term, count in counts.items() if term in self._at]
            part = [(at, (1 + math.log(count)) * self.rarity[at]) for at, count in known]
            length = math.sqrt(math.fsum(value * value for _, value in part))
            found += [(at, value / length) for at, value in part]
        return found

    def log_probabilities(self, text: str) -> tuple[float, ...]:
        """Return the log-probability of each label for a text, in nats."""
        values = self.values(text)
        logits = [
            intercept + self.scale * math.fsum(row[at] * value for at, value in values)
            for intercept, row in zip(self.intercepts, self._signed, strict=True)
        ]
        top = max(logits)
        total = top + math.log(math.fsum(math.exp(logit - top) for logit in logits))
        return tuple(logit - total for logit in logits)

    def settings(self) -> dict[str, Any]:
        return {"trained_on": self.trained_on, "scale": self.scale}

    def lines(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Return the numbers, JSON-ready: a line for the terms, and one for each label."""
        hashes = b"".join(feature.to_bytes(4, "big") for feature in self.features)
        rows = zip(labels, self.intercepts, self.weights, strict=True)
        return [
            {"terms": _text(hashes), "rarity": _text(self.rarity)},
            *({"label": label, "intercept": one, "weights": _text(row)} for label, one, row in rows),
        ]


def label_classifier(settings: Any, lines: Any, labels: Sequence[str]) -> LabelClassifier:
    """Restore the output of `settings` and `lines`, of checked types. Raises ValueError if they contradict."""
    head, *rest = lines
    hashes, rarity = base64.b64decode(head["terms"]), base64.b64decode(head["rarity"])
    features = tuple(int.from_bytes(hashes[at : at + 4], "big") for at in range(0, len(hashes), 4))
    known = {row["label"]: (row["intercept"], base64.b64decode(row["weights"])) for row in rest}
    count = len(features)
    if len(hashes) % 4 or not 1 <= count <= MOST_FEATURES or count * len(labels) > max(MOST_NUMBERS, len(labels)):
        raise ValueError(
            f"the classifier must have 1 to {MOST_FEATURES:,} terms, and at most {MOST_NUMBERS:,} weights in all"
        )
    if any(one >= two for one, two in pairwise(features)) or 0 in rarity:
        raise ValueError("the classifier must have ascending hashes of terms, and a rarity from 1 to 255 for each")
    if len(known) != len(rest) or set(known) != set(labels):
        raise ValueError("the classifier must have one line for each label of the output, and no other")
    if any(len(row) != count for row in (rarity, *(row for _, row in known.values()))):
        raise ValueError("the classifier must have a rarity for each term, and a weight under each label")
    intercepts, weights = zip(*(known[label] for label in labels), strict=True)
    return LabelClassifier(settings["trained_on"], features, rarity, weights, intercepts, settings["scale"])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
