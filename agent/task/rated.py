"""A file of ratings that grows: one JSON line for each answer and rater, in the form that `ratings` reads.

For its owner only. Written line by line and flushed, so that whoever rates can stop at any moment and go on later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import InputError, ProblemsError
from agent.task.input_files import read_rows
from agent.task.words import problem, shown

NEEDED = ("item", "rater", "rating")


class RatedFile:
    """The ratings in one .jsonl file, made when the first comes. Raises ProblemsError when it holds something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() != ".jsonl":
            raise ProblemsError((problem(shown(path), 1, "ratings are written as JSON lines; name a .jsonl file"),))
        rows, problems = read_rows(path) if os.path.exists(path) else ([], [])
        for line, row in rows:
            if lacking := [name for name in NEEDED if name not in row]:
                problems.append(problem(shown(path), line, f"no {lacking[0]}: this is no file of ratings"))
            elif isinstance(row["rating"], bool) or not isinstance(row["rating"], int | float):
                problems.append(problem(shown(path), line, f"the rating {row['rating']!r:.40} is not a number"))
        if problems:
            raise ProblemsError(tuple(problems))
        self.rows = [row for _, row in rows]

    def done(self, rater: str) -> set[str]:
        """The items that this rater has rated."""
        return {str(row["item"]) for row in self.rows if str(row["rater"]) == _plain(rater)}

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a rating; it is on the disk when this returns."""
        row = {name: _plain(value) if isinstance(value, str) else value for name, value in row.items()}
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self.path.open("a+b") as file:
                if file.tell() and not _ends_whole(file):
                    text = b"\n" + text
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); name another with -o") from error
        self.rows.append(row)


def _ends_whole(file: BinaryIO) -> bool:
    """Whether the last line has its end; leaves the place where the next is written as it was."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _plain(text: str) -> str:
    """Without what a file of rows may not hold: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
