"""The metric `ordinal`: how near an answer is to the label on a scale of numbers or of ordered words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, as_text, short
from agent.metrics.metric_rule import Options, metric
from agent.metrics.numeric import as_number
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class OrdinalOptions(Options):
    low: float = Option(1, allow_inf_nan=False, description="The lowest number of the scale.")
    high: float = Option(5, allow_inf_nan=False, description="The highest number of the scale.")
    order: list[str] = Option([], description="The labels of a scale of words, from one end to the other.")


def _faults(options: OrdinalOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if options.order:
        yield from _faults_of_order(options.order, field)
        return
    if options.low >= options.high:
        yield "low", f"low = {options.low:g} is not below high = {options.high:g}; write the ends of the scale"
        return
    for choice in field.choices if field else ():
        number = as_number(choice)
        if number is None:
            yield "", f"the choice {choice!r} is not a number; list the labels from one end to the other: order = [...]"
            return
        if not options.low <= number <= options.high:
            scale = f"{options.low:g} to {options.high:g}"
            yield "", f"the choice {choice!r} is not on the scale from {scale}; write its ends: low = ..., high = ..."
            return


def _faults_of_order(order: list[str], field: Field | None) -> Iterator[tuple[str, str]]:
    places = [fold(label) for label in order]
    if len(set(places)) < max(2, len(places)):
        yield "order", "order needs two or more different labels; list each once, from one end to the other"
        return
    if field is None:
        return
    if field.type != "choice":
        yield "order", f'order is for labels, and {field.name} has type {field.type}; set type = "choice"'
    if missing := [choice for choice in field.choices if fold(choice) not in places]:
        yield "order", f"the choice {missing[0]!r} is not in order; list every choice"


@metric(
    "ordinal",
    about="How near an answer is on a scale of numbers or ordered labels: 1 - distance / length of the scale.",
    types=("choice", "number"),
    options=OrdinalOptions,
    faults=_faults,
)
def ordinal(options: OrdinalOptions, field: Field) -> Check:
    """1 for the label, 0 at the far end of the scale or for an answer outside of it, a straight line between.

    Labels of `order` are equally far apart. Source: linear weights of the weighted kappa (Cohen 1968), as the score of
    one row.
    """
    places = {fold(label): float(at) for at, label in enumerate(options.order)}
    low, high = (0.0, len(places) - 1.0) if places else (float(options.low), float(options.high))
    scale = f"none of {', '.join(options.order)}" if places else f"no number from {low:g} to {high:g}"

    def place(value: Any) -> float | None:
        return places.get(fold(as_text(value))) if places else as_number(value)

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = place(label), place(got)
        if wanted is None:
            return None, f"the label {short(label)} is {'not in order' if places else 'not a number'}"
        if given is None or not low <= given <= high:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is {scale}"
        value = max(0.0, 1 - abs(given - wanted) / (high - low))
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check
