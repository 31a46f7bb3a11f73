"""Right, wrong and unreadable answers, confusion matrices of labels and tools, and retrieval recall. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from agent.documents import Knowledge
from agent.evaluate.breakdown import BASELINE, PASS, WINNER, both, readable
from agent.evaluate.evaluator import values
from agent.evaluate.score_table import ScoreTable
from agent.metrics.calls import EXTRA_CALL, NO_CALL, names_in, paired_names
from agent.metrics.comparison import key
from agent.results.base import SideName
from agent.results.breakdown import (
    Answers,
    ConfusionCell,
    LabelReport,
    LabelScore,
    LabelSide,
    Retrieval,
    RetrievalSide,
    RowCount,
)
from agent.shipped import Field, fold
from agent.types import Example, Outcome, Tool

SHOWN_ROWS = 3  # the most unreadable rows to name


def row_counts(table: ScoreTable) -> Answers:
    """Count right, wrong, unreadable and different answers by side."""
    return Answers(**both(table, lambda outcomes: _counted(table.rows, outcomes)))


def _counted(rows: Sequence[Example], outcomes: Sequence[Outcome]) -> RowCount:
    scores = values(outcomes)
    right, wrong = sum(score >= PASS for score in scores), sum(score <= 0 for score in scores)
    unreadable = [outcome.example_id for outcome in outcomes if readable(outcome) == 0 and outcome.value is not None]
    read = [(row, outcome.prediction.fields) for row, outcome in zip(rows, outcomes, strict=True) if readable(outcome)]
    return RowCount(
        right=right,
        partly=len(scores) - right - wrong,
        wrong=wrong,
        unscored=len(outcomes) - len(scores),
        unreadable=len(unreadable),
        unreadable_rows=tuple(unreadable[:SHOWN_ROWS]),
        readable=len(read),
        different=len({key(fields, fold) for _, fields in read}),
        different_right=len({key({name: row.labels.get(name) for name in fields}, fold) for row, fields in read}),
    )


def by_label(table: ScoreTable, fields: Sequence[Field]) -> list[LabelReport]:
    """Compare both sides by label, for each of `fields` with choices."""

    def side(field: Field, outcomes: Sequence[Outcome]) -> LabelSide:
        known = _by_spelling(field.choices)
        pairs = [
            (known(row.labels.get(field.name)), known(outcome.prediction.fields.get(field.name)))
            for row, outcome in zip(table.rows, outcomes, strict=True)
            if readable(outcome) is not None
        ]
        return _side(field.choices, Counter((label, said) for label, said in pairs if label is not None))

    return [
        LabelReport(field=field.name, labels=field.choices, **both(table, partial(side, field)))
        for field in fields
        if field.choices
    ]


def by_tool(table: ScoreTable, field: Field, tools: Sequence[Tool]) -> list[LabelReport]:
    """Compare both sides by called tool. A missing call is paired with a wrong one made in its place, if any."""
    if not tools:
        return []
    labels = (*(tool.name for tool in tools), NO_CALL)
    cells = both(table, lambda outcomes: tool_cells(table.rows, outcomes, field.name, labels, EXTRA_CALL))
    has_extra = any(label == EXTRA_CALL for counts in cells.values() for label, _ in counts)
    labels += (EXTRA_CALL,) * has_extra
    sides = {side: _side(labels, counts) for side, counts in cells.items()}
    return [LabelReport(field=field.name, labels=labels, **sides)]


def tool_cells(
    rows: Sequence[Example], outcomes: Sequence[Outcome], field: str, labels: Sequence[str], extra: str = NO_CALL
) -> Counter[tuple[str, str | None]]:
    """Count which tool, or `NO_CALL`, was called where each was right. None: an unreadable reply or unknown tool.

    `extra` is the label of calls beyond those of the row.
    """
    cells = Counter[tuple[str, str | None]]()
    for row, outcome in zip(rows, outcomes, strict=True):
        wanted = called(row.labels.get(field))
        if readable(outcome) is None or wanted is None or not set(wanted) <= set(labels):
            continue
        said = None if outcome.prediction.error else called(outcome.prediction.fields.get(field))
        pairs = [(name, None) for name in wanted or [NO_CALL]] if said is None else paired_names(wanted, said)
        surplus = range(not wanted, len(pairs))  # a row without a call has one pair
        for at, (name, called_name) in enumerate(pairs):
            label = extra if at in surplus and name == NO_CALL else name
            cells[label, called_name if called_name in labels else None] += 1
    return cells


def called(value: Any) -> list[str] | None:
    """Return the names of the called tools; None for an unusable answer."""
    try:
        return names_in(value)
    except ValueError:
        return None


def _side(labels: Sequence[str], cells: Mapping[tuple[str, str | None], int]) -> LabelSide:
    order = {label: at for at, label in enumerate(labels)}
    end = len(order)
    ranked = sorted(cells, key=lambda cell: (order[cell[0]], order.get(cell[1] or "", end)))
    return LabelSide(
        scores=tuple(_label_score(label, cells) for label in labels),
        cells=tuple(ConfusionCell(label=label, said=said, rows=cells[label, said]) for label, said in ranked),
    )


def _label_score(label: str, cells: Mapping[tuple[str, str | None], int]) -> LabelScore:
    support = sum(rows for (of, _), rows in cells.items() if of == label)
    said = sum(rows for (_, answer), rows in cells.items() if answer == label)
    right = cells.get((label, label), 0)
    return LabelScore(
        label=label,
        support=support,
        said=said,
        right=right,
        precision=right / said if said else None,
        recall=right / support if support and label != EXTRA_CALL else None,
    )


def _by_spelling(choices: Sequence[str]) -> Callable[[Any], str | None]:
    """Match values to choices despite case and spacing, which users' programs may change."""
    folded: dict[str, str | None] = {}
    for choice in choices:
        folded[fold(choice)] = None if fold(choice) in folded else choice

    def known(value: Any) -> str | None:
        text = "" if value is None else str(value)
        return text if text in choices else folded.get(fold(text))

    return known


Documents = Callable[[Example], tuple[str, ...] | None]
"""The document of each passage that a prompt shows on a row; None without retrieval."""


def retrieval_figures(
    table: ScoreTable, knowledge: Knowledge, output: str, shown: Mapping[SideName, Documents]
) -> Retrieval:
    """Measure recall of documents, and right and wrong "no document has the answer" replies."""
    sourced = [row for row in table.rows if row.sources]
    blank = [bool(knowledge.unanswerable) and _says(knowledge, row.labels.get(output)) for row in table.rows]
    sides = {
        side: RetrievalSide(**_recall(sourced, shown[side]), **_refusals(knowledge, table.first(side), output, blank))
        for side in (WINNER, BASELINE)
    }
    answerable = len(blank) - sum(blank)
    return Retrieval(rows=len(sourced), unanswerable_rows=sum(blank), answerable_rows=answerable, **sides)


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
    return isinstance(answer, str) and fold(answer).rstrip(" .") == fold(knowledge.unanswerable).rstrip(" .")


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
