"""A round's pool: which instructions, demo sets, techniques and formats stand side by side. Knows no model, no SQL."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.prompt.techniques import TECHNIQUES, Rewrite
from agent.search.demos import DemoMaker, DemoSet
from agent.search.study import Point
from agent.types import Candidate, Demo, Example, Outcome, Task

NO_DEMOS = DemoSet((), "none")


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate of the pool, where it stands in the search space and how it came about."""

    candidate: Candidate
    point: Point
    operator: str
    parent_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A candidate that did well, with what it did on the rows it saw."""

    entry: Entry
    outcomes: tuple[Outcome, ...]

    @property
    def demos(self) -> DemoSet:
        return DemoSet(self.entry.candidate.demos, self.entry.operator)


class PoolMaker:
    """Builds the pools of one run. `rationales` are verified worked solutions by row id, for chain-of-thought demos."""

    def __init__(self, task: Task, rng: random.Random) -> None:
        self._task = task
        self._rng = rng
        self._maker = DemoMaker(task, rng)
        self._dev: Mapping[str, Example] = {example.id: example for example in task.dev}
        largest, capped = max(task.space.demo_counts, default=0), task.constraints.max_demos
        limit = largest if capped is None else capped
        self._limit = min(limit, len(task.train))
        self.counts = sorted({min(k, self._limit) for k in task.space.demo_counts} - {0})
        self.rationales: dict[str, str] = {}

    # -- the first round ----------------------------------------------------------------------------------------------

    def designs(self, rewrites: Sequence[Rewrite]) -> list[Entry]:
        """Good starting points: each technique without demos, and one balanced set in each format."""
        own = Rewrite("own", self._task.instruction, "the user's words")
        entries = []
        for rewrite in (own, *rewrites[:1]):
            entries += [
                self._entry(technique, self._plain(), rewrite, NO_DEMOS, role)
                for technique in self._task.space.techniques
                for role in ("", *self._task.space.roles[:1])
                if not TECHNIQUES[technique].demos and (rewrite is own or not TECHNIQUES[technique].reasoning)
            ]
        if "few-shot" in self._task.space.techniques and self.counts:
            middle = self.counts[len(self.counts) // 2]
            entries += [
                self._entry("few-shot", name, own, self._maker.balanced(middle)) for name in self._task.space.formats
            ]
        return entries

    def fresh(self, rewrites: Sequence[Rewrite], per_count: int, parents: Sequence[Parent] = ()) -> list[Entry]:
        """Demo sets that need no scores, crossed with instructions, in the format that did best so far."""
        if "few-shot" not in self._task.space.techniques:
            return []
        own = Rewrite("own", self._task.instruction, "the user's words")
        name = next((p.entry.candidate.format for p in parents if p.demos.demos), self._task.space.formats[0])
        entries = []
        for k in self.counts:
            for number in range(per_count):
                builder = (self._maker.balanced, self._maker.short, self._maker.diverse)[number % 3]
                demos = builder(k)
                for rewrite in (own, self._rng.choice(list(rewrites) or [own])):
                    entries.append(self._entry("few-shot", name, rewrite, demos))
        return entries

    def instructed(self, proposals: Sequence[Rewrite], parents: Sequence[Parent]) -> list[Entry]:
        """Proposed instructions: on their own, and in the place of the best candidates' instructions."""
        entries = []
        for rewrite in proposals:
            entries.append(self._entry("zero-shot", self._plain(), rewrite, NO_DEMOS))
            entries += [self._with_instruction(parent, rewrite) for parent in parents]
        return entries

    def reasoned(self) -> list[Entry]:
        """Chain-of-thought demos, only with rationales that the target wrote and that ended in the right answer."""
        if "few-shot-cot" not in self._task.space.techniques or len(self.rationales) < 2:
            return []
        own = Rewrite("own", self._task.instruction, "the user's words")
        entries = []
        for k in self.counts:
            ids = self._rng.sample(sorted(self.rationales), min(k, len(self.rationales)))
            demos = tuple(self._worked(i) for i in ids)
            found = DemoSet(
                demos, "verified-rationales", reason=f"{len(demos)} solutions of the target's own, all right"
            )
            entries += [self._entry("few-shot-cot", name, own, found) for name in self._task.space.formats]
        return entries

    def _worked(self, example_id: str) -> Demo:
        demo = self._maker.demo(example_id)
        return Demo(demo.example_id, demo.inputs, demo.outputs, self.rationales[example_id], "target")

    # -- later rounds -------------------------------------------------------------------------------------------------

    def children(self, parents: Sequence[Parent], rewrites: Sequence[Rewrite]) -> list[Entry]:
        """New demo sets and layouts out of the best candidates."""
        entries: list[Entry] = []
        for parent in parents:
            entries += list(self._demo_children(parent, parents))
            entries += [
                self._with_format(parent, name)
                for name in self._task.space.formats
                if name != parent.entry.candidate.format
            ]
            if rewrites:
                entries.append(self._with_instruction(parent, self._rng.choice(list(rewrites))))
        return entries

    def _demo_children(self, parent: Parent, parents: Sequence[Parent]) -> Iterator[Entry]:
        if not parent.demos.demos or TECHNIQUES[parent.entry.candidate.technique].reasoning:
            return
        for _ in range(4):
            yield self._child(parent, self._maker.rebalanced(parent.demos, parent.outcomes, self._dev, self._limit))
        for _ in range(2):
            yield self._child(parent, self._maker.swapped(parent.demos, parent.outcomes, self._dev))
            yield self._child(parent, self._maker.reordered(parent.demos))
        for other in parents:
            if other is not parent and other.demos.demos:
                k = self._rng.choice(self.counts)
                yield self._child(parent, self._maker.recombined(parent.demos, other.demos, k))

    def _child(self, parent: Parent, demos: DemoSet) -> Entry:
        old = parent.entry.candidate
        candidate = Candidate(old.technique, old.format, old.instruction, old.role, demos.demos)
        place = {**parent.entry.point.coordinates, "demos": _kind(demos)}
        return Entry(candidate, Point(candidate.id, place), demos.operator, old.id, demos.reason)

    def _with_format(self, parent: Parent, name: str) -> Entry:
        old = parent.entry.candidate
        candidate = Candidate(old.technique, name, old.instruction, old.role, old.demos)  # type: ignore[arg-type]
        place = {**parent.entry.point.coordinates, "layout": f"{old.technique}/{name}"}
        return Entry(candidate, Point(candidate.id, place), "format", old.id, f"the same prompt laid out as {name}")

    def _with_instruction(self, parent: Parent, rewrite: Rewrite) -> Entry:
        old = parent.entry.candidate
        candidate = Candidate(old.technique, old.format, rewrite.instruction, old.role, old.demos)
        place = {**parent.entry.point.coordinates, "instruction": rewrite.operator}
        return Entry(candidate, Point(candidate.id, place), f"instruction:{rewrite.operator}", old.id, rewrite.reason)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _plain(self) -> str:
        return self._task.space.formats[0] if self._task.space.formats else "turns"

    def _entry(self, technique: str, name: str, rewrite: Rewrite, demos: DemoSet, role: str = "") -> Entry:
        candidate = Candidate(technique, name, rewrite.instruction, role, demos.demos)  # type: ignore[arg-type]
        place = {"layout": f"{technique}/{name}", "instruction": rewrite.operator, "demos": _kind(demos)}
        operator = demos.operator if demos.demos else f"{technique}:{rewrite.operator}{'+role' if role else ''}"
        return Entry(candidate, Point(candidate.id, place), operator, demos.parent_id, demos.reason or rewrite.reason)


def first_children(entries: Sequence[Entry], parents: Sequence[Parent]) -> list[str]:
    """The children of the best candidate that are tried for certain: what worked is built on in every round."""
    wanted = {"instruction": 2, "rebalanced": 2, "swapped": 1, "format": 1}
    chosen = []
    for entry in entries:
        kind = entry.operator.partition(":")[0]
        if parents and entry.parent_id == parents[0].entry.candidate.id and wanted.get(kind, 0) > 0:
            wanted[kind] -= 1
            chosen.append(entry.candidate.id)
    return chosen


def _kind(demos: DemoSet) -> str:
    """A demo set's family: how it was made and about how many rows it has."""
    return f"{demos.operator}/{len(demos.demos) // 8 * 8}" if demos.demos else "none"
