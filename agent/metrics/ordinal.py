"""The metric `ordinal`: how near a number is to the label on a scale such as 1 to 5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, short
from agent.metrics.metric_rule import Options, metric
from agent.metrics.numeric import as_number
from agent.types import Field
from agent.worker import Verdict


class OrdinalOptions(Options):
    low: float = Option(1, allow_inf_nan=False, description="The lowest number of the scale.")
    high: float = Option(5, allow_inf_nan=False, description="The highest number of the scale.")


def _faults(options: OrdinalOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if options.low >= options.high:
        yield "low", f"low = {options.low:g} is not below high = {options.high:g}; write the ends of the scale"


@metric(
    "ordinal",
    about="How near a number is on a scale: 1 - distance to the label / (high - low).",
    types=("choice", "number"),
    options=OrdinalOptions,
    faults=_faults,
)
def ordinal(options: OrdinalOptions, field: Field) -> Check:
    """1 for the label, 0 at the far end of the scale or for an answer outside of it, a straight line between.

    Source: linear weights of the weighted kappa (Cohen 1968), as the score of one row.
    """
    low, high = float(options.low), float(options.high)

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = as_number(label), as_number(got)
        if wanted is None:
            return None, f"the label {short(label)} is not a number"
        if given is None or not low <= given <= high:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is no number from {low:g} to {high:g}"
        value = max(0.0, 1 - abs(given - wanted) / (high - low))
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check
