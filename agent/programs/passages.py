"""Passages of a task's documents: how they are cut, which a prompt shows on a row, how long that makes it, and how a
search varies it.

Documents are cut by headings first, then by paragraphs and rows of tables, then by sentences. Own code and no splitter
of a library, as the hash of the passages is part of a candidate and of a release: another version of a library must not
change them, and a row of a table keeps the names of its columns.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from agent.prompt.fence import defused
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import fill, marks
from agent.retrieval.passages import (
    CONTEXT,
    MOST_PASSAGES,
    Passage,
    PassageIndex,
    Passages,
    ReleasedPassages,
    passage_block,
)
from agent.retrieval.pool import text_of
from agent.types import Document, Example, Section, Task, TextBlock

SAMPLE = 50
"""Train rows over which the mean length of a block of passages is taken."""


class PassageLibrary:
    """The passages of one task, for each size that they are cut into; worked out when first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._indexes: dict[tuple[int, int], PassageIndex] = {}
        self._longest: dict[tuple[int, int], list[str]] = {}
        self._means: dict[Passages, int] = {}

    def index(self, chunk: int, overlap: int) -> PassageIndex:
        if (chunk, overlap) not in self._indexes:
            documents = self._task.knowledge.documents if self._task.knowledge else ()
            self._indexes[chunk, overlap] = PassageIndex(passages_of(documents, chunk, overlap))
        return self._indexes[chunk, overlap]

    def settings(self, retriever: str, k: int, chunk: int, overlap: int) -> Passages:
        """How passages are looked up, with the hash of those that there are."""
        return Passages(retriever, k, chunk, overlap, self.index(chunk, overlap).id)

    def block(self, passages: Passages, row: Example) -> str:
        return self._index(passages).block(text_of(row.inputs, self._names), passages.retriever, passages.k)

    def files(self, passages: Passages, row: Example) -> tuple[str, ...]:
        found = self._index(passages).found(text_of(row.inputs, self._names), passages.retriever, passages.k)
        return tuple(passage.file for passage in found)

    def why_other(self, passages: Passages) -> str:
        if not self._index(passages).passages:
            return "it looks passages up, and the task has no [knowledge]"
        if passages.pool != self._index(passages).id:
            return f"its passages are {passages.pool}, and those of the task's documents {self._index(passages).id}"
        return ""

    def mean_tokens(self, passages: Passages, count: Callable[[str], int]) -> int:
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
        return ReleasedPassages(passages, self._index(passages).passages)

    def _index(self, passages: Passages) -> PassageIndex:
        return self.index(passages.chunk, passages.overlap)


CHUNKS = ((400, 0), (400, 100), (800, 0), (800, 200), (1600, 0), (1600, 400))
"""Letters of a passage, and how many of them the next one repeats."""
USUAL = ("bm25", 4, (800, 0))


def own_passages(task: Task, library: PassageLibrary) -> Passages | None:
    """How the user's own prompt looks passages up: as usual where it has a place for them, else not at all."""
    if task.knowledge is None or not marks(task.instruction, [CONTEXT]):
        return None
    retriever, k, size = USUAL
    return library.settings(retriever, k, *size)


def size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}+{size[1]}" if size[1] else str(size[0])


def without_passages(prompt: PromptCandidate) -> PromptCandidate:
    """The same prompt, which looks nothing up; the place for passages is empty."""
    return replace(prompt, passages=None, instruction=fill(prompt.instruction, {CONTEXT: ""}))


# -- documents cut into passages ---------------------------------------------------------------------------------------


_SENTENCE_END = re.compile(r"(?<=[.!?;:。！？])\s+|\n(?=\s{0,99}(?:[-*+•]|\d+[.)])\s)")
_NUMBERED = re.compile(r"^\[(?=\d+\])", re.MULTILINE)
_GAP = "\u00b7"  # in a line of a passage that looks like the number of one


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text that is not cut any more. `joint` separates it from the piece before; `block` numbers its block."""

    text: str
    joint: str
    header: str
    block: int

    @property
    def size(self) -> int:
        return len(self.joint) + len(self.text)


def passages_of(documents: Iterable[Document], chunk: int, overlap: int) -> list[Passage]:
    """Cut documents into passages, in their order.

    Args:
        chunk: the most letters of a passage, without file, heading and header of a table; a whole section stays whole
            where it fits, and sections are not joined.
        overlap: the most letters at the end of a passage that the next one of its section repeats, in whole pieces.
    """
    return [
        Passage(document.name, _NUMBERED.sub(f"[{_GAP}", defused(f"{', '.join([document.name, *heading])}:\n{text}")))
        for document in documents
        for section in document.sections
        for heading in [[" > ".join(section.heading)] if section.heading else []]
        for text in _cut(section, chunk, overlap)
    ]


def _cut(section: Section, chunk: int, overlap: int) -> Iterator[str]:
    held, size = deque[_Piece](), 0
    for piece in _pieces(section.blocks, chunk):
        if held and size + piece.size > chunk:
            yield _joined(held)
            while held and (size > overlap or size + piece.size > chunk):
                size -= held.popleft().size
        held.append(piece)
        size += piece.size
    if held:
        yield _joined(held)


def _joined(pieces: Iterable[_Piece]) -> str:
    text, last = "", -1
    for piece in pieces:
        joint = piece.joint if piece.block == last else "\n\n"
        header = f"{piece.header}\n" if piece.header and piece.block != last else ""
        text, last = f"{text}{joint if text else ''}{header}{piece.text}", piece.block
    return text


def _pieces(blocks: Sequence[TextBlock], chunk: int) -> Iterator[_Piece]:
    """What blocks are cut into: rows of tables, and paragraphs, of longer ones sentences."""
    for number, block in enumerate(blocks):
        if block.header:
            parts, joint = block.text.split("\n"), "\n"
        else:
            parts = [block.text] if len(block.text) <= chunk else _SENTENCE_END.split(block.text)
            joint = " "
        for part in parts:
            for at in range(0, len(part), chunk):
                yield _Piece(part[at : at + chunk], joint if at == 0 else "", block.header, number)
