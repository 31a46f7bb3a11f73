"""The metric `quantity`: a number with its unit, such as 12 kg, 3.5 h or $20."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, as_text, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict

_DIGITS = r"(?:[0-9]{1,3}(?:[,'’\u00a0\u202f][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
_UNIT = r"(?:[^\W\d_]|[°%‰€$£¥₹'\"′″])\S*(?: [^\W\d_]\S*)?"
_QUANTITY = re.compile(
    rf"(?P<sign>[-+−]?)\s?(?P<before>[€$£¥₹]|[A-Z]{{3}} )?(?P<number>{_DIGITS})\s?(?P<unit>{_UNIT})?"
)
_MARK = "\0"  # stands for the unit while a reply is read
_MARKED = re.compile(
    rf"(?<![\w.,^])(?P<sign>[-+−]?)(?P<before>{_MARK} ?)?(?P<sign2>[-+−]?)(?P<number>{_DIGITS})(?![.,]?[0-9])"
    rf"(?P<after>[ \u00a0\u202f]?{_MARK})?"
)


class QuantityOptions(Options):
    tolerance: float = Option(0.0, ge=0, allow_inf_nan=False, description="How far off still counts as right.")


def _faults(options: QuantityOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    odd = next((choice for choice in (field.choices if field else ()) if quantity_of(choice) is None), None)
    if odd is not None:
        yield "", f"the choice {odd!r} is no number with a unit, so quantity cannot score it; take another metric"


@metric(
    "quantity",
    about="A number within a tolerance of the label's, with the label's unit.",
    types=("text", "choice"),
    options=QuantityOptions,
    faults=_faults,
)
def quantity(options: QuantityOptions, field: Field) -> Check:
    """1 where the reply holds one number, within `tolerance` (absolute) of the label's, and the label's unit beside it,
    whatever its case; else 0. Units are not converted."""

    def check(got: Any, label: Any) -> Verdict:
        wanted = quantity_of(label)
        if wanted is None:
            return None, f"the label {short(label)} is no number with a unit"
        number, unit = wanted
        given, why = _number_with(unit, as_text(got))
        if given is None:
            return 0.0, f"expected {short(label)}, got {short(got)}: {why}"
        if abs(given - number) <= max(options.tolerance, 1e-9 * abs(number)):
            return 1.0, ""
        return 0.0, f"expected {short(label)}, got {short(got)}"

    return check


def quantity_of(value: Any) -> tuple[float, str] | None:
    """The number and the unit of a text that is these two and nothing else; else None.

    >>> quantity_of("1,250 kg"), quantity_of("-$3.5"), quantity_of("12"), quantity_of("3,5 h")
    ((1250.0, 'kg'), (-3.5, '$'), None, None)
    """
    found = _QUANTITY.fullmatch(as_text(value).strip().rstrip(".,;"))
    if found is None or bool(found["before"]) is bool(found["unit"]) or re.match("0[0-9]", found["number"]):
        return None  # a leading zero is of a code
    return _float(f"{found['sign']}{found['number']}"), (found["before"] or found["unit"]).strip()


def units_in(texts: Iterable[str]) -> dict[str, int]:
    """How often each unit stands beside a number, as it is written most often, the most frequent first.

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


def _number_with(unit: str, text: str) -> tuple[float | None, str]:
    """The one number of a reply, where the unit stands beside it; else None and why."""
    beside = re.compile(rf"(?<![^\W\d_]){re.escape(fold(unit))}(?![^\W\d_]|[/^])")
    found = list(_MARKED.finditer(beside.sub(_MARK, fold(text.replace(_MARK, " ")))))
    numbers = {_float(f"{each['sign'] or each['sign2']}{each['number']}") for each in found}
    if len(numbers) != 1:
        return None, "it holds several numbers" if numbers else "it holds no number in digits"
    if not any(each["before"] or each["after"] for each in found):
        return None, f"the unit {unit} does not stand beside the number"
    return numbers.pop(), ""


def _float(text: str) -> float:
    return float(re.sub(r"[,'’\u00a0\u202f+]", "", text.replace("−", "-")))
