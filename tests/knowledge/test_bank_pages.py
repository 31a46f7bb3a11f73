"""The pages of `bank_answers` as passages: the right one is mostly there, and so is the superseded one."""

from __future__ import annotations

import re
from pathlib import Path

from agent.documents import Document
from agent.prompt.parts.passages import passages_of
from agent.retrieval.passages import PassageIndex
from agent.task.load import load_task

TASK = load_task(Path(__file__).resolve().parents[2] / "tasks" / "bank_answers")
assert TASK.knowledge is not None
DOCUMENTS = TASK.knowledge.documents


def text_of(document: Document) -> str:
    return "\n".join(block.text for section in document.sections for block in section.blocks)


SUPERSEDED = {each.name for each in DOCUMENTS if re.search(r"superseded on \d", text_of(each), re.IGNORECASE)}


def test_every_page_is_read_with_its_headings_and_tables() -> None:
    assert len(DOCUMENTS) == 30
    assert len(SUPERSEDED) == 7
    assert all(document.sections[0].heading for document in DOCUMENTS if not document.name.endswith(".csv"))
    tables = [b for d in DOCUMENTS for s in d.sections for b in s.blocks if b.header]
    assert len(tables) > 30
    assert not any("<" in text_of(document) for document in DOCUMENTS)


def test_the_right_pages_are_mostly_shown_and_superseded_ones_too() -> None:
    index = PassageIndex(passages_of(DOCUMENTS, 800, 0))
    rows = [row for row in TASK.test if row.sources]
    assert len(rows) == 108
    shown = {row.id: {each.file for each in index.found(row.inputs["question"], "bm25", 4)} for row in rows}
    assert sum(bool(shown[row.id] & set(row.sources)) for row in rows) > 0.85 * len(rows)
    assert sum(set(row.sources) <= shown[row.id] for row in rows) > 0.8 * len(rows)
    trapped = [row for row in rows if row.slices["kind"] == "superseded"]
    assert sum(bool(shown[row.id] & SUPERSEDED) for row in trapped) > 0.8 * len(trapped)
