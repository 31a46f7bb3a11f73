"""The metric `no_repeat`: how little the answer repeats itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Option

from agent.metrics.base import Options, metric
from agent.metrics.overlap import REPEATED_WORDS, unrepeated
from agent.metrics.values import Check, as_text
from agent.types import Field
from agent.worker import Verdict


class RepeatOptions(Options):
    words: int = Option(REPEATED_WORDS, ge=1, le=20, description="How many words in a row may not come twice.")


@metric(
    "no_repeat",
    about="The part of the answer's runs of words that come for the first time.",
    types=("text",),
    options=RepeatOptions,
    needs_label=False,
)
def no_repeat(options: RepeatOptions, field: Field) -> Check:
    words = options.words

    def check(got: Any, label: Any) -> Verdict:
        value = unrepeated(as_text(got), words)
        return value, "" if value == 1 else f"{100 * (1 - value):.0f} % of its runs of {words} words are repetitions"

    return check
