"""The arena's one scorer: which label does a reply name? The same for every system, whatever its reply looks like.

A reply names the label that stands first in it as whole words, in any case, with underscores and spaces taken as equal;
of labels that begin at the same place the longest counts. What names no label is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def named(reply: str, labels: Sequence[str]) -> str:
    """The label that `reply` names, or "" when it names none."""
    found = _pattern(tuple(labels)).search(_plain(reply))
    return "" if found is None else _by_plain(tuple(labels))[found.group(0)]


def hit(reply: str, label: str, labels: Sequence[str]) -> bool:
    return named(reply, labels) == label


def marks(replies: Sequence[str], right: Sequence[str], labels: Sequence[str]) -> str:
    """One character a row: 1 for a hit, 0 for a miss."""
    return "".join("01"[hit(reply, label, labels)] for reply, label in zip(replies, right, strict=True))


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text).casefold().strip()


@lru_cache(maxsize=64)
def _by_plain(labels: tuple[str, ...]) -> dict[str, str]:
    return {_plain(label): label for label in labels}


@lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(_by_plain(labels), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
