"""The metric `set_f1`: several labels in one answer, in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field as Option

from agent.metrics.comparison import Check, as_text, f1, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import fold
from agent.types import Field
from agent.worker import Verdict


class SetOptions(Options):
    separator: str = Option(";", description="What stands between two labels of an answer.")


def _faults(options: SetOptions, field: Field | None) -> Iterator[tuple[str, str]]:
    if not options.separator.strip():
        yield "separator", "separator is blank; write what stands between two labels, such as ;"


@metric(
    "set_f1",
    about="F1 of the labels in the answer, whatever their order, case and spacing.",
    types=("text", "choice"),
    options=SetOptions,
    faults=_faults,
)
def set_f1(options: SetOptions, field: Field) -> Check:
    """F1 of two sets: 2 * common / (labels of the answer + labels of the row); two empty ones agree."""

    def check(got: Any, label: Any) -> Verdict:
        mine, wanted = ({fold(part): part for part in labels_in(value, options.separator)} for value in (got, label))
        missing, extra = (
            [one[key] for key in one if key not in other] for one, other in ((wanted, mine), (mine, wanted))
        )
        differences = [
            f"{word}: {short(', '.join(found), 200)}"
            for word, found in (("missing", missing), ("extra", extra))
            if found
        ]
        return f1(list(mine), list(wanted)), "; ".join(differences)

    return check


def labels_in(value: Any, separator: str) -> list[str]:
    """The labels of a cell or an answer: the items of a JSON list, else the parts between separators; none is empty.

    >>> labels_in(" late; refund;", ";"), labels_in('["late", "refund"]', ";")
    (['late', 'refund'], ['late', 'refund'])
    """
    text = as_text(value).strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list):
            return [part for item in items if (part := as_text(item).strip())]
    return [part for piece in text.split(separator) if (part := piece.strip())]
