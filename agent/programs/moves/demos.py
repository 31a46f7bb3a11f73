"""Demo sets: which train rows are in the prompt, and in which order; near rows have the largest word overlap."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.prompt.parts.examples import as_demo
from agent.types import Demo, Example, Outcome, Task

KINDS = ("balanced", "natural", "diverse", "short")
OPERATORS = ("tail_swap", "swapped", "rebalanced", "grown", "recombined", "reordered")
"""The changes of `DemoMaker.child`."""


def most_examples(task: Task) -> int:
    largest, capped = max(task.space.demo_counts, default=0), task.constraints.max_examples
    return min(largest if capped is None else capped, len(task.train))


def demo_sizes(task: Task) -> list[int]:
    return sorted({min(k, most_examples(task)) for k in task.space.demo_counts} - {0})


def demo_kinds(task: Task) -> tuple[str, ...]:
    """Return the builders of demo sets for this task, the usual one first."""
    return KINDS if task.signature.outputs[0].choices else KINDS[1:]


@dataclass(frozen=True, slots=True)
class DemoSet:
    demos: tuple[Demo, ...]
    operator: str
    reason: str = ""


class DemoMaker:
    """Builds demo sets from train rows; the same seed of `rng` gives the same sets."""

    def __init__(self, task: Task, rng: random.Random) -> None:
        self._task = task
        self._rng = rng
        self._rows = {example.id: example for example in task.train}
        self._dev = {example.id: example for example in task.dev}
        self._words = {example.id: words(example) for example in task.train}
        self.groups: dict[str, list[str]] = {}
        for row in task.train:
            self.groups.setdefault(self.label(row), []).append(row.id)

    def label(self, row: Example) -> str:
        """Return the class of a row, or "" without a single choice."""
        outputs = self._task.signature.outputs
        return str(row.labels[outputs[0].name]) if len(outputs) == 1 and outputs[0].choices else ""

    def demo(self, example_id: str) -> Demo:
        return as_demo(self._rows[example_id], self._task.accepted)

    def _set(self, ids: Sequence[str], operator: str, reason: str = "") -> DemoSet:
        return DemoSet(tuple(self.demo(i) for i in ids), operator, reason)

    def balanced(self, k: int) -> DemoSet:
        """Draw about k / classes rows of each class; random rows without classes."""
        return self._set(self._balanced(k, self.groups), "balanced", reason=f"{k} rows, every label alike")

    def natural(self, k: int) -> DemoSet:
        ids = self._rng.sample(sorted(self._rows), min(k, len(self._rows)))
        return self._set(ids, "natural", reason=f"{k} rows drawn as the data come")

    def short(self, k: int) -> DemoSet:
        half = {
            label: sorted(ids, key=lambda i: len(self._words[i]))[: max(2, (len(ids) + 1) // 2)]
            for label, ids in self.groups.items()
        }
        return self._set(self._balanced(k, half), "short", reason=f"{k} short rows, every label alike")

    def diverse(self, k: int) -> DemoSet:
        """Draw balanced; each next row shares least words with those chosen, of a few drawn."""
        chosen: list[str] = []
        for label in self._turns(k):
            rest = [i for i in self.groups[label] if i not in chosen]
            if not rest:
                continue
            drawn = self._rng.sample(rest, min(5, len(rest)))
            known = [self._words[i] for i in chosen]
            chosen.append(min(drawn, key=lambda i: max((jaccard(self._words[i], w) for w in known), default=0.0)))
        self._rng.shuffle(chosen)
        return self._set(chosen, "diverse", reason=f"{len(chosen)} rows that differ most from each other")

    def _balanced(self, k: int, groups: Mapping[str, Sequence[str]]) -> list[str]:
        left = {label: self._rng.sample(list(ids), len(ids)) for label, ids in groups.items()}
        chosen = [left[label].pop() for label in self._turns(k) if left[label]]
        self._rng.shuffle(chosen)
        return chosen

    def _turns(self, k: int) -> list[str]:
        labels = self._rng.sample(sorted(self.groups), len(self.groups))
        return [labels[i % len(labels)] for i in range(min(k, len(self._rows)))]

    def rebalanced(self, parent: DemoSet, outcomes: Sequence[Outcome], limit: int) -> DemoSet:
        """Replace demos of overused answers by demos of missed answers, near the failures, late."""
        order, ids = self._missed_first(outcomes), [demo.example_id for demo in parent.demos]
        loud = [i for i in ids if self.label(self._rows[i]) == order[-1]]
        if len(loud) > 1:
            ids.remove(self._rng.choice(loud))
        starved, failures, added = order[: max(2, len(order) // 3)], self._failures(outcomes), list[str]()
        for label in self._rng.sample(starved, min(2, len(starved))):
            if len(ids) < limit and (row_id := self._near(failures, label, ids)):
                ids.insert(self._rng.randint(len(ids) // 2, len(ids)), row_id)
                added.append(label)
        while len(ids) > limit:
            ids.remove(self._rng.choice(ids))
        more = " and ".join(label or "like the failures" for label in added) or "room"
        return self._set(ids, "rebalanced", reason=f"less {order[-1] or 'of one kind'}, more {more}")

    def _near(self, failures: Sequence[Example], label: str, taken: Sequence[str]) -> str | None:
        rest = [i for i in self.groups[label] if i not in taken]
        if not rest:
            return None
        drawn = self._rng.sample(rest, min(6, len(rest)))
        targets = [words(row) for row in failures if self.label(row) == label]
        return max(drawn, key=lambda i: (max((jaccard(self._words[i], t) for t in targets), default=0.0), i))

    def recombined(self, one: DemoSet, two: DemoSet, k: int) -> DemoSet:
        pool = {demo.example_id: demo for demo in (*one.demos, *two.demos)}
        keep = set(self._rng.sample(sorted(pool), min(k, len(pool))))
        demos = tuple(demo for demo in pool.values() if demo.example_id in keep)
        return DemoSet(demos, "recombined", reason="rows of two good sets")

    def swapped(self, parent: DemoSet, outcomes: Sequence[Outcome]) -> DemoSet:
        ids, failures = [demo.example_id for demo in parent.demos], self._failures(outcomes)
        for position in self._rng.sample(range(len(ids)), max(1, len(ids) // 4)):
            label = self.label(self._rows[ids[position]])
            ids[position] = self._near(failures, label, ids) or ids[position]
        return self._set(ids, "swapped", reason="a quarter of the rows replaced by rows near the failures")

    def tail_swap(self, parent: DemoSet, outcomes: Sequence[Outcome]) -> DemoSet:
        """Replace the last quarter. The end weighs most, and the front stays in the model's cache."""
        order, failures = self._missed_first(outcomes), self._failures(outcomes)
        cut = max(1, len(parent.demos) // 4)
        front, tail = [demo.example_id for demo in parent.demos[:-cut]], list[str]()
        for position in range(cut):
            label = order[min(position, len(order) - 1)] if self._rng.random() < 0.6 else self._rng.choice(order)
            if row_id := self._near(failures, label, [*front, *tail]):
                tail.append(row_id)
        self._rng.shuffle(tail)
        return self._set([*front, *tail], "tail_swap", reason=f"the last {cut} rows replaced, labels it misses first")

    def grown(self, parent: DemoSet, outcomes: Sequence[Outcome], k: int) -> DemoSet:
        order, failures = self._missed_first(outcomes), self._failures(outcomes)
        ids = [demo.example_id for demo in parent.demos]
        for position in range(k):
            if row_id := self._near(failures, order[position % max(1, len(order) // 2)], ids):
                ids.insert(self._rng.randint(0, len(ids)), row_id)
        return self._set(ids, "grown", reason=f"{k} rows more, of labels that it misses")

    def child(
        self, operator: str, parent: DemoSet, outcomes: Sequence[Outcome], others: Sequence[DemoSet]
    ) -> DemoSet | None:
        limit, size = most_examples(self._task), len(parent.demos)
        if operator == "grown":
            room = min(limit - size, max(2, size // 4))
            return self.grown(parent, outcomes, room) if room > 0 else None
        if operator == "recombined":
            other = self._rng.choice(others) if others else None
            return self.recombined(parent, other, max(size, len(other.demos))) if other else None
        if operator == "rebalanced":
            return self.rebalanced(parent, outcomes, limit)
        if operator == "swapped":
            return self.swapped(parent, outcomes)
        return self.tail_swap(parent, outcomes) if operator == "tail_swap" else self.reordered(parent)

    def _missed_first(self, outcomes: Sequence[Outcome]) -> list[str]:
        predicted = Counter(str(next(iter(o.prediction.fields.values()), "")) for o in outcomes)
        wanted = Counter(self.label(self._dev[o.example_id]) for o in outcomes)
        return sorted(self.groups, key=lambda label: (predicted[label] - wanted[label], label))

    def _failures(self, outcomes: Sequence[Outcome]) -> list[Example]:
        return [self._dev[outcome.example_id] for outcome in outcomes if (outcome.value or 0.0) < 0.5]

    def reordered(self, parent: DemoSet) -> DemoSet:
        demos = list(parent.demos)
        self._rng.shuffle(demos)
        return DemoSet(tuple(demos), "reordered", reason="the same rows in another order")


def words(example: Example) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", " ".join(example.inputs.values()).casefold()))


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    """Return the shared words over all words, in [0, 1].

    >>> jaccard(frozenset("ab"), frozenset("bc"))
    0.3333333333333333
    """
    return len(one & two) / len(one | two) if one or two else 0.0
