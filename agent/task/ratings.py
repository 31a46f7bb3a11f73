"""People's ratings of answers: a .jsonl or .csv file, one row for each answer (or pair of answers) and rater.

    item, rater, topic, tone, teaser, rating         an answer rated on a scale
    id, instruction, output_1, output_2, label       a pair: 1, 2 or tie; "2,2,tie" are the votes of three raters

Rows with the same inputs and answers are the same item. Knows columns and scales, no judge.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import InputError, ProblemsError
from agent.task.input_files import Rows, read_rows
from agent.task.words import near, problem, quoted, shown
from agent.types import content_id

VOTES = {
    **dict.fromkeys(("1", "a", "first", "output_1"), 1.0),
    **dict.fromkeys(("2", "b", "second", "output_2"), 0.0),
    **dict.fromkeys(("tie", "0", "equal", "both", "neither"), 0.5),
}


PASSAGES = "passages"
"""The column of the passages that the prompt showed, where a judge goes by them."""


@dataclass(frozen=True, slots=True)
class RatingColumns:
    """The columns of a file of ratings. `answers`: one column, or two for pairs. `scale`: lowest and highest rating of
    a single answer. `reference`, `passages` and `rater` may be missing."""

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    rating: str = "rating"
    rater: str = "rater"
    scale: tuple[float, float] = (1.0, 5.0)
    reference: str = "reference"
    passages: str = ""


@dataclass(frozen=True, slots=True)
class RatedItem:
    """One or two answers to the same inputs. `ratings` by rater: in [0, 1] on the scale, or for a pair 1 (the first is
    better), 0 (the second) or 0.5. `passages`: those that the prompt showed, "" for none."""

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
    """The items in the order of the file. Raises ProblemsError with every problem at its `file:line`."""
    rows, problems = read_rows(path)
    where = shown(path)
    items: dict[str, RatedItem] = {}
    if not rows and not problems:
        problems = [problem(where, 1, "no rows; write one for each answer and rater")]
    if rows and (missing := _missing(rows, columns)):
        raise ProblemsError((problem(where, rows[0][0], missing),))
    for line, row in rows:
        try:
            item = _item(row, columns)
        except ValueError as error:
            problems.append(problem(where, line, str(error)))
            continue
        known = items.get(item.id)
        if known and (twice := set(known.ratings) & set(item.ratings)):
            what = f"the rater {quoted(min(twice))} rated this answer before; keep one of the two"
            problems.append(problem(where, line, what))
        ratings = {**(known.ratings if known else {}), **item.ratings}
        reference = item.reference or (known.reference if known else "")
        items[item.id] = replace(item, ratings=ratings, reference=reference)
    if problems:
        raise ProblemsError(tuple(problems))
    return list(items.values())


def _missing(rows: Rows, columns: RatingColumns) -> str:
    have = list(rows[0][1])
    lacking = [name for name in (*columns.inputs, *columns.answers, columns.rating) if name not in have]
    if not lacking:
        return ""
    return f"no column {quoted(lacking[0])}{near(lacking[0], have)}"


def _item(row: Mapping[str, Any], columns: RatingColumns) -> RatedItem:
    inputs = {name: _text(row, name) for name in columns.inputs}
    answers = tuple(_text(row, name) for name in columns.answers)
    given, is_pair = row.get(columns.rating), len(answers) == 2
    named = "" if row.get(columns.rater) is None else str(row[columns.rater])
    raters = [name.strip() for name in (named.split(",") if is_pair else [named]) if name.strip()]
    votes = [_vote(word) for word in str(given).split(",")] if is_pair else [_rating(given, columns.scale)]
    if not raters:
        raters = [str(number) for number in range(1, len(votes) + 1)]
    if len(raters) != len(votes) or len(set(raters)) != len(raters):
        raise ValueError(
            f"{len(votes)} vote{'s' * (len(votes) != 1)} and the raters {quoted(named)}; name each rater once, or none"
        )
    reference, passages = (
        value if isinstance(value := row.get(name), str) else "" for name in (columns.reference, columns.passages)
    )
    same = [inputs, answers, passages] if passages else [inputs, answers]
    ratings = dict(zip(raters, votes, strict=True))
    return RatedItem(content_id("item", same), inputs, answers, ratings, reference, passages)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: {quoted(value)} is not a text; put it in quotes")
    return value


def _vote(word: str) -> float:
    vote = VOTES.get(word.strip().casefold())
    if vote is None:
        raise ValueError(f"{quoted(word.strip())} is no vote; write 1, 2 or tie")
    return vote


def _rating(value: Any, scale: tuple[float, float]) -> float:
    low, high = scale
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"rating {quoted(value)} is not a number from {low:g} to {high:g}; correct it or give --scale")
    return (number - low) / (high - low)


def pairs_of(items: Sequence[RatedItem]) -> list[RatedItem]:
    """Pairs of neighbouring answers to the same inputs; the one with the higher mean rating is the better."""
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
    """Raises InputError when there are fewer than `least` items."""
    if len(items) < least:
        raise InputError(f"{shown(path)}:1: {len(items)} items; a judge cannot be measured on fewer than {least}")


# -- a file of ratings that grows -------------------------------------------------------------------------------------

_NEEDED = ("item", "rater", "rating")


class RatedFile:
    """A .jsonl file of ratings that grows: for its owner only, and on the disk after each rating, so that raters can
    stop at any time. Raises ProblemsError when it holds something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() != ".jsonl":
            raise ProblemsError((problem(shown(path), 1, "ratings are written as JSON lines; name a .jsonl file"),))
        rows, problems = read_rows(path) if os.path.exists(path) else ([], [])
        for line, row in rows:
            if lacking := [name for name in _NEEDED if name not in row]:
                problems.append(problem(shown(path), line, f"no {lacking[0]}: this is no file of ratings"))
            elif isinstance(row["rating"], bool) or not isinstance(row["rating"], int | float):
                problems.append(problem(shown(path), line, f"the rating {row['rating']!r:.40} is not a number"))
        if problems:
            raise ProblemsError(tuple(problems))
        self.rows = [row for _, row in rows]

    def done(self, rater: str) -> set[str]:
        """The items that this rater has rated."""
        return {str(row["item"]) for row in self.rows if str(row["rater"]) == _plain(rater)}

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a rating; it is on the disk when this returns."""
        row = {name: _plain(value) if isinstance(value, str) else value for name, value in row.items()}
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self.path.open("a+b") as file:
                if file.tell() and not _ends_whole(file):
                    text = b"\n" + text
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); name another with -o") from error
        self.rows.append(row)


def _ends_whole(file: BinaryIO) -> bool:
    """Whether the last line has its line end."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _plain(text: str) -> str:
    """Without lone surrogates and NUL, which a file of rows may not hold."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
