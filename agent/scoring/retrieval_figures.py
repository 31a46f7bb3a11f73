"""How well passages are looked up and what the answers make of them, apart from the score; JSON-ready. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.scoring.breakdown import Pair
from agent.shipped import fold
from agent.types import Example, Knowledge, Outcome

Documents = Callable[[Example], tuple[str, ...] | None]
"""The document of each passage that a prompt shows on a row; None where it looks none up."""


def retrieval_figures(pair: Pair, knowledge: Knowledge, output: str, shown: Mapping[str, Documents]) -> dict[str, Any]:
    """Recall of the right documents, and answers that say that no document has one.

    Args:
        pair: the outcomes of winner and baseline on the sealed test.
        knowledge: of the task.
        output: the field that holds the answer.
        shown: by side, what it shows on a row.

    Returns:
        How many rows name their documents, have no answer in any, and have one; by side `recall` (a document of the row
        is shown), `recall_all` (all of them are), `unanswerable_right` (of the rows without an answer, the share
        answered so) and `answerable_wrong` (of the others, the share answered so); None where it cannot be said.
    """
    sourced = [row for row in pair.rows if row.sources]
    blank = [bool(knowledge.unanswerable) and _says(knowledge, row.labels.get(output)) for row in pair.rows]
    sides = {"winner": pair.won, "baseline": pair.based}
    return {
        "rows": len(sourced),
        "unanswerable_rows": sum(blank),
        "answerable_rows": len(blank) - sum(blank),
        **{
            side: {**_recall(sourced, shown[side]), **_refusals(knowledge, outcomes, output, blank)}
            for side, outcomes in sides.items()
        },
    }


def _recall(rows: Sequence[Example], shown: Documents) -> dict[str, float | None]:
    pairs = [(set(row.sources), files) for row in rows if (files := shown(row)) is not None]
    return {
        "recall": _share([bool(sources & set(files)) for sources, files in pairs]),
        "recall_all": _share([sources <= set(files) for sources, files in pairs]),
    }


def _refusals(
    knowledge: Knowledge, outcomes: Sequence[Outcome], output: str, blank: Sequence[bool]
) -> dict[str, float | None]:
    if not knowledge.unanswerable:
        return {"unanswerable_right": None, "answerable_wrong": None}
    said = [_says(knowledge, outcome.prediction.fields.get(output)) for outcome in outcomes]
    return {
        "unanswerable_right": _share([each for each, none in zip(said, blank, strict=True) if none]),
        "answerable_wrong": _share([each for each, none in zip(said, blank, strict=True) if not none]),
    }


def _says(knowledge: Knowledge, answer: Any) -> bool:
    """Whether an answer is that there is none; case, spacing and a full stop at the end do not count."""
    return isinstance(answer, str) and fold(answer).rstrip(" .") == fold(knowledge.unanswerable).rstrip(" .")


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
