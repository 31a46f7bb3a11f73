"""Rows without a label: unlabelled.jsonl in a task folder.

{"id": "row_1f...", "text": "...", "source": "mails.csv:2"}
{"id": "row_2e...", "text": "...", "source": "synthetic", "drafted": "bug"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.shipped import fold
from agent.task.input_files import read_bytes, rows_of
from agent.task.words import problem, quoted, shown
from agent.types import content_id

UNLABELLED_FILE = "unlabelled.jsonl"
SYNTHETIC = "synthetic"
"""The source of a row that a model wrote."""


@dataclass(frozen=True, slots=True)
class UnlabelledRow:
    """A row of unlabelled.jsonl. `source`: FILE:LINE, or SYNTHETIC, and then `drafted` is the label that it was written
    for; it is never shown and goes into no split."""

    id: str
    inputs: Mapping[str, str]
    source: str
    drafted: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The row as it stands in the file."""
        drafted = {"drafted": self.drafted} if self.drafted else {}
        return {"id": self.id, **self.inputs, "source": self.source, **drafted}

    @property
    def text(self) -> str:
        """The inputs as one text."""
        return "\n".join(self.inputs.values())


def unlabelled_rows(table: Sequence[tuple[Mapping[str, str], str]]) -> list[UnlabelledRow]:
    """Rows of inputs and source, of equal inputs (whatever the case) the first."""
    found: dict[tuple[str, ...], UnlabelledRow] = {}
    for inputs, source in table:
        row = UnlabelledRow(content_id("row", dict(inputs)), dict(inputs), source)
        found.setdefault(folded(row.inputs), row)
    return list(found.values())


def folded(inputs: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs as they are compared."""
    return tuple(fold(text) for text in inputs.values())


def rows_text(rows: Sequence[UnlabelledRow]) -> str:
    """The text of unlabelled.jsonl."""
    return "".join(json_line(row.as_dict()) for row in rows)


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of a .jsonl file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_unlabelled_file(path: Path, inputs: Sequence[str]) -> list[UnlabelledRow]:
    """The rows of the file. Raises ProblemsError with each that is no row with these inputs."""
    data, where = read_bytes(path), shown(path)
    rows, problems = rows_of(data, path)
    found: dict[str, UnlabelledRow] = {}
    for line, row in rows:
        texts = {name: row.get(name) for name in ("id", *inputs, "source")}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str) or not text.strip()]:
            problems.append(problem(where, line, f"{wrong[0]}: no text; write one"))
        elif row["id"] in found:
            problems.append(
                problem(where, line, f"the id {quoted(row['id'])} stands there before; keep one of the two")
            )
        else:
            own = {name: row[name] for name in inputs}
            found[row["id"]] = UnlabelledRow(row["id"], own, row["source"], str(row.get("drafted", "")))
    if problems:
        raise ProblemsError(tuple(problems))
    return list(found.values())
