"""What one labeller labels: the next row, why it comes next, undo, and how well labellers agree.

rows on which labellers disagree  ->  some that others have labelled  ->  rows without a label
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from agent.stats.agreement import IntervalEstimate, kappa, share
from agent.task.label_log import DISAGREEMENT, SPREAD, LabelEvent, agreed, labeller_name
from agent.task.label_queue import LabelQueue
from agent.task.labelled_task import LabelledTask
from agent.task.unlabelled import UnlabelledRow

OVERLAP = 10
"""Rows of others that a labeller gets first, so that agreement can be measured."""


@dataclass(frozen=True, slots=True)
class NextRow:
    """A row to label. `why`, in words; `chosen`, as the log keeps it; `others`: what others said, where they do not
    agree with this labeller."""

    row: UnlabelledRow
    why: str
    chosen: str
    others: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How well two labellers agree on the `rows` that both have labelled: Cohen's kappa, the share that is equal."""

    labellers: tuple[str, str]
    rows: int
    kappa: IntervalEstimate
    share: IntervalEstimate

    @property
    def line(self) -> str:
        """In words."""
        one, two = self.labellers
        level = "too few to tell"
        if self.kappa.value is not None and self.kappa.ci95:
            low, high = self.kappa.ci95
            if low < high or self.kappa.value == 1:  # else one of them gave one label only, and it is 0 in every draw
                level = f"Cohen's kappa {self.kappa.value:.2f} ({low:.2f} to {high:.2f})"
        same = f", {100 * self.share.value:.0f} % the same" if self.share.value is not None else ""
        return f"agreement of {one} and {two} on {self.rows} row{'s' * (self.rows != 1)}: {level}{same}"


def queue_of(task: LabelledTask, answers: Mapping[str, Sequence[str]] | None = None) -> LabelQueue:
    """The queue of a task's rows; `answers`: by row what prompts answered, one answer for each prompt."""
    place = task.positions
    drafted = {place[row.id]: row.drafted for row in task.rows if row.drafted}
    given = {place[row]: texts for row, texts in (answers or {}).items() if row in place}
    return LabelQueue([row.text for row in task.rows], drafted, given)


class LabelSession:
    """One labeller at work. `events` are always all those of the task's log.

    Args:
        task: what is labelled.
        labeller: a name or initials.
        queue: of the task, which labellers may share. None: one of its own, without answers of prompts.
        overlap: how many rows of others come first, 0 or more.
    """

    def __init__(
        self, task: LabelledTask, labeller: str, queue: LabelQueue | None = None, overlap: int = OVERLAP
    ) -> None:
        self.task, self.labeller, self._overlap = task, labeller_name(labeller), overlap
        self._queue = queue or queue_of(task)

    def next(self, events: Sequence[LabelEvent], skipped: Collection[str] = ()) -> NextRow | None:
        """The next row, but for those that were `skipped`; None where nothing is left."""
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
        """A row that another labeller has given another label after this one did; each is shown again once."""
        for row, given in labels.items():
            own = given.get(self.labeller)
            last = list(given)[-1]
            others = {name: event.label or "" for name, event in given.items() if own and event.label != own.label}
            if others and last in others and row not in skipped:
                return NextRow(self.task.by_id[row], f"you said {own.label if own else ''}", "", others)
        return None

    def label(self, row: str, label: str, chosen: str = SPREAD) -> LabelEvent:
        """Writes a label of this labeller down."""
        return self.task.label(row, label, self.labeller, chosen)

    def again(self, row: str) -> NextRow | None:
        """A row whose label was taken back; None where there is no such row."""
        found = self.task.by_id.get(row)
        return NextRow(found, "its label was taken back", SPREAD, {}) if found else None

    def undo(self) -> LabelEvent | None:
        """Takes back the last label of this labeller; None where there is none."""
        return self.task.undo(self.labeller)

    def done(self, events: Sequence[LabelEvent]) -> int:
        """How many rows this labeller has labelled."""
        return sum(self.labeller in given for given in self.task.labels(events).values())


def agreements(task: LabelledTask, events: Sequence[LabelEvent]) -> list[PairAgreement]:
    """The agreement of each two labellers that have labelled a row both; `events`: all of the task's log."""
    labels = task.labels(events)
    names = sorted({name for given in labels.values() for name in given})
    found = []
    for one, two in combinations(names, 2):
        both = [(given[one].label, given[two].label) for given in labels.values() if one in given and two in given]
        if not both:
            continue
        steps = max(1, len(task.choices) - 1)
        first, second = ([task.choices.index(pair[side] or "") / steps for pair in both] for side in (0, 1))
        agreed_on = kappa(first, second, len(task.choices), weighted=False, seed=0)
        found.append(PairAgreement((one, two), len(both), agreed_on, share([a == b for a, b in both])))
    return found
