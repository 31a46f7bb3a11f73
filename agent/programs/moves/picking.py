"""Prompts whose examples are picked for each input: their place in the space of designs, and changes of good ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.programs.moves.demos import DemoMaker, demo_kinds, demo_sizes, most_examples
from agent.programs.picked_rows import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.pick import ORDERS, RETRIEVERS, Picks
from agent.retrieval.vectors import DENSE, DENSE_RETRIEVERS
from agent.search.program import Choices
from agent.types import Task

FEWEST_ROWS = 24
"""Train rows, below which nearest rows are seldom near."""
MOST_POOL_LETTERS = 1_000_000
"""Of the train rows together: a release holds them all, twice."""
SIZES = (4, 6, 8, 12)
HEADS = (2, 4, 8)
NONE = "none"
"""The retriever of a design without picks."""
FIRST = (("hybrid", 6), ("bm25", 8))
"""The first designs with picks: retriever and k."""
FIRST_DENSE = (DENSE, 6)
"""One more where the task names embeddings."""


def pick_sizes(task: Task) -> list[int]:
    """The numbers of picked examples in the designs of this task, rising; none where nothing is picked."""
    letters = sum(len(text) for row in task.train for text in row.inputs.values())
    usable = task.space.retrieval and "few-shot" in task.space.techniques
    if not usable or len(task.train) < FEWEST_ROWS or letters > MOST_POOL_LETTERS:
        return []
    return [k for k in SIZES if k <= most_examples(task)]


class PickMaker:
    """Makes the picks of one run's candidates; the same choices make the same ones."""

    def __init__(self, task: Task, choices: Choices, pool: PickedRows) -> None:
        self._task, self._choices, self._pool = task, choices, pool
        self.sizes = pick_sizes(task)
        self._retrievers = (*RETRIEVERS, *(DENSE_RETRIEVERS if task.space.embeddings else ()))

    def space(self) -> dict[str, tuple[str, ...]]:
        """The coordinates of picked examples in the space of designs; none where nothing is picked."""
        if not self.sizes:
            return {}
        return {
            "retriever": (NONE, *self._retrievers),
            "picked": tuple(str(k) for k in self.sizes),
            "pick_order": ORDERS,
        }

    def place(self, retriever: str = NONE, k: int | None = None) -> dict[str, str]:
        if not self.sizes:
            return {}
        return {"retriever": retriever, "picked": str(k or self.sizes[0]), "pick_order": ORDERS[0]}

    def first(self) -> list[dict[str, str]]:
        if not self.sizes:
            return []
        first = (*FIRST, *([FIRST_DENSE] if self._task.space.embeddings else []))
        return [self.place(retriever, self._size(k)) for retriever, k in first]

    def at(self, place: Mapping[str, str]) -> Picks | None:
        """The picks of a design at a place; None for one without."""
        if not self.sizes or place["retriever"] == NONE:
            return None
        retriever = place["retriever"]
        return Picks(retriever, int(place["picked"]), place["pick_order"], pool=self._pool.id_of(retriever))

    def _size(self, k: int) -> int:
        return min(self.sizes, key=lambda size: (abs(size - k), size))

    def operators(self, prompt: PromptCandidate) -> list[str]:
        if not self.sizes or prompt.technique != "few-shot":
            return []
        return ["pick"] if prompt.picks is None else ["repick", "head", "fix"]

    def child(self, operator: str, old: PromptCandidate, maker: DemoMaker) -> tuple[PromptCandidate, str] | None:
        """A changed candidate and the reason; None where there is nothing to change."""
        if operator == "pick":
            return self._picked(old)
        if old.picks is None:
            return None
        if operator == "repick":
            return self._repicked(old, old.picks)
        if operator == "head":
            return self._headed(old, old.picks, maker)
        k = self._choices.one("size", demo_sizes(self._task) or [old.picks.k])
        demos = getattr(maker, demo_kinds(self._task)[0])(k).demos
        return replace(old, demos=demos, picks=None), f"{len(demos)} fixed rows in place of picked ones"

    def _picked(self, old: PromptCandidate) -> tuple[PromptCandidate, str]:
        k = self._choices.one("k", self.sizes)
        kept = self._choices.one("head", [0, *(size for size in HEADS if size + k <= most_examples(self._task))])
        retriever = self._choices.one("retriever", self._retrievers)
        picks = Picks(retriever, k, pool=self._pool.id_of(retriever))
        head = old.demos[:kept]
        after = f" after the first {len(head)} of its rows" if head else ""
        return replace(old, demos=head, picks=picks), f"{k} rows picked for each input{after}"

    def _repicked(self, old: PromptCandidate, picks: Picks) -> tuple[PromptCandidate, str] | None:
        room = most_examples(self._task) - len(old.demos)
        changes: list[tuple[Picks, str]] = [
            *(
                (replace(picks, retriever=name, pool=self._pool.id_of(name)), f"picked by {name}")
                for name in self._retrievers
            ),
            *((replace(picks, k=k), f"{k} picked rows") for k in self.sizes if k <= room),
            *((replace(picks, order=order), f"the picked rows {order}") for order in ORDERS),
            (
                replace(picks, diverse=not picks.diverse),
                "near-duplicates " + ("may" if picks.diverse else "not") + " picked together",
            ),
        ]
        if demo_kinds(self._task)[0] == "balanced":
            words = "any of the labels" if picks.balanced else "at most half of one label"
            changes.append((replace(picks, balanced=not picks.balanced), f"of the picked rows {words}"))
        changed = [(made, reason) for made, reason in changes if made != picks]
        if not changed:
            return None
        made, reason = self._choices.one("change", changed, lambda change: change[1])
        return replace(old, picks=made), reason

    def _headed(self, old: PromptCandidate, picks: Picks, maker: DemoMaker) -> tuple[PromptCandidate, str] | None:
        if old.demos:
            return replace(old, demos=()), "without the fixed rows before the picked ones"
        sizes = [size for size in HEADS if size + picks.k <= most_examples(self._task)]
        if not sizes:
            return None
        demos = getattr(maker, demo_kinds(self._task)[0])(self._choices.one("head", sizes)).demos
        return replace(old, demos=demos), f"{len(demos)} fixed rows before the picked ones"
