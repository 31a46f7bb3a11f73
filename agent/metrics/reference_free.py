"""The metrics without a label: `length`, `no_repeat`, `reported` and `calls`; `judge` and `python` are declared here.

The code of these is in `scoring/llm_judge.py` and `scoring/task_metrics.py`, as they need models or a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field as Option
from pydantic import StringConstraints

from agent.metrics.comparison import Check, as_text
from agent.metrics.metric_registry import METRICS
from agent.metrics.metric_rule import MAX_WHOLE_NUMBER, MetricRule, Options, metric
from agent.types import Field, Prediction
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


# -- what an agent did for its answer ---------------------------------------------------------------------------------


class CallsOptions(Options):
    at_most: int = Option(
        MAX_WHOLE_NUMBER, ge=1, le=MAX_WHOLE_NUMBER, description="The most model calls that score full marks."
    )


@metric(
    "reported",
    about="The score that an agent reports with its answer, such as what a check of its world's state gives.",
    types=("text", "choice", "number", "json"),
    needs_label=False,
    reads_rollout=True,
)
def reported(options: Options, field: Field) -> Check:
    def check(prediction: Prediction, label: Any) -> Verdict:
        if prediction.reported is None:
            return None, "the answer came without a score; give it as pa.Rollout(answer, score=...)"
        return prediction.reported, ""

    return check


@metric(
    "calls",
    about="An agent makes at most `at_most` model calls for its answer; twice as many score a half.",
    types=("text", "choice", "number", "json"),
    options=CallsOptions,
    needs=("at_most",),
    needs_label=False,
    reads_rollout=True,
)
def calls(options: CallsOptions, field: Field) -> Check:
    most = options.at_most

    def check(prediction: Prediction, label: Any) -> Verdict:
        if (made := prediction.calls) is None:
            return None, "the calls of this answer were not counted"
        return (1.0, "") if made <= most else (most / made, f"{made} model calls, at most {most} are wanted")

    return check
