"""The metrics without a label: `length` and `no_repeat`; `judge` and `python` are declared here.

Their code is in `scoring/llm_judge.py` and `scoring/task_metrics.py`, as they need models or a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field as Option
from pydantic import StringConstraints

from agent.metrics.comparison import Check, as_text
from agent.metrics.metric_registry import METRICS
from agent.metrics.metric_rule import MAX_WHOLE_NUMBER, MetricRule, Options, metric
from agent.types import Field
from agent.worker import Verdict


class LengthOptions(Options):
    max_words: int = Option(
        MAX_WHOLE_NUMBER, ge=1, le=MAX_WHOLE_NUMBER, description="The most words that score full marks."
    )
    min_words: int = Option(0, ge=0, le=MAX_WHOLE_NUMBER, description="The fewest words that score full marks.")


class RepeatOptions(Options):
    words: int = Option(3, ge=1, le=20, description="The length of the runs of words (n).")


class JudgeOptions(Options):
    mode: Literal["rubric", "reference", "pairwise", "faithfulness"] = Option(
        "rubric",
        description="Rate by a rubric, compare with the label or your prompt's answer, or check claims by passages.",
    )
    rubric: Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$")] = Option(
        "rubric.md", description="The file of its criteria in the task folder."
    )
    judge: Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$")] = Option(
        "", description="A judge tuned by `optimize judge tune`: NAME@ALIAS, NAME@VERSION, or its file in the folder."
    )


def _limits(options: LengthOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if options.min_words > options.max_words:
        yield "min_words", f"min_words = {options.min_words} is above max_words = {options.max_words}; swap them"


@metric(
    "length",
    about="The number of words is within limits.",
    types=("text",),
    options=LengthOptions,
    needs=("max_words", "min_words"),
    needs_label=False,
    faults=_limits,
)
def length(options: LengthOptions, field: Field) -> Check:
    low, high = options.min_words, options.max_words

    def check(got: Any, label: Any) -> Verdict:
        count = len(as_text(got).split())
        if count < low:
            return 0.0, f"{count} words, at least {low} are wanted"
        return (1.0, "") if count <= high else (0.0, f"{count} words, at most {high} are allowed")

    return check


@metric(
    "no_repeat",
    about="The share of distinct runs of words (n-grams) in the answer.",
    types=("text",),
    options=RepeatOptions,
    needs_label=False,
)
def no_repeat(options: RepeatOptions, field: Field) -> Check:
    words = options.words

    def check(got: Any, label: Any) -> Verdict:
        value = distinct_ngrams(as_text(got), words)
        return value, "" if value == 1 else f"{100 * (1 - value):.0f} % of its runs of {words} words are repetitions"

    return check


def distinct_ngrams(text: str, words: int) -> float:
    """Return the share of distinct word n-grams, in (0, 1], ignoring case; 1 without n-grams.

    Source: 1 - rep-n of Welleck et al. 2020, "Neural text generation with unlikelihood training".

    >>> distinct_ngrams("a b a b", words=2)
    0.6666666666666666
    """
    tokens = text.casefold().split()
    ngrams = [tuple(tokens[at : at + words]) for at in range(len(tokens) - words + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


for _rule in (
    MetricRule(
        "judge",
        about="A model judges the answer: by a rubric, a reference, your prompt's answer, or passages.",
        types=("text", "choice", "number", "json"),
        options=JudgeOptions,
        needs_label=False,
    ),
    MetricRule(
        "python",
        about="Your own function in metric.py of the task folder, run in a child process.",
        types=("text", "choice", "number", "json"),
        needs_label=False,
    ),
):
    METRICS.add(_rule.name, _rule, __name__)
