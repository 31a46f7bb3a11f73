"""Untrusted text made safe to print: control characters escaped, values quoted, near misses named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent.errors import Problem, ProblemsError

SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate, which UTF-8 cannot encode."""


def printable(
    text: str, keep: str = "", mark: Callable[[str], str] = lambda char: char.encode("unicode_escape").decode("ascii")
) -> str:
    """Replace unprintable characters that are not in `keep` (newline, NUL, lone surrogate) by their marks."""
    if text.isprintable() or text.translate(dict.fromkeys(map(ord, keep))).isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else mark(c) for c in text)


def plain(text: str) -> str:
    """Make control and invisible characters of untrusted text visible, such as \\x1b; keep line ends."""
    return printable(text, "\n\t", lambda char: f"\\x{ord(char):02x}")


def whole_characters(text: str) -> str:
    """Replace lone surrogates, which neither UTF-8 nor SQLite accepts, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def quoted(value: Any, limit: int = 80) -> str:
    """Format `value` as Python would, cut to `limit` characters; never raises.

    >>> quoted("ab"), quoted("x" * 99, limit=10)
    ("'ab'", "'xxxxx...'")
    """
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # an integer of many thousand digits, or data nested too deep to print
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def listed(words: Iterable[str], limit: int = 20) -> str:
    """Join as `a, b, c`, and how many more there are beyond `limit`.

    >>> listed("abcd", limit=2)
    'a, b and 2 more'
    """
    names = [printable(str(word)) for word in words]
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun; `many`: an irregular plural.

    >>> counted(1, "row"), counted(1200, "row"), counted(2, "retry", "retries")
    ('1 row', '1,200 rows', '2 retries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the entry of `known` that `word` probably means, or ""."""
    import difflib

    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold()[:200], list(folded), n=1, cutoff=cutoff)
    return folded[close[0]] if close else ""


def near(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown `word`: near miss and known words."""
    names = list(known)
    close = closest(word, names)
    hint = f"; did you mean {quoted(close)}?" if close else "."
    return f"{hint} Known: {listed(names) or 'none'}"


def shown(path: Path) -> str:
    """Format `path` relative to the current folder if inside it, else absolute; printable."""
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute)
    except ValueError:  # another drive
        relative = os.pardir
    return printable(Path(absolute if relative.startswith(os.pardir) else relative).as_posix())


def problem(where: str, line: int, what: str) -> Problem:
    """Make a `Problem` at `where:line` that prints as one line."""
    return Problem(f"{where}:{line}", printable(what))


def refused(where: str, line: int, what: str) -> ProblemsError:
    """Return the error of a file that is not read at all, for one problem."""
    return ProblemsError((problem(where, line, what),))
