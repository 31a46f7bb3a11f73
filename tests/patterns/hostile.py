"""Make texts that a regular expression is slow on: what it takes, repeated, with an end that it does not take."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

TAILS = ("", "\x00", "\n!")
_CATEGORY = {
    kinds.CATEGORY_DIGIT: "7",
    kinds.CATEGORY_NOT_DIGIT: "a",
    kinds.CATEGORY_SPACE: " ",
    kinds.CATEGORY_NOT_SPACE: "a",
    kinds.CATEGORY_WORD: "a",
    kinds.CATEGORY_NOT_WORD: "-",
}
_CLASS = {
    kinds.CATEGORY_DIGIT: r"\d",
    kinds.CATEGORY_NOT_DIGIT: r"\D",
    kinds.CATEGORY_SPACE: r"\s",
    kinds.CATEGORY_NOT_SPACE: r"\S",
    kinds.CATEGORY_WORD: r"\w",
    kinds.CATEGORY_NOT_WORD: r"\W",
}
_OTHERS = "a7 \n-\"'.{<|"


def hostile(source: str, flags: int, size: int) -> Iterator[str]:
    """Texts of `size` characters: pieces of texts that match, pumped up."""
    tree = parser.parse(source, flags)
    draw = random.Random(0)
    seeds = dict.fromkeys(_match(tree, draw, longest) for longest in (0, 1, 2, 2, 2, 2))
    letters = {letter for seed in seeds for letter in seed}
    made: dict[tuple[str, str, str], None] = {}
    for letter in sorted(letters | set(" a7\n")):
        made.update(dict.fromkeys(("", letter, tail) for tail in TAILS))
    for seed in seeds:
        whole = seed[:40]
        for end in {len(whole), max(len(whole) - 1, 1), max(len(whole) // 2, 1)}:
            made.update(dict.fromkeys(("", whole[:end], tail) for tail in TAILS[:2]))
        for at, letter in enumerate(whole):
            made[(whole[:at], letter, "\x00")] = None
            made[(whole[:at], whole[at : at + 2], "\x00")] = None
    for head, body, tail in made:
        if body:
            yield head + (body * (size // len(body))) + tail


def _match(tree: Any, draw: random.Random, longest: int) -> str:
    """Make a text that the pattern takes, with repeats at most `longest` above their least."""
    return "".join(_one(kind, value, draw, longest) for kind, value in tree)


def _one(kind: Any, value: Any, draw: random.Random, longest: int) -> str:
    if kind is kinds.LITERAL:
        return chr(value)
    if kind is kinds.NOT_LITERAL:
        return next(letter for letter in _OTHERS if ord(letter) != value)
    if kind is kinds.ANY:
        return draw.choice("a 7")
    if kind is kinds.IN:
        return _of_set(value, draw)
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
        least, most, inner = value
        count = min(least + draw.randint(0, longest), int(most))
        return "".join(_match(inner, draw, longest) for _ in range(max(count, min(1, int(most), longest))))
    if kind is kinds.SUBPATTERN:
        return _match(value[3], draw, longest)
    if kind is kinds.BRANCH:
        return _match(draw.choice(value[1]), draw, longest)
    if kind is kinds.ATOMIC_GROUP:
        return _match(value, draw, longest)
    if kind is kinds.ASSERT and value[0] < 0:
        return _match(value[1], draw, longest)
    return ""


def _of_set(items: Any, draw: random.Random) -> str:
    if items[0][0] is kinds.NEGATE:
        return draw.choice([letter for letter in _OTHERS if not any(_holds(each, letter) for each in items)] or ["é"])
    kind, value = draw.choice(items)
    if kind is kinds.RANGE:
        return chr(draw.choice(value))
    return chr(value) if kind is kinds.LITERAL else _CATEGORY[value]


def _holds(item: Any, letter: str) -> bool:
    kind, value = item
    if kind is kinds.RANGE:
        return bool(value[0] <= ord(letter) <= value[1])
    if kind is kinds.CATEGORY:
        return re.fullmatch(_CLASS[value], letter) is not None
    return kind is kinds.LITERAL and bool(value == ord(letter))
