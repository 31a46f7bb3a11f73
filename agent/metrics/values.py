"""What checks of values share: their type, how values are compared, and how they are shown in a reason. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.shipped import composed
from agent.types import Task
from agent.worker import Verdict

Check = Callable[[Any, Any], Verdict]
"""(predicted, label) -> value and reason."""


def where(task: Task) -> str:
    return str(Path(task.folder) / "task.toml")


def short(value: Any, limit: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def golds(label: Any) -> list[str]:
    return [as_text(item) for item in label] if isinstance(label, list) else [as_text(label)]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def exact(text: str) -> str:
    return composed(text).strip()


def f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    """Multiset F1; two empty lists agree."""
    if not got and not wanted:
        return 1.0
    common = (Counter(got) & Counter(wanted)).total()
    return 2 * common / (len(got) + len(wanted))


def key(value: Any, fold: Callable[[str], str]) -> str:
    """Text that is equal for equal JSON values: strings folded, 1 the same as 1.0, true not the same as 1."""

    def plain(item: Any) -> Any:
        if isinstance(item, str):
            return fold(item)
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [plain(part) for part in item]
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(plain(value), sort_keys=True, default=str)
