"""Metrics of what an agent did for its answer: the score that it reports, and the number of its model calls."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check
from agent.metrics.metric_rule import MAX_WHOLE_NUMBER, Options, metric
from agent.types import Field, Prediction
from agent.worker import Verdict


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
