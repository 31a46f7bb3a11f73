"""Find a wrong metric before the first call: score the right answers of some rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from agent.errors import InputError
from agent.programs.constants import answers, predicted
from agent.safe_text import counted, quoted
from agent.scoring.task_metrics import FieldMetric, FunctionMetric, PythonMetric, build_metrics
from agent.types import Example, Metric, MetricSpec, Prediction, Score, Task

ROWS = 20
"""Rows whose right answers are scored."""
FULL = 1 - 1e-9


class _Judge:
    def __init__(self, spec: MetricSpec) -> None:
        self.name = spec.name

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, None)


def check_metrics(task: Task, tell: Callable[[str], None]) -> None:
    """Score right answers of up to ROWS rows with each metric that reads labels.

    `tell` gets a line for each metric below full marks. Raises InputError for a metric that scores nothing.
    """
    rows = [(row, predicted(answer)) for row, answer in answers(task, (*task.train, *task.dev))[:ROWS]]
    if not rows or task.user is not None:  # what a conversation is scored by is not known before it was held
        return
    metrics = [metric for metric in build_metrics(task, {"judge": _Judge}) if _compares(metric)]
    with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
        scored = thread.submit(asyncio.run, _scores(metrics, rows)).result()
    for metric, scores in zip(metrics, scored, strict=True):
        low = [at for at, score in enumerate(scores) if (score.value or 0.0) < FULL]
        if not low:
            continue
        shown = _shown(rows[low[0]], scores[low[0]])
        if all(not score.value for score in scores):
            what = (
                f"metric {metric.name}: {counted(len(rows), 'right answer')} tried, and it scores 0 or nothing for each"
            )
            raise InputError(f"{task.name}: {what}: {shown}; {_way(metric)}")
        few = f"gives {len(low)} of {counted(len(rows), 'right answer')} less than full marks"
        tell(f"metric {metric.name}: {few}: {shown}")


def _compares(metric: Metric) -> bool:  # not judges, which cost calls, nor metrics that read no label
    if isinstance(metric, FieldMetric):
        return metric.rule.needs_label and not metric.rule.reads_replies
    return isinstance(metric, FunctionMetric | PythonMetric)


async def _scores(metrics: Sequence[Metric], rows: Sequence[tuple[Example, Prediction]]) -> list[list[Score]]:
    try:
        return [[await metric.score(row, right) for row, right in rows] for metric in metrics]
    finally:
        for metric in metrics:
            if isinstance(metric, PythonMetric):
                metric.close()


def _shown(row: tuple[Example, Prediction], score: Score) -> str:
    example, right = row
    value = "no score" if score.value is None else f"{score.value:g}"
    because = f" ({score.reason})" if score.reason else ""
    return f"row {quoted(example.id)}, answer {quoted(right.raw)}: {value}{because}"


def _way(metric: Metric) -> str:
    if isinstance(metric, FunctionMetric):
        return f"it is called as {metric.name}(row, answer): the row with its columns and labels, then the answer"
    if isinstance(metric, PythonMetric):
        return "it is called as metric(example, prediction): example['labels'], then prediction['fields']"
    return "choose a metric that fits these answers, or correct the rows"
