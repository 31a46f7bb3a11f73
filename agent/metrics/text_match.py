"""The metrics `exact_match`, `choice`, `contains` and `regex`: the answer matches a text or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.bounded import BoundedCheck, pattern_check
from agent.metrics.comparison import Check, as_text, exact, golds, key, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class CaseOptions(Options):
    ignore_case: bool = Option(False, description="Treat A and a alike.")


class RegexOptions(Options):
    pattern: str = Option("", description="The regular expression that the answer must match.")


@metric(
    "exact_match",
    about="The answer is the label, but for blanks around it; numbers and JSON by value.",
    types=("text", "choice", "number"),
    options=CaseOptions,
)
def exact_match(options: CaseOptions, field: Field) -> Check:
    """Equal after stripping, and after folding case and space with `ignore_case`; JSON and numbers by value."""
    normalised = fold if options.ignore_case else exact

    def check(got: Any, label: Any) -> Verdict:
        if isinstance(got, str):
            same = normalised(got) in [normalised(gold) for gold in golds(label)]
        else:
            same = key(got, normalised) == key(label, normalised)
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check


@metric("choice", about="The same choice, whatever its case and spacing.", types=("choice",))
def choice(options: Options, field: Field) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        same = fold(as_text(got)) == fold(as_text(label))
        return (1.0, "") if same else (0.0, f"expected {short(label)}, got {short(got)}")

    return check


@metric("contains", about="The label's text stands in the answer.", types=("text", "choice"), options=CaseOptions)
def contains(options: CaseOptions, field: Field) -> Check:
    normalised = fold if options.ignore_case else exact

    def check(got: Any, label: Any) -> Verdict:
        text, wanted = normalised(as_text(got)), [normalised(gold) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, and stands in every text"
        if any(gold in text for gold in wanted):
            return 1.0, ""
        return 0.0, f"{short(label)} does not occur in {short(got)}"

    return check


def _faults(options: RegexOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if "pattern" not in options.model_fields_set:
        return
    if not options.pattern:
        yield "pattern", "pattern is empty and matches everything; write a regular expression"
    try:
        re.compile(options.pattern)
    except (re.error, RecursionError, OverflowError) as error:
        pattern = options.pattern if len(options.pattern) <= 78 else f"{options.pattern[:75]}..."
        yield "pattern", f"pattern = {pattern!r} is not a regular expression: {error}"


@metric(
    "regex",
    about="A regular expression is found in the answer.",
    types=("text", "choice"),
    options=RegexOptions,
    needs=("pattern",),
    needs_label=False,
    faults=_faults,
)
def regex(options: RegexOptions, field: Field) -> BoundedCheck:
    return BoundedCheck(f"the pattern of {field.name}", pattern_check, options.pattern)
