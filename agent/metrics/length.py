"""The metric `length`: the answer has as many words as it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.base import MOST, Options, metric
from agent.metrics.values import Check, as_text
from agent.types import Field
from agent.worker import Verdict


class LengthOptions(Options):
    max_words: int = Option(MOST, ge=1, le=MOST, description="The most words that score full marks.")
    min_words: int = Option(0, ge=0, le=MOST, description="The fewest words that score full marks.")


def _faults(options: LengthOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if options.min_words > options.max_words:
        yield "min_words", f"min_words = {options.min_words} is above max_words = {options.max_words}; swap them"


@metric(
    "length",
    about="The answer has at least and at most so many words.",
    types=("text",),
    options=LengthOptions,
    needs=("max_words", "min_words"),
    needs_label=False,
    faults=_faults,
)
def length(options: LengthOptions, field: Field) -> Check:
    low, high = options.min_words, options.max_words

    def check(got: Any, label: Any) -> Verdict:
        count = len(as_text(got).split())
        if count < low:
            return 0.0, f"{count} words, at least {low} are wanted"
        return (1.0, "") if count <= high else (0.0, f"{count} words, at most {high} are allowed")

    return check
