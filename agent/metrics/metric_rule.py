"""A metric: the types it scores, its options and rules, and the check that it builds.

A metric is one function that registers itself:

    @metric("same_start", about="The first letters agree.", types=("text",), options=StartOptions)
    def same_start(options: StartOptions, field: Field) -> Check: ...

It is called once per [[metrics]] of a task, before any call, and raises ValueError for unusable options or schemas. The
check that it returns is pure, from (predicted, label) to (value, reason).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from agent.metrics.comparison import BoundedCheck, Check
from agent.metrics.metric_registry import METRICS
from agent.types import Field, FieldType

MAX_WHOLE_NUMBER = 2**53
"""The largest whole number of an option: beyond it floats, and so JSON, are not exact."""

Build = Callable[[Any, Field], Check | BoundedCheck]
Faults = Callable[[Any, Field | None], Iterable[tuple[str, str]]]
"""From options and field (None if its definition is wrong) to (option or "", problem)."""
Function = TypeVar("Function", bound=Build)


class Options(BaseModel):
    """The options of a metric, each with a default and a description."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


@dataclass(frozen=True, slots=True)
class MetricRule:
    """A metric, and the decorator that registers the function below it as its `build`.

    `types` are those of fields that it can score; of the options `needs` at least one must be given. With `needs_label`
    rows without a label are left out. Instead of the predicted field the check takes with `reads_replies` all replies
    of a conversation, with `reads_rollout` the Prediction of an agent. With `excludes` a label may be
    {"not": [TOOL, ...]}. `build` is None if only a run can build the metric.
    """

    name: str
    _: KW_ONLY
    about: str
    types: tuple[FieldType, ...]
    options: type[Options] = Options
    needs: tuple[str, ...] = ()
    needs_label: bool = True
    reads_replies: bool = False
    reads_rollout: bool = False
    excludes: bool = False
    faults: Faults = lambda options, field: ()
    build: Build | None = None

    def __call__(self, build: Function) -> Function:
        METRICS.add(self.name, replace(self, build=build), build.__module__)
        return build


metric = MetricRule
