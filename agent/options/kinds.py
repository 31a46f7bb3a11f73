"""Types of options that are more than a word: times, prices, row counts, tags, and repeatable texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from agent.options.option import SEVERAL, TextReading

_MOST_SECONDS = 100 * 86400
_TIME = "write seconds above 0, or a time such as 90s, 5m, 1h30m or 1d, below 100 days"
_PRICE = "write IN,OUT in dollars per million tokens, such as 0.15,0.6"
_ROWS = "write one number, or TRAIN-DEV-TEST such as 100-50-100"
_TAG = "write K=V"


def seconds(value: Any) -> float:
    """Parse a time into seconds above 0 and below 100 days. Raises ValueError.

    >>> seconds(90), seconds("5m"), seconds("1h30m"), seconds("1d")
    (90.0, 300.0, 5400.0, 86400.0)
    """
    total = math.nan
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|([0-9]{1,9}(\.[0-9]{1,9})?\s*[dhms]\s*)+", text):
        units = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([dhms]?)", text)
        total = sum(float(number) * units[unit] for number, unit in parts)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        total = float(value) if abs(value) < _MOST_SECONDS else math.nan
    if not 0 < total < _MOST_SECONDS:
        raise ValueError(_TIME)
    return total


def _time(value: Any) -> float | None:
    return None if value is None else seconds(value)


def _price_text(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _price(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(map(_is_price, value)):
        raise ValueError(_PRICE)
    return (float(value[0]), float(value[1]))


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _rows_text(text: str) -> int | tuple[int, ...]:
    if not re.fullmatch("[0-9]{1,9}(-[0-9]{1,9}-[0-9]{1,9})?", text):
        raise ValueError(_ROWS)
    numbers = tuple(int(part) for part in text.split("-"))
    return numbers[0] if len(numbers) == 1 else numbers


def _rows(value: Any) -> Any:
    numbers = value if isinstance(value, tuple | list) else [value]
    if value is None:
        return None
    if len(numbers) not in (1, 3) or not all(type(each) is int and each > 0 for each in numbers):
        raise ValueError(_ROWS)
    return tuple(numbers) if len(numbers) == 3 else numbers[0]


def _tag_text(text: str) -> Any:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(_TAG)
    return (key, value)


def _tags(value: Any) -> Any:
    if isinstance(value, tuple | list) and all(isinstance(each, tuple) and len(each) == 2 for each in value):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise ValueError("write texts by name")
    if not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise ValueError("write texts as values")
    return dict(value)


def _several(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise ValueError("write a text, or a list of texts")
    return tuple(value)


def _one_or_several(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    texts = _several(value)
    return texts if len(texts) > 1 else next(iter(texts), None)


def _names_text(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _sizes(value: Any) -> Any:
    return value if isinstance(value, str) else ",".join(map(str, value))


def _path_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


Time = Annotated[float | str | None, BeforeValidator(_time), TextReading("TIME", seconds, _TIME)]
"""Seconds, or a text such as 90s, 5m, 1h30m or 1d; seconds once checked."""
Price = Annotated[tuple[float, float] | None, BeforeValidator(_price), TextReading("IN,OUT", _price_text, _PRICE)]
"""US dollars per million tokens in and out."""
Rows = Annotated[int | tuple[int, int, int] | None, BeforeValidator(_rows), TextReading("ROWS", _rows_text, _ROWS)]
"""Most rows of each split, or of train, dev and test."""
Tags = Annotated[Mapping[str, str], BeforeValidator(_tags), TextReading("K=V", _tag_text, _TAG), SEVERAL]
Texts = Annotated[Sequence[str], BeforeValidator(_several), SEVERAL]
Names = Annotated[Sequence[str], BeforeValidator(_several), TextReading("A,B", _names_text, "write names as A,B")]
"""Several comma-separated names."""
Curve = Annotated[str | Sequence[int | str], BeforeValidator(_sizes)]
OneOrTexts = Annotated[str | Sequence[str] | None, BeforeValidator(_one_or_several), SEVERAL]
File = Annotated[Path | None, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
Place = Annotated[str | Path | None, BeforeValidator(_path_text)]
"""A file or folder; a text once checked."""
