"""The metrics of a task: one field of a prediction against the row's label, as a score in [0, 1] with a reason.

Never sees a model. A prediction with `error` scores 0 with that error as its reason: not parsing is the prompt's fault.
What cannot be scored (no label, a check that fails) is None, never 0. A list as the label of a text field, which a task
made in Python may hold, means that any of its items is right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.conversation import turns_of
from agent.errors import InputError
from agent.metrics.comparison import BoundedCheck, Check
from agent.metrics.metric_rule import METRICS
from agent.scoring.user_metrics import FunctionMetric, PythonMetric, registered
from agent.types import Example, Field, Metric, MetricSpec, Prediction, Score, Task
from agent.worker import Verdict, run_aside

if TYPE_CHECKING:
    from agent.metrics.metric_rule import MetricRule


def build_metrics(
    task: Task, others: Mapping[str, Callable[[MetricSpec], Metric]] = MappingProxyType({})
) -> tuple[Metric, ...]:
    """The metrics of a task, in the order of `task.metrics`; a name that it uses twice becomes `name:field`.

    `others` builds, by name, what takes more than a task, such as a judge. Raises InputError for an unknown name, field
    or option value, a pattern or schema that does not compile, and a missing or broken metric.py.
    """
    names = Counter(spec.name for spec in task.metrics)
    metrics: list[Metric] = []
    for spec in task.metrics:
        if function := registered(spec.name):
            metrics.append(FunctionMetric(function, spec.field))
            continue
        field = _field_of(spec, task)
        name = spec.name if names[spec.name] == 1 else f"{spec.name}:{field.name}"
        if spec.name in others:
            metrics.append(others[spec.name](spec))
        elif spec.name == "python":
            metrics.append(PythonMetric(name, Path(task.folder) / "metric.py"))
        else:
            try:
                rule = METRICS.get(spec.name)
                check = _check(rule, spec, field)
            except (InputError, ValueError) as problem:
                raise InputError(f"{_file(task)}: {problem}") from problem
            metrics.append(FieldMetric(name, field.name, check, rule.needs_label, rule.reads_replies))
    return tuple(metrics)


def _check(rule: MetricRule, spec: MetricSpec, field: Field) -> Check | BoundedCheck:
    from pydantic import ValidationError

    try:
        options = rule.options.model_validate(dict(spec.options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        fault = f"has {key} = {first['input']!r}: {first['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
        raise ValueError(f"metric {rule.name} {fault}") from error
    if rule.needs and not any(key in spec.options for key in rule.needs):
        raise ValueError(f"metric {rule.name} needs {' or '.join(rule.needs)} in its options")
    for _, what in rule.faults(options, field):
        raise ValueError(f"metric {rule.name}: {what}")
    if rule.build is None:
        raise ValueError(f"metric {rule.name} needs more than a task to be made, such as a model to ask")
    return rule.build(options, field)


def combine(scores: Sequence[Score], specs: Sequence[MetricSpec]) -> float | None:
    """The weighted mean in [0, 1] of one outcome's scores, in the order of `specs`; None where any is missing.

    Raises ValueError where the two differ in length, or the weights add up to nothing.
    """
    total = math.fsum(spec.weight for spec in specs)
    if len(scores) != len(specs) or (specs and not total > 0):
        raise ValueError(f"{len(scores)} scores for {len(specs)} metrics with weights that add up to {total}")
    parts = [score.value * spec.weight for score, spec in zip(scores, specs, strict=True) if score.value is not None]
    if not specs or len(parts) < len(specs):
        return None
    return min(1.0, max(0.0, math.fsum(parts) / total))


@dataclass(frozen=True, slots=True)
class FieldMetric:
    """A pure check of one field against its label."""

    name: str
    field: str
    check: Check | BoundedCheck
    needs_label: bool = True
    reads_replies: bool = False

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        label = example.labels.get(self.field)
        if self.needs_label and label is None:
            return Score(self.name, None, f"row {example.id} has no label for {self.field}")
        if self.field not in prediction.fields:
            return Score(self.name, 0.0, f"the reply has no {self.field}")
        got = prediction.fields[self.field]
        if self.reads_replies:
            said = turns_of(prediction.conversation) if prediction.conversation else []
            got = [*(content for role, content in said if role == "assistant"), prediction.raw]
        check: Callable[[], Verdict | Awaitable[Verdict]] = partial(self.check, got, label)
        try:
            verdict = await run_aside(len(prediction.raw), check)
            value, reason = verdict if isinstance(verdict, tuple) else await verdict
        except Exception as problem:  # a metric may be another package's code
            return Score(self.name, None, f"{self.name} failed: {type(problem).__name__}: {problem}"[:300])
        if value is not None and not 0 <= value <= 1:
            return Score(self.name, None, f"{self.name} gave {value}, which is not in [0, 1]")
        return Score(self.name, value, reason)


def _file(task: Task) -> Path:
    return Path(task.folder) / "task.toml"


def _field_of(spec: MetricSpec, task: Task) -> Field:
    outputs = {field.name: field for field in task.signature.outputs}
    if not spec.field and len(outputs) == 1:
        return task.signature.outputs[0]
    if spec.field not in outputs:
        raise InputError(
            f"{_file(task)}: metric {spec.name} names the field {spec.field!r}; the outputs are {', '.join(outputs)}"
        )
    return outputs[spec.field]
