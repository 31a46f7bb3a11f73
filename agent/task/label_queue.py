"""Which row to label next: the one whose label says most.

    rows that prompts answered differently  ->  labels of which there are fewest  ->  far from all that is labelled

Source: disagreement of a committee: Seung, Opper & Sompolinsky 1992, "Query by committee"; farthest first: Gonzalez
1985, "Clustering to minimize the maximum intercluster distance"; Sener & Savarese 2018, "Active learning for
convolutional neural networks: a core-set approach".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MOST_TERMS = 50_000
AT_ONCE = 64
"""Labelled rows that are compared with all rows together: more take more memory."""


def disagreement(answers: Sequence[str]) -> float:
    """The share of answers, in [0, 1), that are not the most frequent one; 0 for none.

    >>> disagreement(["bug", "bug", "question", "bug"])
    0.25
    """
    return 1 - max(Counter(answers).values()) / len(answers) if answers else 0.0


@dataclass(frozen=True, slots=True)
class NearestKnown:
    """By row how similar the nearest of the `known` rows is, and its position; of equally near ones the first."""

    known: tuple[int, ...]
    similarity: Any
    position: Any


class LabelQueue:
    """The rows of a task by their TF-IDF vectors. All labellers share one queue, from several threads.

    Args:
        texts: of all rows, at least one.
        drafted: by position the label that a synthetic row was written for.
        answers: by position what prompts answered, one answer for each prompt.
    """

    def __init__(
        self, texts: Sequence[str], drafted: Mapping[int, str], answers: Mapping[int, Sequence[str]] | None = None
    ) -> None:
        self._texts, self._drafted, self._answers = texts, drafted, answers or {}
        self._last: NearestKnown | None = None  # replaced and never changed, as threads share it

    @cached_property
    def _vectors(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, max_features=MOST_TERMS)
        return vectors.fit_transform(self._texts)

    def answered(self, at: int) -> list[str]:
        """What prompts answered on a row, each answer once."""
        return sorted({*self._answers.get(at, ())})

    def disagreement(self, at: int) -> float:
        """How far the prompts disagree on a row, in [0, 1)."""
        return disagreement(self._answers.get(at, ()))

    def pick(self, labelled: Mapping[int, str], candidates: Sequence[int]) -> int:
        """The position to label next out of the `candidates`, at least one; of equal ones the first.

        Args:
            labelled: by position the label that a row has.
            candidates: positions without a label.
        """
        import numpy as np

        if not labelled:  # the most typical row: the next ones are far from it
            similar = np.asarray(self._vectors[list(candidates)] @ self._vectors.sum(axis=0).T).ravel()
            nearest = dict(zip(candidates, (-similar).tolist(), strict=True))
            predicted = {at: self._drafted.get(at, "") for at in candidates}
        else:
            found, places = self._nearest(tuple(labelled)), list(candidates)
            nearest = dict(zip(places, found.similarity[places].tolist(), strict=True))
            closest = dict(zip(places, found.position[places].tolist(), strict=True))
            predicted = {
                at: self._drafted.get(at) or (labelled[closest[at]] if nearest[at] > 0 else "") for at in places
            }
        for at in candidates:
            if given := self._answers.get(at):
                predicted[at] = Counter(given).most_common(1)[0][0]
        counts = Counter(labelled.values())
        fewest = min(counts.values(), default=0)  # of a label that no row suggests it is not known that it is rare

        def order(at: int) -> tuple[float, int, float]:
            of_label = counts[predicted[at]] if predicted[at] else fewest
            return -self.disagreement(at), of_label, round(nearest[at], 9)

        return min(candidates, key=order)

    def _nearest(self, known: tuple[int, ...]) -> NearestKnown:
        """What is nearest among the `known` rows: only those are compared that came after the last ones. Where a label
        was taken back, all are."""
        import numpy as np

        last, rows = self._last, len(self._texts)
        if last is None or known[: len(last.known)] != last.known:
            last = NearestKnown((), np.zeros(rows), np.zeros(rows, int))
        similarity, position = last.similarity, last.position
        for start in range(len(last.known), len(known), AT_ONCE):
            some = np.array(known[start : start + AT_ONCE])
            shared = (self._vectors @ self._vectors[some].T).toarray()
            is_nearer = shared.max(axis=1) > similarity
            similarity = np.where(is_nearer, shared.max(axis=1), similarity)
            position = np.where(is_nearer, some[shared.argmax(axis=1)], position)
        self._last = found = NearestKnown(known, similarity, position)
        return found
