"""The metrics `numeric`, `ordinal` (near on a scale) and `quantity` (a number with its unit)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import DIGITS, MINUS, Check, as_text, number_of, quantity_of, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict

_MARK = "\0"  # replaces the unit while a reply is read
_MARKED = re.compile(
    rf"(?<![\w.,^])(?P<sign>{MINUS}|)(?P<before>{_MARK} ?)?(?P<sign2>[-+−]?)(?P<number>{DIGITS})(?![.,]?[0-9])"
    rf"(?P<after>[ \u00a0\u202f]?{_MARK})?"
)


class ToleranceOptions(Options):
    tolerance: float = Option(0.0, ge=0, allow_inf_nan=False, description="How far off still counts as right.")


class ScaleOptions(Options):
    low: float = Option(1, allow_inf_nan=False, description="The lowest number of the scale.")
    high: float = Option(5, allow_inf_nan=False, description="The highest number of the scale.")


class OrdinalOptions(ScaleOptions):
    order: list[str] = Option([], description="The labels of a scale of words, from one end to the other.")


@metric("numeric", about="A number within a tolerance of the label.", types=("number",), options=ToleranceOptions)
def numeric(options: ToleranceOptions, field: Field) -> Check:
    """Score 1 within `tolerance` (absolute), and at least 1e-9 (relative) for fractions."""

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = _as_number(label), _as_number(got)
        if wanted is None:
            return None, f"the label {short(label)} is not a number"
        if given is None:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is not a number"
        is_whole = isinstance(given, int) and isinstance(wanted, int)
        if abs(given - wanted) <= max(options.tolerance, 0 if is_whole else 1e-9 * abs(wanted)):
            return 1.0, ""
        return 0.0, f"expected {short(label)}, got {short(got)}"

    return check


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "")) if isinstance(value, str) else value
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


# ---- a scale


def _scale_faults(options: OrdinalOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    low, high, choices = options.low, options.high, field.choices if field else ()
    places = {fold(label) for label in options.order}
    if options.order:
        if len(places) < max(2, len(options.order)):
            yield "order", "order needs two or more different labels; list each once, from one end to the other"
        elif field and field.type != "choice":
            yield "order", f'order is for labels, and {field.name} has type {field.type}; set type = "choice"'
        elif missing := [choice for choice in choices if fold(choice) not in places]:
            yield "order", f"the choice {missing[0]!r} is not in order; list every choice"
    else:
        yield from _end_faults(low, high, choices)


def _end_faults(low: float, high: float, choices: Sequence[str]) -> Iterator[tuple[str, str]]:
    if low >= high:
        yield "low", f"low = {low:g} is not below high = {high:g}; write the ends of the scale"
    elif odd := [choice for choice in choices if _as_number(choice) is None]:
        yield "", f"the choice {odd[0]!r} is not a number; list the labels from one end to the other: order = [...]"
    elif odd := [choice for choice in choices if not low <= (_as_number(choice) or 0) <= high]:
        yield "", f"the choice {odd[0]!r} is not on the scale from {low:g} to {high:g}; write its ends: low, high"


@metric(
    "ordinal",
    about="How near an answer is on a scale of numbers or ordered labels: 1 - distance / length of the scale.",
    types=("choice", "number"),
    options=OrdinalOptions,
    faults=_scale_faults,
)
def ordinal(options: OrdinalOptions, field: Field) -> Check:
    """Score 1 - distance / length of the scale; 0 off the scale.

    Labels of `order` are equally far apart. Source: linear weights of the weighted kappa (Cohen 1968).
    """
    places = {fold(label): float(at) for at, label in enumerate(options.order)}
    low, high = (0.0, len(places) - 1.0) if places else (float(options.low), float(options.high))
    scale = f"none of {', '.join(options.order)}" if places else ""

    def place(value: Any) -> float | None:
        return places.get(fold(as_text(value))) if places else _as_number(value)

    def near(given: float, wanted: float) -> float:
        return 1 - abs(given - wanted) / (high - low)

    return _on_scale(low, high, near, place, "not in order" if places else "not a number", scale)


def _on_scale(
    low: float,
    high: float,
    near: Callable[[float, float], float],
    place: Callable[[Any], float | None] = _as_number,
    odd: str = "not a number",
    scale: str = "",
) -> Check:
    """Score the places of answer and label by `near`, clipped to [0, 1]."""
    outside = scale or f"no number from {low:g} to {high:g}"

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = place(label), place(got)
        if wanted is None:
            return None, f"the label {short(label)} is {odd}"
        if given is None or not low <= given <= high:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is {outside}"
        value = min(1.0, max(0.0, near(given, wanted)))
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check


class AgreementOptions(ScaleOptions):
    mean: float = Option(3, allow_inf_nan=False, description="The mean of people's ratings on the train rows.")


def _agreement_faults(options: AgreementOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    yield from _end_faults(options.low, options.high, field.choices if field else ())
    if options.low < options.high and not options.low <= options.mean <= options.high:
        yield "mean", f"mean = {options.mean:g} is not on the scale from {options.low:g} to {options.high:g}"


@metric(
    "agreement",
    about="Agreement of a rating with people's on a scale, where keeping to the middle does not pay.",
    types=("choice", "number"),
    options=AgreementOptions,
    faults=_agreement_faults,
)
def agreement(options: AgreementOptions, field: Field) -> Check:
    """Score 1 - loss: squared distance, and half of the spread that the answer lacks.

    Spreads are squared distances from `mean`. A constant answer near the middle is close to most ratings, which a mean
    distance rewards and agreement does not. The loss is a row's part in 1 - quadratic kappa = distance / spread of
    people and answers (Cohen 1968), made linear at a kappa of 0.5, without a reward for spread beyond people's.
    """
    low, length = options.low, options.high - options.low
    middle = (options.mean - low) / length

    def near(given: float, wanted: float) -> float:
        people, answer = (wanted - low) / length - middle, (given - low) / length - middle
        lacking = people**2 - min(answer**2, people**2)
        return 1 - ((answer - people) ** 2 + lacking / 2) / 1.5

    return _on_scale(low, options.high, near)


# ---- a number with its unit


def _unit_faults(options: ToleranceOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    odd = next((choice for choice in (field.choices if field else ()) if quantity_of(choice) is None), None)
    if odd is not None:
        yield "", f"the choice {odd!r} is not a number with a unit; take another metric than quantity"


@metric(
    "quantity",
    about="A number within a tolerance of the label's, with the label's unit.",
    types=("text", "choice"),
    options=ToleranceOptions,
    faults=_unit_faults,
)
def quantity(options: ToleranceOptions, field: Field) -> Check:
    """Score 1 for one number within `tolerance` (absolute), next to the label's unit.

    Units are compared without case and not converted.
    """

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


def _number_with(unit: str, text: str) -> tuple[float | None, str]:
    spelled = re.compile(rf"(?<![^\W\d_]){re.escape(fold(unit))}(?![^\W\d_]|[/^])")
    found = list(_MARKED.finditer(spelled.sub(_MARK, fold(text.replace(_MARK, " ")))))
    numbers = {number_of(f"{each['sign'] or each['sign2']}{each['number']}") for each in found}
    if len(numbers) != 1:
        return None, "it holds several numbers" if numbers else "it holds no number in digits"
    if not any(each["before"] or each["after"] for each in found):
        return None, f"the unit {unit} is not next to the number"
    return numbers.pop(), ""
