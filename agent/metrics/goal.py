"""The metric `goal`: what a conversation was for was said in one of the replies."""

from __future__ import annotations

from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, as_text, golds, short
from agent.metrics.metric_rule import MAX_WHOLE_NUMBER, Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class GoalOptions(Options):
    within: int = Option(
        MAX_WHOLE_NUMBER,
        ge=1,
        le=MAX_WHOLE_NUMBER,
        description="The label must stand in one of the first so many replies.",
    )


@metric(
    "goal",
    about="The label's text, in any case, stands in one of the replies of a conversation.",
    types=("text", "choice"),
    options=GoalOptions,
    reads_replies=True,
)
def goal(options: GoalOptions, field: Field) -> Check:
    def check(replies: Any, label: Any) -> Verdict:
        wanted = [fold(as_text(gold)) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, and stands in every text"
        for number, reply in enumerate(replies, 1):
            if any(gold in fold(reply) for gold in wanted):
                late = number > options.within
                return float(not late), f"said in reply {number}, wanted within {options.within}" if late else ""
        return 0.0, f"{short(label)} was not said in {len(replies)} replies"

    return check
