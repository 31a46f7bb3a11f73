"""One labeller's session: the next row and why, undo, and agreement between labellers.

Order: rows on which labellers disagree, some rows of other labellers, then unlabelled rows by the queue:

    rows that prompts answer differently  ->  labels with the fewest rows  ->  farthest from all labelled rows

Source: disagreement of a committee: Seung, Opper & Sompolinsky 1992, "Query by committee"; farthest first: Gonzalez
1985, "Clustering to minimize the maximum intercluster distance"; Sener & Savarese 2018, "Active learning for
convolutional neural networks: a core-set approach".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from agent.safe_text import counted
from agent.stats.agreement import kappa
from agent.task.label_files import LabelledTask, UnlabelledRow
from agent.task.label_log import DISAGREEMENT, SPREAD, LabelEvent, agreed, labeller_name

MOST_TERMS = 50_000
AT_ONCE = 64  # labelled rows compared with all rows at once: more take more memory


OVERLAP = 10  # rows of others that a labeller gets first, to measure agreement


@dataclass(frozen=True, slots=True)
class NextRow:
    """A row to label, the reason, and the labels of others if they disagree."""

    row: UnlabelledRow
    why: str
    chosen: str
    others: Mapping[str, str]


def queue_of(task: LabelledTask, answers: Mapping[str, Sequence[str]] | None = None) -> LabelQueue:
    drafted = {at: row.drafted for at, row in enumerate(task.rows) if row.drafted}
    given = {task.positions[row]: texts for row, texts in (answers or {}).items() if row in task.positions}
    return LabelQueue([row.text for row in task.rows], drafted, given)


class LabelSession:
    """A session of one labeller; `overlap` rows of other labellers come first."""

    def __init__(
        self, task: LabelledTask, labeller: str, queue: LabelQueue | None = None, overlap: int = OVERLAP
    ) -> None:
        self.task, self.labeller, self._overlap = task, labeller_name(labeller), overlap
        self._queue = queue or queue_of(task)

    def next(self, events: Sequence[LabelEvent], skipped: Collection[str] = ()) -> NextRow | None:
        place, labels = self.task.positions, self.task.labels(events)
        given_before = Counter((event.row, event.labeller) for event in events if event.label is not None)
        once = {row for (row, name), count in given_before.items() if name == self.labeller and count == 1}
        if found := self._disputed({row: labels[row] for row in labels if row in once}, skipped):
            return found
        mine = {row for row, given in labels.items() if self.labeller in given}
        others = [row for row in labels if row not in mine and row not in skipped]
        shared = [row for row in mine if len(labels[row]) > 1]
        if others and len(shared) < self._overlap:
            return NextRow(self.task.by_id[others[0]], "another labeller has labelled it, too", "", {})
        known = {place[row]: label for row, given in labels.items() if (label := agreed(given)) is not None}
        open_rows = [at for row, at in place.items() if row not in labels and row not in skipped]
        if not open_rows:
            return None
        at = self._queue.pick(known, open_rows)
        row, apart = self.task.rows[at], self._queue.disagreement(at)
        if apart > 0:
            answered = ", ".join(self._queue.answered(at))
            return NextRow(row, f"prompts answer it differently: {answered}", DISAGREEMENT, {})
        return NextRow(row, "unlike the rows that have a label" if known else "the most typical row", SPREAD, {})

    def _disputed(self, labels: Mapping[str, Mapping[str, LabelEvent]], skipped: Collection[str]) -> NextRow | None:
        for row, given in labels.items():
            own = given.get(self.labeller)
            last = list(given)[-1]
            others = {name: event.label or "" for name, event in given.items() if own and event.label != own.label}
            if others and last in others and row not in skipped:
                return NextRow(self.task.by_id[row], f"you said {own.label if own else ''}", "", others)
        return None

    def label(self, row: str, label: str, chosen: str = SPREAD) -> LabelEvent:
        return self.task.label(row, label, self.labeller, chosen)

    def again(self, row: str) -> NextRow | None:
        found = self.task.by_id.get(row)
        return NextRow(found, "its label was taken back", SPREAD, {}) if found else None

    def undo(self) -> LabelEvent | None:
        return self.task.log.undo(self.labeller)

    def done(self, events: Sequence[LabelEvent]) -> int:
        return sum(self.labeller in given for given in self.task.labels(events).values())


def agreements(task: LabelledTask, events: Sequence[LabelEvent]) -> list[str]:
    labels = task.labels(events)
    found = []
    for one, two in combinations(sorted({name for given in labels.values() for name in given}), 2):
        both = [(given[one].label, given[two].label) for given in labels.values() if one in given and two in given]
        if not both:
            continue
        steps = max(1, len(task.choices) - 1)
        first, second = ([task.choices.index(pair[side] or "") / steps for pair in both] for side in (0, 1))
        agreed_on = kappa(first, second, len(task.choices), weighted=False, seed=0)
        same = sum(a == b for a, b in both) / len(both)
        level, (low, high) = "too few to tell", agreed_on.ci95 or (0.0, 0.0)
        # equal bounds below 1: one labeller used a single label, and kappa is 0 in every draw
        if agreed_on.value is not None and agreed_on.ci95 and (low < high or agreed_on.value == 1):
            level = f"Cohen's kappa {agreed_on.value:.2f} ({low:.2f} to {high:.2f})"
        found.append(
            f"agreement of {one} and {two} on {counted(len(both), 'row')}: {level}, {100 * same:.0f} % the same"
        )
    return found


# -- the queue ---------------------------------------------------------------------------------------------------------


def disagreement(answers: Sequence[str]) -> float:
    """Return the share of answers that differ from the most frequent one, in [0, 1).

    >>> disagreement(["bug", "bug", "question", "bug"])
    0.25
    """
    return 1 - max(Counter(answers).values()) / len(answers) if answers else 0.0


class LabelQueue:
    """A queue of rows by TF-IDF vectors, shared by all labellers and threads."""

    def __init__(
        self, texts: Sequence[str], drafted: Mapping[int, str], answers: Mapping[int, Sequence[str]] | None = None
    ) -> None:
        self._texts, self._drafted, self._answers = texts, drafted, answers or {}
        self._last: tuple[tuple[int, ...], Any, Any] | None = None  # replaced, never mutated: threads share it

    @cached_property
    def _vectors(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, max_features=MOST_TERMS)
        return vectors.fit_transform(self._texts)

    def answered(self, at: int) -> list[str]:
        return sorted({*self._answers.get(at, ())})

    def disagreement(self, at: int) -> float:
        """Return how far the prompts disagree on a row, in [0, 1)."""
        return disagreement(self._answers.get(at, ()))

    def pick(self, labelled: Mapping[int, str], candidates: Sequence[int]) -> int:
        """Choose the row to label next; `labelled` holds labels by position."""
        if not labelled:  # the most typical row
            similar = np.asarray(self._vectors[list(candidates)] @ self._vectors.sum(axis=0).T).ravel()
            nearest = dict(zip(candidates, (-similar).tolist(), strict=True))
            predicted = {at: self._drafted.get(at, "") for at in candidates}
        else:
            (similarity, position), places = self._nearest(tuple(labelled)), list(candidates)
            nearest = dict(zip(places, similarity[places].tolist(), strict=True))
            closest = dict(zip(places, position[places].tolist(), strict=True))
            predicted = {
                at: self._drafted.get(at) or (labelled[closest[at]] if nearest[at] > 0 else "") for at in places
            }
        for at in candidates:
            if given := self._answers.get(at):
                predicted[at] = Counter(given).most_common(1)[0][0]
        counts = Counter(labelled.values())
        fewest = min(counts.values(), default=0)  # a row without a suggested label counts as one of the rarest

        def order(at: int) -> tuple[float, int, float]:
            of_label = counts[predicted[at]] if predicted[at] else fewest
            return -self.disagreement(at), of_label, round(nearest[at], 9)

        return min(candidates, key=order)

    def _nearest(self, known: tuple[int, ...]) -> tuple[Any, Any]:
        last, similarity, position = self._last or ((), None, None)
        if known[: len(last)] != last or not last:
            last, similarity, position = (), np.zeros(len(self._texts)), np.zeros(len(self._texts), int)
        for start in range(len(last), len(known), AT_ONCE):
            some = np.array(known[start : start + AT_ONCE])
            shared = (self._vectors @ self._vectors[some].T).toarray()
            is_nearer = shared.max(axis=1) > similarity
            similarity = np.where(is_nearer, shared.max(axis=1), similarity)
            position = np.where(is_nearer, some[shared.argmax(axis=1)], position)
        self._last = known, similarity, position
        return similarity, position
