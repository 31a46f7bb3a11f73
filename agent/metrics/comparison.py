"""What checks share: how values are compared, and how they are shown in a reason. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.shipped import composed
from agent.worker import Verdict

Check = Callable[[Any, Any], Verdict]
"""(predicted, label) -> value in [0, 1] (None: cannot be scored) and reason."""


def short(value: Any, limit: int = 120) -> str:
    """`value` as one line of at most `limit` characters.

    >>> short({"team": "billing"}, limit=12)
    '{"team": "b…'
    """
    text = " ".join(as_text(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def golds(label: Any) -> list[str]:
    """The texts that are right: the items of a list, else the label itself."""
    return [as_text(item) for item in label] if isinstance(label, list) else [as_text(label)]


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def exact(text: str) -> str:
    """`text` without blanks around it, in composed letters."""
    return composed(text).strip()


def f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two multisets, in [0, 1]; two empty ones agree.

    >>> f1(["a", "a", "b"], ["a", "b"])
    0.8
    """
    if not got and not wanted:
        return 1.0
    common = (Counter(got) & Counter(wanted)).total()
    return 2 * common / (len(got) + len(wanted))


def key(value: Any, fold: Callable[[str], str]) -> str:
    """A text that is equal for equal JSON values: strings by `fold`, 1 as 1.0, true not as 1.

    >>> key({"b": 1.0, "a": "X"}, str.lower)
    '{"a": "x", "b": 1}'
    """

    def plain(item: Any) -> Any:
        if isinstance(item, str):
            return fold(item)
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [plain(part) for part in item]
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(plain(value), sort_keys=True, default=str)
