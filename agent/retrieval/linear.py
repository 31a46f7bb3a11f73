"""A linear classifier of texts as plain numbers: hashed terms, one row of small integers for each label.

Imports the standard library alone and is one file, as an export to Python holds it whole (so no annotation is a
text here). A search, a released prompt and an export score a text with this very code, so their answers are equal.
Terms are words and pairs of words, and 2 to 5 neighbouring letters within a word; each kind is weighted by rarity and
scaled to length 1. `prompt/label_training.py` trains it.
"""

import base64
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

MOST_FEATURES = 16_384
MOST_NUMBERS = 300_000
"""Of a classifier: features times labels. So its section in a release has at most 0.5 MB."""
MOST_LETTERS = 20_000
"""Of a text, its first letters: what follows does not count."""
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
    """Yield each 2 to 5 neighbouring letters of a word, its two ends marked by blanks.

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


class LabelClassifier:
    """Multinomial logistic regression over hashed terms.

    `features`: the hashes of its terms, ascending. `rarity`: of each term, 1 to 255 in one unit. `weights`: for each
    label a signed byte for each term, in units of `scale`.
    """

    def __init__(
        self,
        trained_on: str,
        features: Sequence[int],
        rarity: bytes,
        weights: Sequence[bytes],
        intercepts: Sequence[float],
        scale: float,
    ) -> None:
        self.trained_on, self.features, self.rarity = trained_on, tuple(features), rarity
        self.weights, self.intercepts, self.scale = tuple(weights), tuple(intercepts), scale
        self._at = {feature: at for at, feature in enumerate(self.features)}
        self._signed = [memoryview(row).cast("b") for row in self.weights]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelClassifier) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash(self._numbers())

    def _numbers(self) -> tuple[Any, ...]:
        return self.trained_on, self.scale, self.features, self.rarity, self.weights, self.intercepts

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
        return [
            {"terms": _text(hashes), "rarity": _text(self.rarity)},
            *(
                {"label": label, "intercept": intercept, "weights": _text(row)}
                for label, intercept, row in zip(labels, self.intercepts, self.weights, strict=True)
            ),
        ]


def label_classifier(settings: Any, lines: Any, labels: Sequence[str]) -> LabelClassifier:
    """Restore the output of `settings` and `lines`, with the labels in this order. Raises ValueError."""
    if not isinstance(settings, dict) or set(settings) != {"trained_on", "scale"}:
        raise ValueError("the classifier needs trained_on, the hash of its train rows, and a scale")
    trained_on, scale = settings["trained_on"], settings["scale"]
    if not isinstance(trained_on, str):
        raise ValueError(f"trained_on of the classifier is a hash, not {trained_on!r:.20}")
    if not _is_real(scale) or not 0 < scale <= 1e6:
        raise ValueError(f"the scale of the classifier is a number above 0, not {scale!r:.20}")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, dict) for line in lines):
        raise ValueError("the classifier has no lines of numbers")
    head, *rest = lines
    if set(head) != {"terms", "rarity"}:
        raise ValueError("the first line of the classifier has terms and rarity")
    hashes, rarity = _bytes(head["terms"], "terms"), _bytes(head["rarity"], "rarity")
    features = [int.from_bytes(hashes[at : at + 4], "big") for at in range(0, len(hashes), 4)]
    count = len(features)
    if not 1 <= count <= MOST_FEATURES or count * len(labels) > max(MOST_NUMBERS, len(labels)) or len(hashes) % 4:
        raise ValueError(
            f"the classifier has 1 to {MOST_FEATURES:,} terms, and at most {MOST_NUMBERS:,} weights in all"
        )
    if any(one >= two for one, two in pairwise(features)):
        raise ValueError("the terms of the classifier are ascending hashes")
    if len(rarity) != count or 0 in rarity:
        raise ValueError("the classifier has a rarity from 1 to 255 for each of its terms")
    known = dict[str, tuple[float, bytes]]()
    for line in rest:
        if set(line) != {"label", "intercept", "weights"} or not isinstance(line["label"], str):
            raise ValueError("each further line of the classifier has label, intercept and weights")
        if not _is_real(line["intercept"]) or abs(line["intercept"]) > 1e6:
            raise ValueError(f"the intercept of {line['label']!r:.60} is a number, not {line['intercept']!r:.20}")
        known[line["label"]] = float(line["intercept"]), _bytes(line["weights"], "weights")
    if len(known) != len(rest) or set(known) != set(labels):
        raise ValueError("the classifier has one line for each label of the output, and no other")
    if any(len(row) != count for _, row in known.values()):
        raise ValueError("the classifier has a weight for each of its terms under each label")
    rows = [known[label] for label in labels]
    return LabelClassifier(
        trained_on, features, rarity, [row for _, row in rows], [one for one, _ in rows], float(scale)
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (AttributeError, ValueError):
        raise ValueError(f"{what} of the classifier are not bytes in base64") from None


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
