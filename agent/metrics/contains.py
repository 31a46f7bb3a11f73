"""The metric `contains`: the label stands somewhere in the answer."""

from __future__ import annotations

from typing import Any

from agent.metrics.base import metric
from agent.metrics.exact import CaseOptions
from agent.metrics.values import Check, as_text, exact, golds, short
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


@metric("contains", about="The label's text stands in the answer.", types=("text", "choice"), options=CaseOptions)
def contains(options: CaseOptions, field: Field) -> Check:
    """Case and space are folded with `ignore_case`."""
    same_as = fold if options.ignore_case else exact

    def check(got: Any, label: Any) -> Verdict:
        text, wanted = same_as(as_text(got)), [same_as(gold) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, and stands in every text"
        if any(gold in text for gold in wanted):
            return 1.0, ""
        return 0.0, f"{short(label)} does not occur in {short(got)}"

    return check
