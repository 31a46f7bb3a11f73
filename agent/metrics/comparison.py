"""Comparison of values for metrics, and checks by regular expressions.

These run in a child process, as neither a timeout nor Ctrl-C stops `re` in this one.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent.shipped import composed, fold
from agent.worker import Verdict, Worker

Check = Callable[[Any, Any], Verdict]
"""(predicted, label) -> value in [0, 1] (None: unscored) and reason."""


def short(value: Any, limit: int = 120) -> str:
    """Shorten a value to one line of at most `limit` characters.

    >>> short({"team": "billing"}, limit=12)
    '{"team": "b…'
    """
    text = " ".join(as_text(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def by_label(compare: Callable[[Any, Any], float]) -> Check:
    """Make a check from a comparison in [0, 1]."""

    def check(got: Any, label: Any) -> Verdict:
        value = compare(got, label)
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check


def golds(label: Any) -> list[str]:
    """Return the right texts: the items of a list, else the label itself."""
    return [as_text(item) for item in label] if isinstance(label, list) else [as_text(label)]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def exact(text: str) -> str:
    """Return `text` stripped, in composed letters (NFC)."""
    return composed(text).strip()


def f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    """Compute the F1 of two multisets, in [0, 1]; two empty ones score 1.

    >>> f1(["a", "a", "b"], ["a", "b"])
    0.8
    """
    if not got and not wanted:
        return 1.0
    common = (Counter(got) & Counter(wanted)).total()
    return 2 * common / (len(got) + len(wanted))


def missing_and_extra(got: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """List the differences of two multisets.

    >>> missing_and_extra(["a", "c"], ["a", "b"])
    ['missing: b', 'extra: c']
    """
    mine, right = Counter(got), Counter(wanted)
    parts = (("missing", right - mine), ("extra", mine - right))
    return [f"{word}: {short(', '.join(found.elements()), 200)}" for word, found in parts if found]


def key(value: Any, fold: Callable[[str], str]) -> str:
    """Return a canonical text of a JSON value: 1 equals 1.0 but not true.

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


# -- amounts and labels in a text --------------------------------------------------------------------------------------

_DECIMALS = r"(?:\.[0-9]+|,(?:[0-9]{1,2}|[0-9]{4,})(?![0-9]))?"  # three digits after a comma are thousands
_GROUPED = r"[1-9][0-9]{0,2}(?:[,'’\u00a0\u202f][0-9]{3})+(?![0-9])|[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?=,)"
DIGITS = rf"(?:{_GROUPED}|0,[0-9]+|[0-9]+){_DECIMALS}"
MINUS = r"[-+−]|(?i:minus\s)"
_UNIT = r"(?:[^\W\d_]|[°%‰€$£¥₹'\"′″])\S*(?: [^\W\d_]\S*)?"
_QUANTITY = re.compile(
    rf"(?P<sign>{MINUS}|)\s?(?P<before>[€$£¥₹]|[A-Z]{{3}} )?(?P<number>{DIGITS})\s?(?P<unit>{_UNIT})?"
)


def quantity_of(value: Any) -> tuple[float, str] | None:
    """Parse a number with a unit; None for any other text.

    >>> quantity_of("1,250 kg"), quantity_of("-$3.5"), quantity_of("12"), quantity_of("3,5 h")
    ((1250.0, 'kg'), (-3.5, '$'), None, (3.5, 'h'))
    """
    found = _QUANTITY.fullmatch(as_text(value).strip().rstrip(".,;"))
    if found is None or bool(found["before"]) is bool(found["unit"]) or re.match("0[0-9]", found["number"]):
        return None  # a leading zero means a code
    return number_of(f"{found['sign']}{found['number']}"), (found["before"] or found["unit"]).strip()


def units_in(texts: Iterable[str]) -> dict[str, int]:
    """Count units by their most frequent spelling, most frequent first.

    >>> units_in(["1 kg", "2 Kg", "3 kg", "4 h", "none"])
    {'kg': 3, 'h': 1}
    """
    spelled = Counter(found[1] for text in texts if (found := quantity_of(text)))
    units: dict[str, int] = {}
    written: dict[str, str] = {}
    for unit, count in spelled.most_common():
        name = written.setdefault(fold(unit), unit)
        units[name] = units.get(name, 0) + count
    return dict(sorted(units.items(), key=lambda each: -each[1]))


def number_of(text: str) -> float:
    text = re.sub(r"(?i)−|minus\s", "-", text)
    whole, comma, part = text.rpartition(",")
    if comma and part.isdigit() and (len(part) != 3 or whole.strip("+-") == "0"):  # a decimal comma
        text = f"{whole.replace('.', '')}.{part}"
    return float(re.sub(r"[,'’\u00a0\u202f+]", "", text))


def labels_in(value: Any, separator: str) -> list[str]:
    """Split a cell or answer into labels: JSON list items, or parts between separators.

    >>> labels_in(" late; refund;", ";"), labels_in('["late", "refund"]', ";")
    (['late', 'refund'], ['late', 'refund'])
    """
    text = as_text(value).strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list):
            return [part for item in items if (part := as_text(item).strip())]
    return [part for piece in text.split(separator) if (part := piece.strip())]


# -- checks in a child process -----------------------------------------------------------------------------------------


TIMEOUT_SECONDS = 2.0
MAX_TIMEOUTS = 3
"""Timeouts after which a check is given up, so that a run does not take hours."""

_SCRIPT = """
import importlib, signal
alarm = getattr(signal, "alarm", lambda seconds: None)  # ends this process, even without its parent
sys.path[:], module, name, arguments = opening
check = getattr(importlib.import_module(module), name)(*arguments)
answer(1, "ready")
for line in pipe_in:
    alarm(10)
    answer(*check(json.loads(line), None))
    alarm(0)
"""


class BoundedCheck:
    """The check `make(*arguments)` in a child process, which sees no label.

    `make` is a module-level function, `arguments` are JSON, and `what` names the check after a timeout.
    """

    def __init__(self, what: str, make: Callable[..., Check], *arguments: Any) -> None:
        opening = (sys.path, make.__module__, make.__name__, arguments)
        self._worker = Worker(what, _SCRIPT, opening, TIMEOUT_SECONDS, most_late=MAX_TIMEOUTS)

    async def __call__(self, got: Any, label: Any) -> Verdict:
        return await self._worker.ask(got)


def pattern_check(source: str) -> Check:
    """Make a check that the regular expression `source` is found in the text."""
    pattern = re.compile(source)

    def check(got: Any, label: Any) -> Verdict:
        return (1.0, "") if pattern.search(as_text(got)) else (0.0, f"{short(got)} does not match {source}")

    return check
