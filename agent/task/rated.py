"""A file of ratings that grows: one JSON line for each answer and rater, in the form that `ratings` reads.

Written line by line and flushed, so that whoever rates can stop at any moment and go on later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.task.data import read_rows


class RatedFile:
    """The ratings in one file. Raises ProblemsError when it holds something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows, problems = read_rows(path) if path.exists() else ([], [])
        if problems:
            raise ProblemsError(tuple(problems))
        self.rows = [row for _, row in rows]

    def done(self, rater: str) -> set[str]:
        """The items that this rater has rated."""
        return {str(row.get("item")) for row in self.rows if row.get("rater") == rater}

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a rating; it is on the disk when this returns."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(row), ensure_ascii=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); name another with -o") from error
        self.rows.append(dict(row))
