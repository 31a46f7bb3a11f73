"""How this layer speaks: one printable line per problem, the bad value quoted, the near miss named.

Knows nothing of tasks, tables or files beyond their names.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.errors import Problem


def printable(text: str) -> str:
    """`text` on one line: every character that does not print (newline, NUL, lone surrogate) as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(value: Any, limit: int = 80) -> str:
    """`value` as Python would write it, cut to `limit` characters; never raises."""
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # an integer of many thousand digits, or data nested too deep to print
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def listed(words: Iterable[str], limit: int = 20) -> str:
    """`a, b, c`, and how many more there are past `limit`."""
    names = [printable(str(word)) for word in words]
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def closest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that was probably meant by `word`, or ""."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold()[:200], list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def near(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `word`: the near miss where there is one, and what is known."""
    names = list(known)
    close = closest(word, names)
    hint = f"; did you mean {quoted(close)}?" if close else "."
    return f"{hint} Known: {listed(names) or 'none'}"


def shown(path: Path) -> str:
    """`path` relative to the current folder where it lies inside it, else absolute; printable, `/` between parts."""
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute)
    except ValueError:  # another drive
        relative = os.pardir
    return printable(Path(absolute if relative.startswith(os.pardir) else relative).as_posix())


def problem(where: str, line: int, what: str) -> Problem:
    """A `Problem` at `where:line` that is sure to print as one line."""
    return Problem(f"{where}:{line}", printable(what))
