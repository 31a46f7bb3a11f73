"""The files of a judge: its rubric, and human ratings to calibrate it with.

A rubric is Markdown with a section per criterion and a list item per level; without sections the whole text is one
criterion, `quality`, rated from 1 to 5:

    # Title
    What the judge should keep in mind.
    ## hook (weight 2)
    Does it make one want to listen?
    - 1: no reason to
    - 5: you would press play

Ratings are a .jsonl or .csv file, one row for each answer (or pair of answers) and rater:

    item, rater, topic, tone, teaser, rating         an answer rated on a scale
    id, instruction, output_1, output_2, label       a pair: 1, 2 or tie; "2,2,tie" are the votes of three raters

Rows with the same inputs and answers are the same item.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.safe_file import OutsideFile, append_line, disk_errors
from agent.safe_text import counted, near, quoted, refused, shown, whole_characters
from agent.task.tables import DataFile
from agent.types import Criterion, Rubric, content_id

VOTES = {
    **dict.fromkeys(("1", "a", "first", "output_1"), 1.0),
    **dict.fromkeys(("2", "b", "second", "output_2"), 0.0),
    **dict.fromkeys(("tie", "0", "equal", "both", "neither"), 0.5),
}


RATING, VERDICT = "rating", "verdict"  # the output of a tuned judge: of single answers, and of pairs
VERDICTS = {name: VOTES[name] for name in ("2", "tie", "1")}  # its words for pairs, by the value of the first answer
PASSAGES = "passages"
"""The column of the passages that the prompt showed, for a judge of faithfulness."""


@dataclass(frozen=True, slots=True)
class RatingColumns:
    """The columns of a file of ratings: one column of answers, or two for pairs."""

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    rating: str = "rating"
    rater: str = "rater"
    scale: tuple[float, float] = (1.0, 5.0)
    reference: str = "reference"
    passages: str = ""


@dataclass(frozen=True, slots=True)
class RatedItem:
    """One or two answers to the same inputs, with ratings in [0, 1] by rater.

    Of a pair, 1 means that the first answer is better.
    """

    id: str
    inputs: Mapping[str, str]
    answers: tuple[str, ...]
    ratings: Mapping[str, float] = field(default_factory=dict)
    reference: str = ""
    passages: str = ""

    @property
    def mean(self) -> float:
        return math.fsum(self.ratings.values()) / len(self.ratings)


def read_ratings_file(path: Path, columns: RatingColumns) -> list[RatedItem]:
    """Read the rated items in file order. Raises ProblemsError."""
    file, items = DataFile(path), dict[str, RatedItem]()
    if not file.rows and not file.problems:
        file.note(1, "no rows; write one for each answer and rater")
    have = list(file.rows[0][1]) if file.rows else []
    needed = (*columns.inputs, *columns.answers, columns.rating)
    if file.rows and (lacking := [name for name in needed if name not in have]):
        raise file.refusal(file.rows[0][0], f"no column {quoted(lacking[0])}{near(lacking[0], have)}")
    for line, row in file.rows:
        with file.at(line):
            item = _item(row, columns)
            known = items.get(item.id, item)
            if known is not item and (twice := set(known.ratings) & set(item.ratings)):
                file.note(line, f"the rater {quoted(min(twice))} rated this answer before; keep one of the two")
            ratings, reference = {**known.ratings, **item.ratings}, item.reference or known.reference
            items[item.id] = replace(item, ratings=ratings, reference=reference)
    file.refuse_all()
    return list(items.values())


def _item(row: Mapping[str, Any], columns: RatingColumns) -> RatedItem:
    for name in (*columns.inputs, *columns.answers):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name}: {quoted(row.get(name))} is not a text; put it in quotes")
    inputs = {name: row[name] for name in columns.inputs}
    answers = tuple(row[name] for name in columns.answers)
    given, rater = row.get(columns.rating), row.get(columns.rater)
    named = "" if rater is None else str(rater)
    if len(answers) == 2:
        words = [word.strip().casefold() for word in str(given).split(",")]
        if wrong := [word for word in words if word not in VOTES]:
            raise ValueError(f"{quoted(wrong[0])} is no vote; write 1, 2 or tie")
        votes, names = [VOTES[word] for word in words], named.split(",")
    else:
        votes, names = [_rating(given, columns.scale)], [named]
    raters = [name.strip() for name in names if name.strip()] or [str(at) for at in range(1, len(votes) + 1)]
    if len(raters) != len(votes) or len(set(raters)) != len(raters):
        raise ValueError(f"{counted(len(votes), 'vote')} and the raters {quoted(named)}; name each once, or none")
    shown = [row.get(name) for name in (columns.reference, columns.passages)]
    reference, passages = (value if isinstance(value, str) else "" for value in shown)
    same = [inputs, answers, passages] if passages else [inputs, answers]
    ratings = dict(zip(raters, votes, strict=True))
    return RatedItem(content_id("item", same), inputs, answers, ratings, reference, passages)


def _rating(value: Any, scale: tuple[float, float]) -> float:
    low, high = scale
    with suppress(TypeError, ValueError):
        if not isinstance(value, bool) and low <= float(value) <= high:
            return (float(value) - low) / (high - low)
    raise ValueError(f"rating {quoted(value)} is not a number from {low:g} to {high:g}; correct it or give --scale")


def pairs_of(items: Sequence[RatedItem]) -> list[RatedItem]:
    """Pair neighbouring answers to the same inputs; the higher mean rating wins."""
    if not items or len(items[0].answers) == 2:
        return list(items)
    groups: dict[tuple[str, ...], list[RatedItem]] = {}
    for item in items:
        groups.setdefault(tuple(item.inputs.values()), []).append(item)
    found = []
    for group in groups.values():
        for one, two in pairwise(group):
            vote = 0.5 if abs(one.mean - two.mean) < 1e-9 else float(one.mean > two.mean)
            answers = (*one.answers, *two.answers)
            name = content_id("item", [dict(one.inputs), answers])
            found.append(RatedItem(name, one.inputs, answers, {"people": vote}, one.reference or two.reference))
    return found


def require(items: Sequence[RatedItem], least: int, path: Path) -> None:
    if len(items) < least:
        raise InputError(f"{shown(path)}:1: {len(items)} items; a judge cannot be measured on fewer than {least}")


# -- a file of ratings that grows --------------------------------------------------------------------------------------


class RatedFile:
    """An append-only .jsonl file of ratings. Raises ProblemsError for other content."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()
        if path.suffix.lower() != ".jsonl":
            raise refused(shown(path), 1, "ratings are written as JSON lines; name a .jsonl file")
        if not os.path.exists(path):
            return
        file = DataFile(path)
        for line, row in file.rows:
            if lacking := [name for name in ("item", "rater", "rating") if name not in row]:
                file.note(line, f"no {lacking[0]}: this is no file of ratings")
            elif isinstance(row["rating"], bool) or not isinstance(row["rating"], int | float):
                file.note(line, f"the rating {row['rating']!r:.40} is not a number")
        file.refuse_all()
        self.rows = [row for _, row in file.rows]

    def done(self, rater: str) -> set[str]:
        return {str(row["item"]) for row in self.rows if str(row["rater"]) == _plain(rater)}

    def add(self, row: Mapping[str, Any]) -> None:
        row = {name: _plain(value) if isinstance(value, str) else value for name, value in row.items()}
        with disk_errors(f"{self.path}: cannot be written", "name another with -o", InputError):
            append_line(self.path, json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self.rows.append(row)


def _plain(text: str) -> str:
    return whole_characters(text).replace("\0", "\ufffd")


# -- the rubric --------------------------------------------------------------------------------------------------------


MOST_CRITERIA = 12
MOST_CHARACTERS = 20_000
_HEADING = re.compile(r"##(?!#)(.*)")
_NAMED = re.compile(r"([a-z][a-z0-9_]{0,39})(?: ?\(weight ([0-9]{1,6}(?:\.[0-9]+)?)\))?")
_LEVEL = re.compile(r"[-*] +([0-9]{1,3}) ?:(.+)")


def read_rubric(text: str, where: str) -> Rubric:
    """Parse a rubric. Raises ProblemsError."""
    if len(text) > MOST_CHARACTERS:
        raise refused(where, 1, f"{len(text)} characters; keep to {MOST_CHARACTERS}, as every call sends the rubric")
    file = OutsideFile(Path(where))
    refuse, criteria = file.note, list[Criterion]()
    scale: tuple[int, int] | None = None  # of the first criterion with valid levels; all must share it
    if not text.strip():
        refuse(1, "the rubric is empty; write what makes an answer good")
    lines = [line.strip() for line in text.split("\n")]
    headings = [
        (at, " ".join(found[1].split())) for at, line in enumerate(lines, 1) if (found := _HEADING.fullmatch(line))
    ]
    for (at, heading), (end, _) in pairwise([*headings, (len(lines) + 1, "")]):
        if (named := _NAMED.fullmatch(heading)) is None:
            refuse(at, f"the heading {quoted(heading)} is no criterion; write ## name (weight 2), in lower case")
        name, weight = (named[1], float(named[2] or 1)) if named else ("", 1.0)
        if named and name in {criterion.name for criterion in criteria} | {"reason"}:
            refuse(at, f"the criterion {quoted(name)} cannot be used twice, nor be called reason")
        if not weight > 0:
            refuse(at, f"the criterion {quoted(name)} has weight 0; remove it or give it a weight")
        if len(criteria) == MOST_CRITERIA:
            refuse(at, f"more than {MOST_CRITERIA} criteria; a judge loses track, so join some")
        below = [(line, _LEVEL.fullmatch(line)) for line in lines[at : end - 1] if line]
        levels = tuple((int(level[1]), level[2].strip()) for _, level in below if level)
        ratings = [rating for rating, _ in levels]
        if ratings and (len(ratings) < 2 or ratings != sorted(set(ratings))):
            refuse(at, f"the levels of {quoted(name)} must rise, two or more: - 1: ... to - 5: ...")
        elif ratings and scale and (ratings[0], ratings[-1]) != scale:
            refuse(at, f"the levels of {quoted(name)} are not {scale[0]} to {scale[1]} as before; use one scale")
        elif ratings:
            scale = ratings[0], ratings[-1]
        criteria.append(Criterion(name, weight, " ".join(line for line, level in below if not level), levels))
    file.refuse_all()
    return Rubric(text.strip(), tuple(criteria) or (Criterion("quality", 1.0, ""),), *(scale or (1, 5)))


def generic_rubric(names: Sequence[str] = ("quality",), low: int = 1, high: int = 5) -> Rubric:
    """Make a default rubric with the criteria `names`, rated from `low` to `high`."""
    text = (
        "# Quality\n\nRate how well the answer does what its inputs ask for: right, complete, clear, and no more than "
        f"was asked for. {low} is useless, {high} could not be better."
    )
    return Rubric(text, tuple(Criterion(name, 1.0, "") for name in names), low, high)
