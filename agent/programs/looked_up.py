"""The documents of a task as passages: which of them a prompt shows on a row, and how long that makes it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from statistics import mean

from agent.prompt.passage_making import passages_of
from agent.retrieval.passages import MOST_PASSAGES, PassageIndex, Passages, ReleasedPassages, passage_block
from agent.retrieval.pool import text_of
from agent.types import Example, Task

SAMPLE = 50
"""Train rows over which the mean length of a block of passages is taken."""


class PassageLibrary:
    """The passages of one task, for each size that they are cut into; all is worked out when it is first needed, with
    one model's tokens."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._indexes: dict[tuple[int, int], PassageIndex] = {}
        self._longest: dict[tuple[int, int], list[str]] = {}
        self._means: dict[Passages, int] = {}

    def index(self, chunk: int, overlap: int) -> PassageIndex:
        """The documents in passages of this size."""
        if (chunk, overlap) not in self._indexes:
            documents = self._task.knowledge.documents if self._task.knowledge else ()
            self._indexes[chunk, overlap] = PassageIndex(passages_of(documents, chunk, overlap))
        return self._indexes[chunk, overlap]

    def settings(self, retriever: str, k: int, chunk: int, overlap: int) -> Passages:
        """How passages are looked up, with the hash of those that there are."""
        return Passages(retriever, k, chunk, overlap, self.index(chunk, overlap).id)

    def block(self, passages: Passages, row: Example) -> str:
        """The block of passages for a row."""
        return self._index(passages).block(text_of(row.inputs, self._names), passages.retriever, passages.k)

    def files(self, passages: Passages, row: Example) -> tuple[str, ...]:
        """The document of each passage for a row, the nearest first."""
        found = self._index(passages).found(text_of(row.inputs, self._names), passages.retriever, passages.k)
        return tuple(passage.file for passage in found)

    def why_other(self, passages: Passages) -> str:
        """Why these settings are not of this task's documents; "" where they are."""
        if not self._index(passages).passages:
            return "it looks passages up, and the task has no [knowledge]"
        if passages.pool != self._index(passages).id:
            return f"its passages are {passages.pool}, and those of the task's documents {self._index(passages).id}"
        return ""

    def mean_tokens(self, passages: Passages, count: Callable[[str], int]) -> int:
        """Tokens of the block, on average over train rows."""
        if passages not in self._means:
            sizes = [count(self.block(passages, row)) for row in self._task.train[:SAMPLE]]
            self._means[passages] = round(mean(sizes))
        return self._means[passages]

    def most_tokens(self, passages: Passages, count: Callable[[str], int]) -> int:
        """The most tokens that the block can have with any input: that of the k longest passages."""
        index, size = self._index(passages), (passages.chunk, passages.overlap)
        if size not in self._longest:
            texts = (each.text for each in index.passages)
            self._longest[size] = heapq.nlargest(MOST_PASSAGES, texts, key=count)
        longest = self._longest[size][: passages.k]
        return count(passage_block(index.tag, longest)) + len(longest)  # tokens may join otherwise in another order

    def released(self, passages: Passages) -> ReleasedPassages:
        """The passages as a release holds them."""
        return ReleasedPassages(passages, self._index(passages).passages)

    def _index(self, passages: Passages) -> PassageIndex:
        return self.index(passages.chunk, passages.overlap)
