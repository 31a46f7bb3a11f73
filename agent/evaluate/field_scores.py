"""The score of a JSON answer by field, on the sealed test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.evaluate.breakdown import BASELINE, WINNER, compared, readable
from agent.evaluate.score_table import ScoreTable
from agent.metrics.json_values import field_value
from agent.results.breakdown import FieldScore
from agent.types import Outcome, Task


def by_field(table: ScoreTable, task: Task, seed: int) -> list[FieldScore]:
    """Compare both sides by field of each answer with the metric `json_fields`."""
    several = len(task.signature.outputs) > 1
    found = []
    for output in dict.fromkeys(spec.field for spec in task.metrics if spec.name == "json_fields"):
        labels = [row.labels.get(output) for row in table.rows]
        sides = {side: [_object(outcome, output) for outcome in table.first(side)] for side in (WINNER, BASELINE)}
        for name in dict.fromkeys(name for label in labels if isinstance(label, Mapping) for name in label):
            rows = [at for at in range(len(labels)) if any(_has(each[at], name) for each in (labels, *sides.values()))]
            won, based = ([_value(sides[side][at], labels[at], name) for at in rows] for side in (WINNER, BASELINE))
            field = f"{output}.{name}" if several else name
            found.append(FieldScore(field=field, **compared(won, based, seed)))
    return found


def _object(outcome: Outcome, output: str) -> Any:
    return None if readable(outcome) is None else outcome.prediction.fields.get(output, {})


def _has(value: Any, name: str) -> bool:
    return isinstance(value, Mapping) and name in value


def _value(got: Any, label: Any, name: str) -> float | None:
    if got is None or not isinstance(label, Mapping):
        return None
    if not isinstance(got, Mapping) or not got:
        return 0.0
    return field_value(got, label, name)
