"""The answers on the sealed test, counted: right and wrong rows, unreadable replies, and the confusion matrix of a
choice; JSON-ready. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.scoring.breakdown import PASS, Pair, readable
from agent.scoring.evaluate import values
from agent.shipped import Field, fold
from agent.types import Example, Outcome

SHOWN_ROWS = 3
"""Rows with an unreadable reply that are named."""


def row_counts(pair: Pair) -> dict[str, dict[str, Any]]:
    """How many rows each side gets right, and how many of its replies cannot be read."""
    return {"winner": _counted(pair.won), "baseline": _counted(pair.based)}


def _counted(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    scores = values(outcomes)
    right, wrong = sum(score >= PASS for score in scores), sum(score <= 0 for score in scores)
    unreadable = [outcome.example_id for outcome in outcomes if readable(outcome) == 0 and outcome.value is not None]
    return {
        "right": right,
        "partly": len(scores) - right - wrong,
        "wrong": wrong,
        "unscored": len(outcomes) - len(scores),
        "unreadable": len(unreadable),
        "unreadable_rows": unreadable[:SHOWN_ROWS],
    }


def by_label(pair: Pair, fields: Sequence[Field]) -> list[dict[str, Any]]:
    """For each of `fields` that is a choice, both sides by label; a row without an answer is left out."""
    return [
        {
            "field": field.name,
            "labels": list(field.choices),
            "winner": _by_label(pair.rows, pair.won, field),
            "baseline": _by_label(pair.rows, pair.based, field),
        }
        for field in fields
        if field.choices
    ]


def _by_label(rows: Sequence[Example], outcomes: Sequence[Outcome], field: Field) -> dict[str, Any]:
    """Precision, recall and support of each label, and the cells of the confusion matrix that are not 0."""
    known = _by_spelling(field.choices)
    pairs = [
        (known(row.labels.get(field.name)), known(outcome.prediction.fields.get(field.name)))
        for row, outcome in zip(rows, outcomes, strict=True)
        if readable(outcome) is not None
    ]
    cells = Counter((label, said) for label, said in pairs if label is not None)
    order = {label: at for at, label in enumerate(field.choices)}
    end = len(order)
    ranked = sorted(cells, key=lambda cell: (order[cell[0]], order.get(cell[1] or "", end)))
    return {
        "scores": [_label_score(label, cells) for label in field.choices],
        "cells": [{"label": label, "said": said, "rows": cells[label, said]} for label, said in ranked],
    }


def _label_score(label: str, cells: Mapping[tuple[str, str | None], int]) -> dict[str, Any]:
    support = sum(rows for (of, _), rows in cells.items() if of == label)
    said = sum(rows for (_, answer), rows in cells.items() if answer == label)
    right = cells.get((label, label), 0)
    return {
        "label": label,
        "support": support,
        "said": said,
        "right": right,
        "precision": right / said if said else None,
        "recall": right / support if support else None,
    }


def _by_spelling(choices: Sequence[str]) -> Callable[[Any], str | None]:
    """Finds the choice that a value is, also where a program of the user's own writes it in other letters."""
    folded: dict[str, str | None] = {}
    for choice in choices:
        folded[fold(choice)] = None if fold(choice) in folded else choice

    def known(value: Any) -> str | None:
        text = "" if value is None else str(value)
        return text if text in choices else folded.get(fold(text))

    return known
