"""What people said of answers: a .jsonl or .csv file, one row for each answer (or pair of answers) and rater.

    item, rater, topic, tone, teaser, rating         an answer rated on a scale
    id, instruction, output_1, output_2, label       a pair: 1, 2 or tie; "2,2,tie" are the votes of three raters

Knows columns and scales, no judge. Rows with the same inputs and answers are the same item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.errors import InputError, ProblemsError
from agent.task.input_files import Rows, read_rows
from agent.task.words import near, problem, quoted, shown
from agent.types import content_id

VOTES = {
    **dict.fromkeys(("1", "a", "first", "output_1"), 1.0),
    **dict.fromkeys(("2", "b", "second", "output_2"), 0.0),
    **dict.fromkeys(("tie", "0", "equal", "both", "neither"), 0.5),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where things stand in a file of ratings. `answers`: one column, or two for pairs. `scale`: lowest and highest
    rating, for single answers. `reference` and `rater` need not be there."""

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    rating: str = "rating"
    rater: str = "rater"
    scale: tuple[float, float] = (1.0, 5.0)
    reference: str = "reference"


@dataclass(frozen=True, slots=True)
class Item:
    """One or two answers to the same inputs with what each rater said: in [0, 1] on the scale, or for a pair 1 (the
    first is better), 0 (the second) or 0.5."""

    id: str
    inputs: Mapping[str, str]
    answers: tuple[str, ...]
    ratings: Mapping[str, float] = field(default_factory=dict)
    reference: str = ""

    @property
    def mean(self) -> float:
        return math.fsum(self.ratings.values()) / len(self.ratings)


def read_ratings_file(path: Path, columns: Columns) -> list[Item]:
    """The items in the order of the file. Raises ProblemsError with every problem at its `file:line`."""
    rows, problems = read_rows(path)
    where = shown(path)
    found: dict[str, Item] = {}
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
        known = found.get(item.id)
        if known and (twice := set(known.ratings) & set(item.ratings)):
            what = f"the rater {quoted(min(twice))} rated this answer before; keep one of the two"
            problems.append(problem(where, line, what))
        ratings = {**(known.ratings if known else {}), **item.ratings}
        reference = item.reference or (known.reference if known else "")
        found[item.id] = Item(item.id, item.inputs, item.answers, ratings, reference)
    if problems:
        raise ProblemsError(tuple(problems))
    return list(found.values())


def _missing(rows: Rows, columns: Columns) -> str:
    have = list(rows[0][1])
    lacking = [name for name in (*columns.inputs, *columns.answers, columns.rating) if name not in have]
    if not lacking:
        return ""
    return f"no column {quoted(lacking[0])}{near(lacking[0], have)}"


def _item(row: Mapping[str, Any], columns: Columns) -> Item:
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
    reference = row.get(columns.reference)
    return Item(
        content_id("item", [inputs, answers]),
        inputs,
        answers,
        dict(zip(raters, votes, strict=True)),
        reference if isinstance(reference, str) else "",
    )


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


def pairs_of(items: Sequence[Item]) -> list[Item]:
    """Pairs of answers to the same inputs, as neighbours in the file; who has the higher mean rating is the better."""
    if not items or len(items[0].answers) == 2:
        return list(items)
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(tuple(item.inputs.values()), []).append(item)
    found = []
    for group in groups.values():
        for one, two in pairwise(group):
            vote = 0.5 if abs(one.mean - two.mean) < 1e-9 else float(one.mean > two.mean)
            answers = (*one.answers, *two.answers)
            name = content_id("item", [dict(one.inputs), answers])
            found.append(Item(name, one.inputs, answers, {"people": vote}, one.reference or two.reference))
    return found


def require(items: Sequence[Item], least: int, path: Path) -> None:
    """Raises InputError when there are too few items to say anything."""
    if len(items) < least:
        raise InputError(f"{shown(path)}:1: {len(items)} items; a judge cannot be measured on fewer than {least}")
