"""The metrics `exact_match`, `choice`, `contains`, `goal`, `regex` and `set_f1`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic import Field as Option

from agent.metrics.comparison import (
    BoundedCheck,
    Check,
    as_text,
    by_label,
    exact,
    f1,
    golds,
    key,
    labels_in,
    missing_and_extra,
    pattern_check,
    short,
)
from agent.metrics.metric_rule import MAX_WHOLE_NUMBER, Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class CaseOptions(Options):
    ignore_case: bool = Option(False, description="Treat A and a alike.")


class GoalOptions(Options):
    within: int = Option(
        MAX_WHOLE_NUMBER,
        ge=1,
        le=MAX_WHOLE_NUMBER,
        description="The number of first replies in which the label must occur.",
    )


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is not a regular expression: {error}") from None
    return pattern


class RegexOptions(Options):
    pattern: Annotated[str, AfterValidator(_compiled)] = Option(
        "", min_length=1, description="The regular expression that the answer must match."
    )


@metric(
    "exact_match",
    about="The answer equals the label, ignoring spaces around it; numbers and JSON by value.",
    types=("text", "choice", "number"),
    options=CaseOptions,
)
def exact_match(options: CaseOptions, field: Field) -> Check:
    """Compare stripped texts (folded with `ignore_case`), or JSON and numbers by value."""
    normalised = fold if options.ignore_case else exact

    def same(got: Any, label: Any) -> float:
        if isinstance(got, str):
            return float(normalised(got) in [normalised(gold) for gold in golds(label)])
        return float(key(got, normalised) == key(label, normalised))

    return by_label(same)


@metric("choice", about="The same choice, ignoring case and spacing.", types=("choice",))
def choice(options: Options, field: Field) -> Check:
    return by_label(lambda got, label: float(fold(as_text(got)) == fold(as_text(label))))


@metric("contains", about="The answer contains the text of the label.", types=("text", "choice"), options=CaseOptions)
def contains(options: CaseOptions, field: Field) -> Check:
    normalised = fold if options.ignore_case else exact

    def check(got: Any, label: Any) -> Verdict:
        text, wanted = normalised(as_text(got)), [normalised(gold) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, so every text contains it"
        if any(gold in text for gold in wanted):
            return 1.0, ""
        return 0.0, f"{short(label)} does not occur in {short(got)}"

    return check


@metric(
    "goal",
    about="One of the replies of a conversation contains the text of the label, in any case.",
    types=("text", "choice"),
    options=GoalOptions,
    reads_replies=True,
)
def goal(options: GoalOptions, field: Field) -> Check:
    def check(replies: Any, label: Any) -> Verdict:
        wanted = [fold(as_text(gold)) for gold in golds(label)]
        if not all(wanted):
            return None, "the label is empty, so every text contains it"
        for number, reply in enumerate(replies, 1):
            if any(gold in fold(reply) for gold in wanted):
                late = number > options.within
                return float(not late), f"said in reply {number}, wanted within {options.within}" if late else ""
        return 0.0, f"{short(label)} was not said in {len(replies)} replies"

    return check


@metric(
    "regex",
    about="A regular expression is found in the answer.",
    types=("text", "choice"),
    options=RegexOptions,
    needs=("pattern",),
    needs_label=False,
)
def regex(options: RegexOptions, field: Field) -> BoundedCheck:
    return BoundedCheck(f"the pattern of {field.name}", pattern_check, options.pattern)


# -- several labels in one answer --------------------------------------------------------------------------------------


class SetOptions(Options):
    separator: str = Option(";", pattern=r"\S", description="The text between two labels.")


@metric(
    "set_f1",
    about="F1 of the labels in the answer, ignoring order, case and spacing.",
    types=("text", "choice"),
    options=SetOptions,
)
def set_f1(options: SetOptions, field: Field) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        mine, wanted = ({fold(part): part for part in labels_in(value, options.separator)} for value in (got, label))
        differences = missing_and_extra([wanted.get(same, part) for same, part in mine.items()], [*wanted.values()])
        return f1(list(mine), list(wanted)), "; ".join(differences)

    return check
