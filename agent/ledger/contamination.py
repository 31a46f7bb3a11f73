"""Did anything of the rows that measure a prompt get into a prompt? Pure functions over what a run recorded.

Knows rows and candidates, no SQL and no model. The rows of dev and test are those of the task as it lies in its folder
now; whoever calls makes sure that they are the ones of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.shipped import fold
from agent.types import Example, Task

GRAM = 5  # words in a row that no two people write by chance
HELD_OUT = ("dev", "test")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, whether it holds (None: it could not be looked at), and what was found, a line each."""

    name: str
    ok: bool | None
    found: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, wrong: Sequence[str], note: str = "") -> Check:
        return Check(name, not wrong, tuple(wrong) or ((note,) if note else ()))


def demo_ids(candidates: Sequence[Mapping[str, Any]], held_out: Mapping[str, str]) -> Check:
    """No demo is a row of dev or test. `held_out`: the split of each row's id."""
    wrong = [
        f"{candidate['id']}: demo {demo['position'] + 1} is the {held_out[demo['example_id']]} row {demo['example_id']}"
        for candidate in candidates
        for demo in candidate["demos"]
        if demo["example_id"] in held_out
    ]
    return Check.of("no demo is a dev or test row", wrong)


def demo_texts(candidates: Sequence[Mapping[str, Any]], task: Task) -> Check:
    """No demo says the same as a row of dev or test, under whatever id."""
    rows = {_folded(example.inputs): (split, example.id) for split, example in _held_out(task)}
    wrong = []
    for candidate in candidates:
        for demo in candidate["demos"]:
            if demo["inputs"] and (row := rows.get(_folded(demo["inputs"]))):
                wrong.append(f"{candidate['id']}: demo {demo['position'] + 1} reads like the {row[0]} row {row[1]}")
    return Check.of("no demo reads like a dev or test row", wrong)


def copied_answers(candidates: Sequence[Mapping[str, Any]], task: Task) -> Check:
    """No instruction holds five words in a row of a dev or test row, unless the user's own prompt or train has them."""
    written = [(each["id"], [*_grams(f"{each['role']} {each['instruction']}")]) for each in candidates]
    unknown = {gram for _, grams in written for gram in grams}.difference(_grams(task.instruction))
    unknown.difference_update(gram for example in task.train for text in _texts(example) for gram in _grams(text))
    rows = {
        gram: (split, example.id)
        for split, example in _held_out(task)
        for text in _texts(example)
        for gram in _grams(text)
        if gram in unknown
    }
    wrong = []
    for candidate, grams in written:
        if copied := next((gram for gram in grams if gram in rows), None):
            split, name = rows[copied]
            wrong.append(f"{candidate}: holds {' '.join(copied)!r} of the {split} row {name}")
    return Check.of("no instruction holds words of a dev or test row", wrong)


def _held_out(task: Task) -> Iterator[tuple[str, Example]]:
    for split in HELD_OUT:
        for example in getattr(task, split):
            yield split, example


def _texts(example: Example) -> Iterator[str]:
    yield from example.inputs.values()
    yield from (str(label) for label in example.labels.values())


def _folded(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, fold(str(value))) for name, value in fields.items()))


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return (tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1))
