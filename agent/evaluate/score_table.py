"""Scores of arms on the same rows, and how the arms compare. Knows no model and no kind of arm."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from agent.evaluate.breakdown import summary
from agent.results.breakdown import Side
from agent.stats.intervals import PairedResult, scored_difference

Scores = Mapping[tuple[str, Hashable], float | None]
"""Scores in [0, 1] by row and repeat; None: the row could not be scored."""


class ScoreTable:
    """Scores by arm, row and repeat. A row counts with the mean of its repeats that have a score."""

    def __init__(self, scores: Mapping[str, Scores]) -> None:
        self._scores = scores

    @classmethod
    def once(cls, scores: Mapping[str, Iterable[float | None]]) -> ScoreTable:
        """A table of arms that answered the same rows once, in the same order."""
        return cls({arm: {(str(row), 0): score for row, score in enumerate(each)} for arm, each in scores.items()})

    def mean(self, arm: str) -> Side:
        """The mean score of an arm with its 95 % interval."""
        return summary(list(_by_row(self._scores[arm]).values()))

    def paired(self, arm: str, other: str, seed: int) -> PairedResult | None:
        """The first arm minus the other, over the rows and repeats that both answered; None without any."""
        first, second = self._scores[arm], self._scores[other]
        shared = [key for key, score in first.items() if score is not None and second.get(key) is not None]
        ours, theirs = (list(_by_row({key: side[key] for key in shared}).values()) for side in (first, second))
        return scored_difference(ours, theirs, seed)


def _by_row(scores: Scores) -> dict[str, float | None]:
    known: dict[str, list[float]] = {}
    for (row, _), score in scores.items():
        known.setdefault(row, []).extend([] if score is None else [score])
    return {row: sum(values) / len(values) if values else None for row, values in known.items()}
