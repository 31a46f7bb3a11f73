"""The metrics `exact_match` and `choice`: the answer is the label."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Option

from agent.metrics.base import Options, metric
from agent.metrics.values import Check, as_text, exact, golds, key, short
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class CaseOptions(Options):
    ignore_case: bool = Option(False, description="Treat A and a alike.")


@metric(
    "exact_match",
    about="The answer is the label, but for blanks around it; numbers and JSON by value.",
    types=("text", "choice", "number"),
    options=CaseOptions,
)
def exact_match(options: CaseOptions, field: Field) -> Check:
    """Equal after stripping, and after folding case and space with `ignore_case`; JSON and numbers by value."""
    same_as = fold if options.ignore_case else exact

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(got, str):
            same = same_as(got) in [same_as(gold) for gold in golds(label)]
        else:
            same = key(got, same_as) == key(label, same_as)
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check


@metric("choice", about="The same choice, whatever its case and spacing.", types=("choice",))
def choice(options: Options, field: Field) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        same = fold(as_text(got)) == fold(as_text(label))
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check
