"""What people said of an answer, of each form in which files hold it, and whether it says that the answer is right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KEYS = ("score", "scores", "feedback", "rating", "correct")
"""Keys of a record that hold what people said of its answer."""
GOOD = {"correct", "good", "yes", "true", "up", "thumbs_up", "thumbsup", "positive", "like", "pass", "passed", "accept"}
"""Words that say that an answer is right."""
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")

Scales = Mapping[str, float]
"""The highest number of each name that has numbers above 1 in a file, such as stars."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that was said: the `name` of what was judged, such as `correct`, and a number, a truth value or a text;
    None where nothing of these was said."""

    name: str
    value: bool | float | str | None


def feedback_of(record: Mapping[str, Any]) -> tuple[Feedback, ...]:
    """All that a record holds of it."""
    said = [(key, record[key]) for key in KEYS if record.get(key) not in (None, "", [], {})]
    return tuple(each for key, value in said for each in said_in(key, value))


def said_in(name: str, said: Any) -> Iterator[Feedback]:
    """The parts of a feedback: of a list each, of an object its value, or each of its keys.

    >>> [(one.name, one.value) for one in said_in("scores", [{"name": "ok", "value": 1}, {"stars": ["4", 5]}])]
    [('ok', 1), ('stars', 4.0), ('stars', 5)]
    """
    if isinstance(said, Mapping):
        if {"value", "stringValue"} & {*said}:
            yield from said_in(str(said.get("name") or name), _value_of(said))
            return
        parts = list(said.items())
    elif isinstance(said, list):
        parts = [(name, part) for part in said]
    else:
        yield Feedback(name, _plain(said))
        return
    if not parts:
        yield Feedback(name, None)
    for own, part in parts:
        yield from said_in(str(own), part)


def _value_of(score: Mapping[str, Any]) -> Any:
    """The text of a score, which says what its number means, else the number."""
    text = score.get("stringValue")
    return text if isinstance(text, str) and text.strip() else score.get("value")


def _plain(said: Any) -> bool | float | str | None:
    """A number that was written as a text is one."""
    if isinstance(said, str):
        return float(said) if _NUMBER.fullmatch(said := said.strip()) else said
    return said if isinstance(said, bool | int | float) else None


def scales_of(feedback: Iterable[Feedback]) -> Scales:
    """The scales of a file by all feedback in it.

    >>> scales_of([Feedback("stars", 1), Feedback("stars", 5), Feedback("ok", 1)])
    {'stars': 5}
    """
    highest: dict[str, float] = {}
    for each in feedback:
        if isinstance(each.value, int | float) and not isinstance(each.value, bool) and each.value > 1:
            highest[each.name] = max(each.value, highest.get(each.name, each.value))
    return highest


def is_right(feedback: Iterable[Feedback], scales: Scales) -> bool:
    """Whether all that was said, and something was, says that the answer is right: a word such as `correct`, true, or
    1; of a name with a scale its highest number instead of 1.

    >>> star = [Feedback("stars", 1)]
    >>> is_right(star, {}), is_right(star, {"stars": 5}), is_right([], {})
    (True, False, False)
    """
    said = list(feedback)
    return bool(said) and all(_is_good(each, scales) for each in said)


def _is_good(said: Feedback, scales: Scales) -> bool:
    if isinstance(said.value, str):
        return said.value.lower().replace(" ", "_") in GOOD
    if isinstance(said.value, bool) or said.value is None:
        return said.value is True
    return said.value == scales.get(said.name, 1)
