"""A rubric as people write it: Markdown with a section per criterion and a list line per level. Knows no model.

    # Title
    What the judge should keep in mind.
    ## hook (weight 2)
    Does it make one want to listen?
    - 1: no reason to
    - 5: you would press play

Without sections the whole text is one criterion, `quality`, rated from 1 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.errors import Problem
from agent.task.words import problem, quoted
from agent.types import Criterion, Rubric

MOST_CRITERIA = 12
MOST_CHARACTERS = 20_000
_HEADING = re.compile(r"##(?!#)(.*)")
_NAMED = re.compile(r"([a-z][a-z0-9_]{0,39})(?: ?\(weight ([0-9]{1,6}(?:\.[0-9]+)?)\))?")
_LEVEL = re.compile(r"[-*] +([0-9]{1,3}) ?:(.+)")


def read_rubric(text: str, where: str) -> tuple[Rubric | None, list[Problem]]:
    """The rubric in `text`, or None with every problem at its `file:line`."""
    reading = _Reading(where)
    if not text.strip():
        reading.refuse(1, "the rubric is empty; write what makes an answer good")
    if len(text) > MOST_CHARACTERS:
        reading.refuse(1, f"{len(text)} characters; a rubric goes out with every call, so keep to {MOST_CHARACTERS}")
        return None, reading.problems
    for number, line in enumerate(text.split("\n"), 1):
        reading.line(number, line.strip())
    reading.end()
    if reading.problems:
        return None, reading.problems
    return Rubric(text.strip(), tuple(reading.criteria) or (Criterion("quality", 1.0, ""),), *reading.scale), []


class _Reading:
    """The criteria found so far, and the one that is open."""

    def __init__(self, where: str) -> None:
        self.problems: list[Problem] = []
        self.criteria: list[Criterion] = []
        self.scale = (1, 5)
        self._first: tuple[int, int] | None = None  # the scale of the first criterion with good levels
        self._where = where
        self._at = 0
        self._name, self._weight = "", 1.0
        self._about: list[str] = []
        self._levels: list[tuple[int, str]] = []

    def refuse(self, line: int, what: str) -> None:
        self.problems.append(problem(self._where, line, what))

    def line(self, number: int, line: str) -> None:
        if heading := _HEADING.fullmatch(line):
            self.end()
            self._open(number, " ".join(heading[1].split()))
        elif self._at and (level := _LEVEL.fullmatch(line)):
            self._levels.append((int(level[1]), level[2].strip()))
        elif self._at and line:
            self._about.append(line)

    def _open(self, number: int, heading: str) -> None:
        self._at, self._about, self._levels = number, [], []
        named = _NAMED.fullmatch(heading)
        if named is None:
            what = f"the heading {quoted(heading)} is no criterion; write ## name (weight 2), the name in lower case"
            self.refuse(number, what)
        self._name, self._weight = (named[1], float(named[2] or 1)) if named else ("", 1.0)
        if named and self._name in {criterion.name for criterion in self.criteria} | {"reason"}:
            self.refuse(number, f"the criterion {quoted(self._name)} cannot be used twice, nor be called reason")
        if not self._weight > 0:
            self.refuse(number, f"the criterion {quoted(self._name)} has weight 0; remove it or give it a weight")
        if len(self.criteria) == MOST_CRITERIA:
            self.refuse(number, f"more than {MOST_CRITERIA} criteria; a judge loses track, so join some")

    def end(self) -> None:
        """Closes the open criterion. All have the same scale: that of the first with levels."""
        if not self._at:
            return
        ratings = [rating for rating, _ in self._levels]
        first = self._first
        if ratings and (len(ratings) < 2 or ratings != sorted(set(ratings))):
            self.refuse(self._at, f"the levels of {quoted(self._name)} must rise, two or more: - 1: ... to - 5: ...")
        elif ratings and first and (ratings[0], ratings[-1]) != first:
            what = f"the levels of {quoted(self._name)} go from {ratings[0]} to {ratings[-1]}, those before from"
            self.refuse(self._at, f"{what} {first[0]} to {first[1]}; use one scale")
        elif ratings:
            self._first = self.scale = (ratings[0], ratings[-1])
        self.criteria.append(Criterion(self._name, self._weight, " ".join(self._about), tuple(self._levels)))
        self._at = 0


def generic_rubric(names: Sequence[str] = ("quality",), low: int = 1, high: int = 5) -> Rubric:
    """The rubric of a judge where there is none: each criterion of `names`, rated from `low` to `high`."""
    text = (
        "# Quality\n\nRate how well the answer does what its inputs ask for: right, complete, clear, and no more than "
        f"was asked for. {low} is useless, {high} could not be better."
    )
    return Rubric(text, tuple(Criterion(name, 1.0, "") for name in names), low, high)
