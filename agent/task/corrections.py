"""Corrected answers that may become train rows: those that say nothing of dev and test, are new, and hold no secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.shipped import fold
from agent.task.examples import PlacedExample
from agent.task.splits import near_duplicates
from agent.types import Example, SplitName, Task, canonical

HELD_OUT: tuple[SplitName, ...] = ("dev", "test")
IN_TRAIN = "is in train already"
IN_TRAIN_OTHERWISE = "is in train with another answer"
AGAIN = "stands in the log before"
CONTRADICTS = "stands in the log with another answer as well"
SECRET = "holds what looks like a key"


@dataclass(frozen=True, slots=True)
class Corrections:
    """Rows of a log, sorted out.

    Args:
        taken: those that may become train rows, in their order.
        left_out: by reason the lines of the others.
    """

    taken: tuple[PlacedExample, ...]
    left_out: Mapping[str, tuple[int, ...]]


def sorted_out(task: Task, rows: Sequence[PlacedExample], holds_secret: Callable[[str], bool]) -> Corrections:
    """Which corrected answers may be added to the train rows of a task.

    Args:
        task: The task as it is.
        rows: The corrected answers, valid under its signature.
        holds_secret: Whether a text must not be kept.
    """
    held_out = _near_held_out(task, rows)
    train = {_key(row): _labels(row) for row in task.train}
    answers: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        answers.setdefault(_key(row.example), set()).add(_labels(row.example))
    seen: Counter[tuple[str, ...]] = Counter()
    taken: list[PlacedExample] = []
    left_out: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        key = _key(row.example)
        seen[key] += 1
        reason = held_out.get(position, "")
        if not reason and any(map(holds_secret, (*row.example.inputs.values(), _labels(row.example)))):
            reason = SECRET
        if not reason and key in train:
            reason = IN_TRAIN if train[key] == _labels(row.example) else IN_TRAIN_OTHERWISE
        if not reason and len(answers[key]) > 1:
            reason = CONTRADICTS
        if not reason and seen[key] > 1:
            reason = AGAIN
        if reason:
            left_out.setdefault(reason, []).append(row.line)
        else:
            taken.append(row)
    return Corrections(tuple(taken), {reason: tuple(lines) for reason, lines in left_out.items()})


def _near_held_out(task: Task, rows: Sequence[PlacedExample]) -> dict[int, str]:
    """By position the reason of rows that are equal or near to rows of dev or test, also by a chain of others."""
    splits = {"dev": task.dev, "test": task.test}
    kept = [name for name in HELD_OUT for _ in splits[name]]
    texts = [_text(row) for name in HELD_OUT for row in splits[name]] + [_text(row.example) for row in rows]
    found: dict[int, str] = {}
    for group in near_duplicates(texts):
        near = sorted({kept[position] for position in group if position < len(kept)})
        if near:
            reason = f"is equal or near to a row of {' and '.join(near)}"
            found |= {position - len(kept): reason for position in group if position >= len(kept)}
    return found


def _text(row: Example) -> str:
    return "\n".join(row.inputs.values())


def _key(row: Example) -> tuple[str, ...]:
    return tuple(fold(text) for text in row.inputs.values())


def _labels(row: Example) -> str:
    return canonical(dict(row.labels))
