"""One answer scored by one metric of a task."""

import asyncio
from typing import Any

from agent.scoring.task_metrics import build_metrics
from agent.types import Example, Field, MetricSpec, Prediction, Score, Signature, Task
from tests.toys import make_task

SCHEMA = (
    '{"type": "object", "required": ["name"], "properties": '
    '{"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}}}'
)
OUT = Field("out", "json", schema=SCHEMA)


def task_of(*specs: MetricSpec, outputs: tuple[Field, ...] = (OUT,), folder: Any = ".") -> Task:
    signature = Signature((Field("message"),), outputs)
    return make_task(0, signature=signature, metrics=specs, folder=str(folder))


def score(name: str, got: Any, label: Any, field: Field = OUT, **options: Any) -> Score:
    (metric,) = build_metrics(task_of(MetricSpec(name, "out", options=options), outputs=(field,)))
    example = Example("r1", {"message": "hi"}, {} if label is None else {"out": label})
    return asyncio.run(metric.score(example, Prediction({"out": got}, str(got))))
