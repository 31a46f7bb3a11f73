"""The results file: one JSON object a line, one line for each finished run; it is kept under version control.

A run is known by (system, set, model, budget, seed, rows). When a key stands there twice, the later line counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "results.jsonl"
Line = dict[str, Any]
Key = tuple[str, str, str, int, int, int]


def key(line: Line) -> Key:
    """`rows`: what dev and test were cut to, 0 for a whole run."""
    return (line["system"], line["set"], line["model"], line["budget"], line["seed"], line.get("rows", 0))


def read(path: Path = FILE) -> list[Line]:
    """The finished runs. A last line that was cut off by a kill is left out."""
    if not path.is_file():
        return []
    found: dict[Key, Line] = {}
    for text in path.read_text("utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[key(line)] = line
    return list(found.values())


def append(line: Line, path: Path = FILE) -> None:
    """Adds a line; what a kill left of one is closed first, so that it spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = "" if _ends_well(path) else "\n"
    with path.open("a", encoding="utf-8") as out:
        out.write(start + json.dumps(line, ensure_ascii=False) + "\n")


def _ends_well(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def open_runs(wanted: Iterable[Key], lines: Iterable[Line]) -> list[Key]:
    """Those that have no result yet, in the order in which they are wanted."""
    done = {key(line) for line in lines}
    return [one for one in wanted if one not in done]


def forget(keys: Iterable[Key], path: Path = FILE) -> None:
    """Takes the runs with these keys out of the file."""
    gone = set(keys)
    kept = [line for line in read(path) if key(line) not in gone]
    if path.is_file():
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), "utf-8")
