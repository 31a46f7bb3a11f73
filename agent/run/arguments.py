"""Rows and prompts that were given in Python: kept as files beside the ledger, so that all that reads a run finds them.

A run of them is then a run of a data file: it resumes, is audited, exported and made again as any other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import Problem
from agent.files import new_file

MOST_TOLD = 20  # problems of rows
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


def rows_of(table: Any) -> Any:
    """The rows of a pandas DataFrame as dicts, as its own JSON has them: no value is None, a time is a text.

    Anything else as it is. Raises ValueError for a table without unique column names.
    """
    if not (hasattr(table, "to_json") and hasattr(table, "columns")):
        return table
    text = table.to_json(orient="records", date_format="iso", double_precision=15, force_ascii=False)
    return json.loads(text)


def lines_of(rows: Sequence[Any]) -> tuple[list[str], list[Problem]]:
    """Each row as a line of JSON, and what is wrong with which row, counted from 0."""
    lines: list[str] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows):
        where = f"row {number}"
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            problems.append(Problem(where, f"is {type(row).__name__} {row!r:.60}; write a dict with column names"))
            continue
        try:
            lines.append(json.dumps(dict(row), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            problems.append(Problem(where, f"{error}; write texts, finite numbers, lists or dicts"))
    if len(problems) > MOST_TOLD:
        more = len(problems) - MOST_TOLD
        problems[MOST_TOLD:] = [Problem("rows", f"and {more} more with a problem of the kind")]
    return lines, problems


def is_file(prompt: str | Path) -> bool:
    """Whether `prompt` names a file: a Path, or one word that ends with .txt or .md or is a file that is there."""
    if isinstance(prompt, Path):
        return True
    one_line = "\n" not in prompt and len(prompt) < 1000 and "\x00" not in prompt
    return one_line and ((prompt.endswith((".txt", ".md")) and " " not in prompt) or Path(prompt).is_file())


def keep(runs: Path, texts: Mapping[str, str]) -> tuple[Path, bool]:
    """Puts the texts by file name into a folder of `runs`/tasks, named after what they say, for their owner only.

    Returns the folder, and whether it is new. Raises OSError when the disk refuses.
    """
    data = {name: text.encode("utf-8", "surrogatepass") for name, text in texts.items()}
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + each + b"\0" for name, each in sorted(data.items())))
    folder = runs / "tasks" / digest.hexdigest()[:16]
    is_new = not folder.exists()
    for name, content in data.items():
        with new_file(folder / name, private=True) as file:
            file.write(content)
    return folder, is_new
