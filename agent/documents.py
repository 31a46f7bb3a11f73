"""Documents from which prompts retrieve passages: their headings, paragraphs and tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph of a document, or the rows of a table with its `header` lines."""

    text: str
    header: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """The content under one heading; `heading` includes those above it, outermost first."""

    heading: tuple[str, ...]
    blocks: tuple[TextBlock, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the task; `name` is its path in their folder, with `/`."""

    name: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The documents from which a task's prompts retrieve passages."""

    documents: tuple[Document, ...]
    source: str = ""  # the column that names a row's documents
    unanswerable: str = ""  # the answer if no document has it
