"""Labelled rows into train, dev and test: the place of a row follows from the labels before it.

Rows come in the order of their first label. Each goes where its label is most lacking, by the fractions of
`agent/task/splits.py`, and stays there, as the log keeps its split: whatever is labelled, changed, undone, added or
deleted later, a prompt that was chosen on a dev row is never tested on it. Of near-duplicates the first stands for all;
a later one follows it into train, or is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

from agent.task.splits import CAPS, FRACTIONS, are_near, compared, near_duplicates
from agent.types import SplitName

_PREFERRED: tuple[SplitName, ...] = ("test", "dev", "train")  # of splits that lack as much
_SHARE = dict(zip(("train", "dev", "test"), FRACTIONS, strict=True))
_CAP = dict(zip(("train", "dev", "test"), CAPS, strict=True))


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A row as it is placed: its inputs as one text, its first label, and its split where that is given."""

    text: str
    label: str
    split: SplitName | None = None


def places(rows: Sequence[SplitRow]) -> list[SplitName | None]:
    """The split of each row, None for one that is left out; a longer list begins with the same places.

    >>> places([SplitRow(f"{word} note", "a") for word in ("red", "blue", "green", "grey", "pink")])
    ['train', 'test', 'dev', 'test', 'train']
    """
    groups = {at: group for group in near_duplicates([row.text for row in rows]) for at in group}
    words = {at: compared(rows[at].text) for at in groups}
    placed: list[SplitName | None] = []
    total: Counter[str] = Counter()
    by_label: Counter[tuple[str, str]] = Counter()
    for at, row in enumerate(rows):
        earlier = [other for other in groups.get(at, ()) if other < at and placed[other]]
        twins = {placed[other] for other in earlier if are_near(words[other], words[at])}
        found = row.split or (_beside(twins) if twins else _lacking(row.label, by_label, total))
        if not twins:
            by_label[row.label, found or ""] += 1
        total[found or ""] += 1
        placed.append(found)
    return placed


def _beside(twins: Set[SplitName | None]) -> SplitName | None:
    return "train" if twins == {"train"} else None


def _lacking(label: str, by_label: Counter[tuple[str, str]], total: Counter[str]) -> SplitName | None:
    room = [split for split in _PREFERRED if total[split] < _CAP[split]]
    if not by_label[label, "train"] and "train" in room:
        return "train"
    count = 1 + sum(by_label[label, split] for split in _PREFERRED)
    return max(room, key=lambda split: _SHARE[split] * count - by_label[label, split], default=None)
