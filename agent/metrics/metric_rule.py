"""What a metric is: what it scores, its options, its rules, and the check that it makes. Knows no metric by name.

A metric is one function that registers itself:

    @metric("same_start", about="The first letters agree.", types=("text",), options=StartOptions)
    def same_start(options: StartOptions, field: Field) -> Check: ...

It is called once for each [[metrics]] of a task, before any call, and raises ValueError where the options or the
field's schema cannot be used. The check that it returns is pure and takes (predicted, label) to (value, reason).
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
"""The largest whole number that an option may hold: beyond it floats, and so JSON, are not exact."""

Build = Callable[[Any, Field], Check | BoundedCheck]
Faults = Callable[[Any, Field | None], Iterable[tuple[str, str]]]
"""From the options and the field (None where its definition is wrong) to (option or "", what is wrong with it)."""
Function = TypeVar("Function", bound=Build)


class Options(BaseModel):
    """The options of a metric: keys next to `name`, `field` and `weight`, each with a default and a description.
    Unknown keys are refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class MetricRule:
    """A metric, and the decorator that registers the function below it as its `build`.

    `types`: of the fields that it can score; `needs`: at least one of these options must be given; `needs_label`: rows
    without a label are left out; `reads_replies`: the check takes the list of all replies of a conversation instead of
    the predicted field. `build` is None where a run builds the metric from more than options and a field.
    """

    name: str
    _: KW_ONLY
    about: str
    types: tuple[FieldType, ...]
    options: type[Options] = Options
    needs: tuple[str, ...] = ()
    needs_label: bool = True
    reads_replies: bool = False
    faults: Faults = lambda options, field: ()
    build: Build | None = None

    def __call__(self, build: Function) -> Function:
        METRICS.add(self.name, replace(self, build=build), build.__module__)
        return build


metric = MetricRule
