"""The metric `regex`: a pattern is found in the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field as Option

from agent.metrics.base import Options, metric
from agent.metrics.bounded import Bounded, pattern_check
from agent.types import Field


class RegexOptions(Options):
    pattern: str = Option("", description="The regular expression that the answer must match.")


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
def regex(options: RegexOptions, field: Field) -> Bounded:
    """`pattern` is found in the output (anchor it with ^ and $ for a full match)."""
    return Bounded(f"the pattern of {field.name}", pattern_check, options.pattern)
