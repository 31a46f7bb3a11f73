"""The metric `numeric`: a number within a tolerance of the label."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, short
from agent.metrics.metric_rule import Options, metric
from agent.types import Field
from agent.worker import Verdict


class NumericOptions(Options):
    tolerance: float = Option(0.0, ge=0, allow_inf_nan=False, description="How far off still counts as right.")


@metric("numeric", about="A number within a tolerance of the label.", types=("number",), options=NumericOptions)
def numeric(options: NumericOptions, field: Field) -> Check:
    """Within `tolerance` (absolute); where one of the two is a fraction, at least within 1e-9 of the label's size."""
    tolerance = float(options.tolerance)

    def check(got: Any, label: Any) -> Verdict:
        wanted, given = as_number(label), as_number(got)
        if wanted is None:
            return None, f"the label {short(label)} is not a number"
        if given is None:
            return 0.0, f"expected {short(label)}, got {short(got)}, which is not a number"
        is_whole = isinstance(given, int) and isinstance(wanted, int)
        if abs(given - wanted) <= (tolerance if is_whole else max(tolerance, 1e-9 * abs(wanted))):
            return 1.0, ""
        return 0.0, f"expected {short(label)}, got {short(got)}"

    return check


def as_number(value: Any) -> int | float | None:
    """`value` as a finite number, also from its text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace(",", "")) if isinstance(value, str) else value
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None
