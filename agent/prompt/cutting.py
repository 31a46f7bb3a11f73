"""Documents cut into passages: by headings first, then by paragraphs and rows of tables, then by sentences.

Own code and no splitter of a library, as the hash of the passages is part of a candidate and of a release: another
version of a library must not change them, and a row of a table keeps the names of its columns.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.prompt.fence import defused
from agent.retrieval.passages import Passage
from agent.types import Document, Section, TextBlock

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
            parts, joint = block.text.split("\n"), "\n"
        else:
            parts = [block.text] if len(block.text) <= chunk else _SENTENCE_END.split(block.text)
            joint = " "
        for part in parts:
            for at in range(0, len(part), chunk):
                yield _Piece(part[at : at + chunk], joint if at == 0 else "", block.header, number)
