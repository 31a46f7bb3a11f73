"""What a metric is: what it scores, its options, its rules, and the check that it makes. Knows no metric by name.

A metric is one function that registers itself:

    @metric("same_start", about="The first letters agree.", types=("text",), options=StartOptions)
    def same_start(options: StartOptions, field: Field) -> Check: ...

It is called once for each [[metrics]] of a task, before any call, and raises ValueError where the options or the
field's schema cannot be used. The check that it returns is pure and takes (predicted, label) to (value, reason).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from agent.metrics.bounded import BoundedCheck
from agent.metrics.comparison import Check
from agent.metrics.metric_registry import METRICS
from agent.types import Field, FieldType

MAX_WHOLE_NUMBER = 2**53
"""The largest whole number that an option may hold: beyond it floats, and so JSON, are not exact."""

Build = Callable[[Any, Field], Check | BoundedCheck]
Faults = Callable[[Any, Field | None], Iterable[tuple[str, str]]]
"""From the options and the field (None where its definition is wrong) to (option or "", what is wrong with it)."""
Function = TypeVar("Function", bound=Build)


class Options(BaseModel):
    """The options of a metric: keys beside `name`, `field` and `weight`, each with a default and a description. Unknown
    keys are refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def no_faults(options: Options, field: Field | None) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    """A registered metric. `types`: of the fields that it can score; `needs`: at least one of these options must be
    given; `needs_label`: a row without a label is left out; `reads_replies`: the check takes the list of all replies of
    a conversation in the place of the predicted field. `build` is None where a run builds the metric, since it
    takes more than options and a field."""

    name: str
    about: str
    types: tuple[FieldType, ...]
    options: type[Options] = Options
    needs: tuple[str, ...] = ()
    needs_label: bool = True
    reads_replies: bool = False
    faults: Faults = no_faults
    build: Build | None = None


def metric(
    name: str,
    *,
    about: str,
    types: tuple[FieldType, ...],
    options: type[Options] = Options,
    needs: tuple[str, ...] = (),
    needs_label: bool = True,
    reads_replies: bool = False,
    faults: Faults = no_faults,
) -> Callable[[Function], Function]:
    """Registers the function below as the metric `name`; the arguments are those of `MetricRule`."""

    def register(build: Function) -> Function:
        rule = MetricRule(
            name=name,
            about=about,
            types=types,
            options=options,
            needs=needs,
            needs_label=needs_label,
            reads_replies=reads_replies,
            faults=faults,
            build=build,
        )
        METRICS.add(name, rule, build.__module__)
        return build

    return register
