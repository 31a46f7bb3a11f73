"""Rows with the answers of a prompt beside them, as a .csv or .jsonl file that is there whole or not at all.

A model's text is written into a .csv so that no spreadsheet runs it as a formula; .jsonl holds it as it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.files import new_file

SUFFIXES = (".csv", ".jsonl")
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d.,]*")


def require_kind(path: Path) -> None:
    """Raises InputError for a file that is neither .csv nor .jsonl."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"-o {path}: give a .csv or a .jsonl file")


def write_answers(
    path: Path,
    columns: Sequence[str],
    added: Sequence[str],
    rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    trusted: bool,
) -> None:
    """Writes rows with their answers.

    Args:
        path: .csv or .jsonl.
        columns: those of the rows.
        added: those of the answers; a .csv has all of them.
        rows: each row and its answers by column.
        trusted: the rows' own cells come out of a .csv or .tsv and are written as they are.

    Raises:
        OSError: the disk refuses.
    """
    with new_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        if path.suffix.lower() == ".csv":
            table = csv.writer(text)
            table.writerow([*(_cell(name, trusted) for name in columns), *added])
            for row, answers in rows:
                own = [_cell(row.get(name), trusted) for name in columns]
                table.writerow([*own, *(_cell(answers.get(name)) for name in added)])
        else:
            for row, answers in rows:
                text.write(json.dumps({**row, **answers}, ensure_ascii=False, allow_nan=False) + "\n")
        text.flush()
        text.detach()


def _cell(value: Any, trusted: bool = False) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value if trusted else without_formula(value.replace("\0", "\\x00"))


def without_formula(text: str) -> str:
    """`text` with an apostrophe before it where a spreadsheet would run it as a formula; a number stays a number.

    >>> without_formula("=1+1"), without_formula("-5"), without_formula("- no")
    ("'=1+1", '-5', "'- no")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
