"""The arena's one scorer, the same for every system, whatever its reply looks like.

A reply names the label that stands first in it as whole words, in any case, with underscores and spaces taken as equal;
of labels that begin at the same place the longest counts. What names no label is wrong. Of a number the last one in the
reply counts, as reasons come before it. A text must keep every rule of its row. Needs no package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tests.bench.arena.ifeval.metric import broken

Answers = Literal["label", "number", "rules"]
NEAR = 0.005
"""How far a number may be from the right one."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Says which replies are right. `labels`: all that there are, where answers are labels. What is right on a row is
    its label, its number as text, or its rules as JSON."""

    answers: Answers
    labels: tuple[str, ...] = ()

    def hit(self, reply: str, right: str) -> bool:
        if self.answers == "label":
            return named(reply, self.labels) == right
        if self.answers == "number":
            found = last_number(reply)
            return found is not None and abs(found - float(right)) <= NEAR
        return not broken(reply, right)

    def marks(self, replies: Sequence[str], right: Sequence[str]) -> str:
        """One character a row: 1 for a hit, 0 for a miss."""
        return "".join("01"[self.hit(reply, wanted)] for reply, wanted in zip(replies, right, strict=True))

    def why(self, reply: str, right: str) -> str:
        """What a proposer is told of a wrong reply."""
        if self.answers == "rules":
            return f"The answer breaks: {'; '.join(broken(reply, right))}."
        return f"The answer was {reply!r}. The right {self.answers} is {right!r}."


def last_number(reply: str) -> float | None:
    """The last number in a reply; commas between thousands are left out."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", reply)
    return float(found[-1].replace(",", "")) if found else None


def named(reply: str, labels: Sequence[str]) -> str:
    """The label that `reply` names, or "" when it names none."""
    found = _pattern(tuple(labels)).search(_plain(reply))
    return "" if found is None else _by_plain(tuple(labels))[found.group(0)]


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text).casefold().strip()


@lru_cache(maxsize=64)
def _by_plain(labels: tuple[str, ...]) -> dict[str, str]:
    return {_plain(label): label for label in labels}


@lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(_by_plain(labels), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
