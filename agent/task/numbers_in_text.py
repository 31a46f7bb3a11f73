"""Whether the answers of a table are numbers that stand in its texts, such as the quantities of orders."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.task.examples import parse_number

MOST = 0.6  # share of rows whose number stands in their text, from which answers are read out of it
ABOVE_CHANCE = 0.3  # by how much that share must exceed the one for the numbers of other rows
_NUMBER = re.compile(r"(?<![\w.,])[+-]?\d+(?:[.,]\d+)*")


def rows_with_number(answers: Sequence[str], texts: Sequence[str]) -> int:
    """Count the rows whose text holds the number of their answer.

    Returns 0 unless most rows do, and clearly more than with the answers of other rows.

    >>> rows_with_number(["2", "12", "7 kg"], ["2 boxes", "Send 12, please", "7 of the blue ones"])
    3
    """
    numbers = [_number(answer) for answer in answers]
    if len(answers) != len(texts) or None in numbers or len(set(numbers)) < 3:
        return 0
    found = [_numbers(text) for text in texts]
    own = sum(number in seen for number, seen in zip(numbers, found, strict=True))
    shifts = range(1, min(len(numbers), 20))
    by_chance = sum(
        number in seen
        for shift in shifts
        for number, seen in zip([*numbers[shift:], *numbers[:shift]], found, strict=True)
    ) / len(shifts)
    return own if own >= MOST * len(numbers) and own - by_chance >= ABOVE_CHANCE * len(numbers) else 0


def _number(answer: str) -> float | None:
    from agent.metrics.quantity import quantity_of

    if quantity := quantity_of(answer):
        return quantity[0]
    try:
        return float(parse_number(answer))
    except ValueError:
        return None


def _numbers(text: str) -> set[float]:
    """The numbers in a text; a comma may separate decimals or thousands."""
    found: set[float] = set()
    for written in _NUMBER.findall(text):
        for spelled in (written.replace(",", "."), written.replace(",", "")):
            try:
                found.add(float(parse_number(spelled)))
            except ValueError:
                continue
    return found
