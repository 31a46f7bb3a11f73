"""A TOML text as values, and where each key stands: a parser gives no lines, so the text is scanned once for keys.

Knows the shape of TOML (strings, comments, headers, dotted keys), nothing of what the keys of a task mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from agent.errors import ProblemsError
from agent.strict import MAX_DEPTH, BadToml
from agent.strict import parse_toml as parse_strictly
from agent.task.checks import Fault
from agent.task.input_files import walk
from agent.task.words import problem, quoted

Path = tuple[str | int, ...]

_HIDDEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:\\.|[^"\\\n])*"' + r"|'[^'\n]*'" + r"|#[^\n]*", re.DOTALL
)
_PART = re.compile(r'"((?:\\.|[^"\\])*)"' + r"|'([^']*)'" + r"|([A-Za-z0-9_-]+)")


class Lines:
    """Line numbers (from 1) of the keys and sections of a TOML text that parses."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n").split("\n")
        self._lines: dict[Path, int] = {}
        section: Path = ()
        counts: dict[Path, int] = {}
        depth = 0
        masked = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", "~", found[0]), "\n".join(self._text)).split("\n")
        for number, (line, mask) in enumerate(zip(self._text, masked, strict=True), start=1):
            bare = mask.strip()
            if depth == 0 and bare.startswith("["):
                section = _parts(line[: mask.find("]")])
                if bare.startswith("[["):
                    counts[section] = counts.get(section, -1) + 1
                    section = (*section, counts[section])
                self._note(section, number)
                continue
            if depth == 0 and "=" in mask:
                self._note((*section, *_parts(line[: mask.index("=")])), number)
            depth += sum(mask.count(c) for c in "[{") - sum(mask.count(c) for c in "]}")

    def _note(self, path: Path, number: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], number)

    def of(self, path: Path, holding: str = "") -> int:
        """The line of the key at `path`, or of the nearest section around it, or 1.

        With `holding`, the first line from there on that holds this text (a word inside a long string).
        """
        known = (self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines)
        line = next(known, 1)
        if holding:
            return next((n for n in range(line, len(self._text) + 1) if holding in self._text[n - 1]), line)
        return line


def _parts(dotted: str) -> Path:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(dotted))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text, at most 50 levels deep. Raises `ProblemsError` with one problem at its line."""
    try:
        raw = parse_strictly(text)
    except BadToml as error:
        said = str(error)
        what = f"not valid TOML: {said[:1].lower()}{said[1:]}; correct this line"
        raise ProblemsError((problem(where, error.line, what),)) from None
    if any(depth > MAX_DEPTH for _, depth in walk(raw)):
        raise ProblemsError((problem(where, 1, f"nested deeper than {MAX_DEPTH} levels; flatten it"),))
    return raw


def find_nul(raw: dict[str, Any]) -> Iterator[Fault]:
    """A fault for every text that holds a NUL, written as an escape."""
    for key, value in raw.items():
        for part, _ in walk({key: value}):
            if isinstance(part, str) and "\x00" in part:
                yield Fault((key,), f"{quoted(part)} holds a NUL character; remove it", holding="\\u0000")
