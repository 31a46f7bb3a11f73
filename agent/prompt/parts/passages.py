"""Passages of the task's documents that are retrieved for each input."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from agent.prompt.fence import defused
from agent.prompt.parts.kinds import FileHead, PartKind, TaskParts, WrongPart, part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.prompt.template import fill, marks, placeholder
from agent.retrieval.passages import CONTEXT, Passage, PassageIndex, Passages, bare_passages, passage_block, passages_id
from agent.safe_data import read_as
from agent.shipped import Prediction

if TYPE_CHECKING:
    from agent.documents import Document, Section, TextBlock
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Task

CHUNKS = ((400, 0), (400, 100), (800, 0), (800, 200), (1600, 0), (1600, 400))
"""Letters of a passage, and how many of them the next one repeats."""
USUAL = ("bm25", 4, (800, 0))
"""Retriever, number of passages and their size, where the user's own prompt has a place for passages."""


def size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}+{size[1]}" if size[1] else str(size[0])


@dataclass(frozen=True)
class ReleasedPassages(PromptPart):
    """The passages of a prompt, and how they are retrieved."""

    name = "passages"
    mark, place = CONTEXT, "context"

    settings: Passages
    passages: tuple[Passage, ...]

    @cached_property
    def index(self) -> PassageIndex:
        return PassageIndex(self.passages)

    def documents(self, row: Row) -> tuple[str, ...]:
        return tuple(passage.file for passage in self.index.found(row.text, self.settings.retriever, self.settings.k))

    def block(self, row: Row) -> str:
        if self.name not in row.memo:
            row.memo[self.name] = self.index.block(row.text, self.settings.retriever, self.settings.k)
        found: str = row.memo[self.name]
        return found

    def values(self, row: Row) -> dict[str, Any]:
        return {CONTEXT: self.block(row)}

    def read(self, logs: Sequence[float] | None, row: Row | None, prediction: Prediction) -> Prediction:
        return prediction if row is None else replace(prediction, passages=bare_passages(self.block(row)))

    @cached_property
    def _sizes(self) -> dict[bool, int]:
        return {}

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        if most not in self._sizes:  # the same for all prompts that look up alike
            self._sizes[most] = self._most(count) if most else round(mean(count(self.block(row)) for row in rows))
        return self._sizes[most]

    def _most(self, count: Count) -> int:
        longest = self.index.longest(count)[: self.settings.k]
        return count(passage_block(self.index.tag, longest)) + len(longest)  # they may join otherwise in another order

    def data(self) -> dict[str, Any]:
        rows = [{"file": passage.file, "text": passage.text} for passage in self.passages]
        return {self.name: {**self.settings.as_dict(), "rows": rows}}


# -- documents cut into passages ---------------------------------------------------------------------------------------
#
# By headings first, then by paragraphs and rows of tables, then by sentences. Own code and no splitter of a library, as
# the hash of the passages is part of a candidate and of a release: another version of a library must not change them,
# and a row of a table keeps the names of its columns.

_SENTENCE_END = re.compile(r"(?<=[.!?;:。！？])\s+|\n(?=\s{0,99}(?:[-*+•]|\d+[.)])\s)")
_NUMBERED = re.compile(r"^\[(?=\d+\])", re.MULTILINE)
_GAP = "\u00b7"  # in a line of a passage that looks like the number of one


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text that is not cut further. `joint` separates it from the piece before; `block` numbers its block."""

    text: str
    joint: str
    header: str
    block: int

    @property
    def size(self) -> int:
        return len(self.joint) + len(self.text)


def passages_of(documents: Iterable[Document], chunk: int, overlap: int) -> list[Passage]:
    """Cut documents into passages, in order.

    Args:
        chunk: the most letters of a passage, without file, heading and header of a table; a section that fits stays
            whole, and sections are not joined.
        overlap: the most letters that the next passage of the same section repeats, in whole pieces.
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
    for number, block in enumerate(blocks):
        if block.header:
            texts, joint = block.text.split("\n"), "\n"
        else:
            texts = [block.text] if len(block.text) <= chunk else _SENTENCE_END.split(block.text)
            joint = " "
        for text in texts:
            for at in range(0, len(text), chunk):
                yield _Piece(text[at : at + chunk], joint if at == 0 else "", block.header, number)


class PassageLibrary:
    """The passages of one task, for each size they are cut into; made when first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._indexes: dict[tuple[int, int], PassageIndex] = {}
        self._bound: dict[Passages, ReleasedPassages] = {}

    def index(self, chunk: int, overlap: int) -> PassageIndex:
        if (chunk, overlap) not in self._indexes:
            documents = self._task.knowledge.documents if self._task.knowledge else ()
            self._indexes[chunk, overlap] = PassageIndex(passages_of(documents, chunk, overlap))
        return self._indexes[chunk, overlap]

    def settings(self, retriever: str, k: int, chunk: int, overlap: int) -> Passages:
        """Return retrieval settings, with the hash of the passages."""
        return Passages(retriever, k, chunk, overlap, self.index(chunk, overlap).id)

    def usual(self) -> Passages | None:
        """Return the default settings, if the user's own prompt has a place for passages."""
        if self._task.knowledge is None or not marks(self._task.instruction, [CONTEXT]):
            return None
        retriever, k, size = USUAL
        return self.settings(retriever, k, *size)

    def bound(self, passages: Passages) -> ReleasedPassages:
        """Return the retriever of a candidate with these settings."""
        if passages not in self._bound:
            index = self.index(passages.chunk, passages.overlap)
            self._bound[passages] = made = ReleasedPassages(passages, index.passages)
            made.__dict__["index"] = index  # prompts with passages of one size share it
        return self._bound[passages]

    def why_other(self, passages: Passages) -> str:
        index = self.index(passages.chunk, passages.overlap)
        if not index.passages:
            return "it retrieves passages, but the task has no [knowledge]"
        if passages.pool != index.id:
            return f"its passages are {passages.pool}, and those of the task's documents {index.id}"
        return ""


@part
class LookingUp(PartKind):
    name, settings = "passages", Passages
    made = ReleasedPassages
    headings: ClassVar[Mapping[str, str]] = {"passages": "passages"}

    def features(self, settings: Passages) -> dict[tuple[str, str], float]:
        return {
            ("passages", settings.retriever): 1.0,
            ("passage size", str(settings.chunk)): 1.0,
            ("log2 passages", ""): math.log2(1 + settings.k) / 2,
        }

    def without(self, winner: PromptCandidate, baseline: PromptCandidate) -> tuple[str, PromptCandidate] | None:
        found = super().without(winner, baseline)
        if found is None or baseline.part(self.name):
            return found
        return self.name, replace(found[1], instruction=fill(winner.instruction, {CONTEXT: ""}))

    def why_other(self, settings: Passages, prompt: PromptCandidate, shared: TaskParts) -> str:
        return shared.of(PassageLibrary).why_other(settings)

    def bind(self, settings: Passages, prompt: PromptCandidate, shared: TaskParts) -> ReleasedPassages:
        return shared.of(PassageLibrary).bound(settings)

    def load(self, head: FileHead) -> ReleasedPassages:
        settings, rows = head.table(self.name)
        how: Passages = read_as(Passages, settings, self.name)
        made: tuple[Passage, ...] = read_as(tuple[Passage, ...], rows, "passages.rows")
        if not made:
            raise WrongPart(self.name, "there are settings of passages and no passages")
        if how.pool != passages_id(made):
            raise WrongPart(self.name, f"the passages are {passages_id(made)}, and their settings say {how.pool!r:.40}")
        if CONTEXT in head.data["inputs"]:
            raise WrongPart("inputs", f"{CONTEXT!r} is the place of the passages and cannot be an input")
        if not any(placeholder(CONTEXT) in content for content in head.contents):
            raise WrongPart("messages", f"hold no {placeholder(CONTEXT)}, where the passages go")
        return ReleasedPassages(how, made)
