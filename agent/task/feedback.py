"""What people said of an answer: numbers, words and truth values, and whether they say that it is right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GOOD = {"correct", "good", "yes", "true", "up", "thumbs_up", "thumbsup", "positive", "like", "pass", "passed", "accept"}
"""Words that say that an answer is right."""
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")

Scales = Mapping[str, float]
"""The highest number of each name that has numbers above 1 in a file, such as stars."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What people said of an answer: what was judged, and a number, a truth value, a text or None."""

    name: str
    value: bool | float | str | None


def said_in(name: str, said: Any) -> Iterator[Feedback]:
    """Yield the parts of a feedback: each of a list, the value of an object, or each of its keys.

    >>> [(one.name, one.value) for one in said_in("scores", [{"name": "ok", "value": 1}, {"stars": ["4", 5]}])]
    [('ok', 1), ('stars', 4.0), ('stars', 5)]
    """
    if isinstance(said, Mapping) and {"value", "stringValue"} & {*said}:
        text = said.get("stringValue")  # says what the number means
        value = text if isinstance(text, str) and text.strip() else said.get("value")
        yield from said_in(str(said.get("name") or name), value)
    elif isinstance(said, Mapping | list) and said:
        parts = said.items() if isinstance(said, Mapping) else ((name, part) for part in said)
        for own, part in parts:
            yield from said_in(str(own), part)
    elif isinstance(said, str):
        text = said.strip()
        yield Feedback(name, float(text) if _NUMBER.fullmatch(text) else text)
    else:
        yield Feedback(name, said if isinstance(said, bool | int | float) else None)


def scales_of(feedback: Iterable[Feedback]) -> Scales:
    """Return the scales of a file by all feedback in it.

    >>> scales_of([Feedback("stars", 1), Feedback("stars", 5), Feedback("ok", 1)])
    {'stars': 5}
    """
    highest: dict[str, float] = {}
    for each in feedback:
        if isinstance(each.value, int | float) and each.value > 1:  # true is not
            highest[each.name] = max(each.value, highest.get(each.name, each.value))
    return highest


def is_right(feedback: Iterable[Feedback], scales: Scales) -> bool:
    """Whether something was said, and all of it says that the answer is right: a word such as `correct`, true, or 1; of
    a name with a scale its highest number instead of 1.

    >>> star = [Feedback("stars", 1)]
    >>> is_right(star, {}), is_right(star, {"stars": 5}), is_right([], {})
    (True, False, False)
    """

    def is_good(said: Feedback) -> bool:
        if isinstance(said.value, str):
            return said.value.lower().replace(" ", "_") in GOOD
        return said.value is True or (type(said.value) is not bool and said.value == scales.get(said.name, 1))

    said = list(feedback)
    return bool(said) and all(map(is_good, said))
