"""One answer scored by one metric of a task."""

import asyncio
from typing import Any

from agent.scoring.task_metrics import build_metrics
from agent.types import Example, Field, MetricSpec, Prediction, Score, Signature
from tests.toys import make_task


def score(name: str, got: Any, label: Any, **options: Any) -> Score:
    signature = Signature((Field("message"),), (Field("out", "json", schema='{"type": "array"}'),))
    task = make_task(signature=signature, metrics=(MetricSpec(name, "out", options=options),))
    (metric,) = build_metrics(task)
    example = Example("r1", {"message": "hi"}, {} if label is None else {"out": label})
    return asyncio.run(metric.score(example, Prediction({"out": got}, str(got))))
